"""The feature losses against reference numbers: losses, gradients, parameter counts and tapped layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any

import golden_data as golden
import numpy as np
import pytest
import small
import torch
from hydra.utils import instantiate
from torch import Tensor, nn

from sqakd.kd.attention import attention_loss
from sqakd.kd.base import FeatureLoss, SetupInfo
from sqakd.kd.correlation import CorrelationCongruence, correlation_loss
from sqakd.kd.factor import FactorTransfer, encoder, factor_loss
from sqakd.kd.fsp import flow, flow_losses
from sqakd.kd.hint import hint_loss, regressor
from sqakd.kd.hooks import Features
from sqakd.kd.nst import selectivity_loss
from sqakd.kd.relational import angle_loss, distance_loss
from sqakd.kd.similarity import similarity_loss
from sqakd.kd.variational import VariationalGaussian

LOSS, GRADIENT = 1e-5, 1e-4
AT, NST, SP, RKD = (golden.load(f"04_kd_{name}") for name in ("at", "nst", "sp", "rkd"))
CC, HINT, VID, FSP, FT = (golden.load(f"04_kd_{name}") for name in ("cc", "hint", "vid", "fsp", "ft"))
# Names of the reference's tensors -> names in our modules.
NAMES = {
    "conv": "0",
    "bn": "1",
    **{f"conv{i}": f"mean.{2 * i - 2}" for i in (1, 2, 3)},
    "rho": "rho",
}


def tensor(array: Any) -> Tensor:
    return torch.from_numpy(np.asarray(array))


def cases(data: Mapping[str, Any]) -> range:
    return range(int(data["n_cases"]))


def load(module: nn.Module, data: Mapping[str, Any], places: Mapping[str, str]) -> None:
    """Set every parameter of a module; `places` maps our names to the reference's."""
    state = {name: tensor(data[places[name]]) for name, _ in module.named_parameters()}
    missing, unexpected = module.load_state_dict(state, strict=False)
    assert not unexpected
    assert all("running" in name or "num_batches" in name for name in missing)


def check_gradients(loss: Tensor, inputs: Iterable[Tensor], references: Iterable[Any]) -> None:
    inputs = list(inputs)
    for got, reference in zip(torch.autograd.grad(loss, inputs), references, strict=True):
        if np.abs(reference).max() < 1e-6:  # a bias before a batch norm has no influence: both are rounding noise
            assert float(got.abs().max()) <= 1e-6
        else:
            assert golden.error(got, reference) <= GRADIENT


def blocks(prefix: str, *, batch_norm: bool) -> dict[str, str]:
    """Return a map from our names of an encoder's tensors to the reference's."""
    names = {}
    for i in range(3):
        first = i * (3 if batch_norm else 2)
        for kind in ("weight", "bias"):
            names[f"{first}.{kind}"] = f"{prefix}_conv{i + 1}_{kind}"
            if batch_norm:
                names[f"{first + 1}.{kind}"] = f"{prefix}_bn{i + 1}_{kind}"
    return names


@pytest.mark.parametrize(("data", "function"), [(AT, attention_loss), (NST, selectivity_loss)])
@pytest.mark.parametrize("i", cases(AT))
def test_at_and_nst_equal_the_reference(
    data: dict[str, Any], function: Callable[[Tensor, Tensor], Tensor], i: int
) -> None:
    levels = range(int(data["n_levels"][i]))
    student = [tensor(data[f"fs{k}_{i:02d}"]).requires_grad_() for k in levels]
    terms = torch.stack([function(s, tensor(data[f"ft{k}_{i:02d}"])) for k, s in enumerate(student)])
    assert np.allclose(terms.detach().numpy(), data[f"terms_{i:02d}"], rtol=LOSS, atol=0)
    assert golden.error(terms.sum(), data[f"loss_{i:02d}"]) <= LOSS
    check_gradients(terms.sum(), student, [data[f"dfs{k}_{i:02d}"] for k in levels])


@pytest.mark.parametrize("i", cases(SP))
def test_sp_equals_the_reference(i: int) -> None:
    student = tensor(SP[f"fs_{i:02d}"]).requires_grad_()
    loss = similarity_loss(student, tensor(SP[f"ft_{i:02d}"]))
    assert golden.error(loss, SP[f"loss_{i:02d}"]) <= LOSS
    check_gradients(loss, [student], [SP[f"dfs_{i:02d}"]])


@pytest.mark.parametrize("i", cases(RKD))
def test_rkd_equals_the_reference(i: int) -> None:
    student, teacher = tensor(RKD[f"fs_{i:02d}"]).requires_grad_(), tensor(RKD[f"ft_{i:02d}"])
    distance = 25 * distance_loss(student, teacher)
    assert golden.error(distance, RKD[f"loss_dist_{i:02d}"]) <= LOSS
    check_gradients(distance, [student], [RKD[f"dfs_dist_{i:02d}"]])
    both = 25 * distance_loss(student, teacher) + 50 * angle_loss(student, teacher)
    assert golden.error(both, RKD[f"loss_{i:02d}"]) <= LOSS
    check_gradients(both, [student], [RKD[f"dfs_{i:02d}"]])


@pytest.mark.parametrize("i", cases(CC))
def test_cc_of_given_embeddings_equals_the_reference(i: int) -> None:
    student, teacher = (tensor(CC[f"e{who}_{i:02d}"]).requires_grad_() for who in "st")
    loss = correlation_loss(student, teacher)
    assert golden.error(loss, CC[f"loss_{i:02d}"]) <= LOSS
    check_gradients(loss, [student, teacher], [CC[f"des_{i:02d}"], CC[f"det_{i:02d}"]])


def test_cc_of_features_equals_the_reference() -> None:
    student, teacher = tensor(CC["lin_fs"]).requires_grad_(), tensor(CC["lin_ft"])
    loss = CorrelationCongruence(width=16)
    loss.names = ["pooled"]
    loss.setup(setup_info(student.detach(), teacher))
    places = {f"{w}.{k}": f"lin_embed_{w[0]}_linear_{k}" for w in ("student", "teacher") for k in ("weight", "bias")}
    load(loss, CC, places)
    value = correlation_loss(loss.student(student), loss.teacher(teacher))
    assert golden.error(value, CC["lin_loss"]) <= LOSS
    own = dict(loss.named_parameters())
    check_gradients(value, [student, *own.values()], [CC["lin_dfs"], *(CC[f"d_{places[name]}"] for name in own)])


@pytest.mark.parametrize("i", cases(HINT))
def test_fitnets_equals_the_reference(i: int) -> None:
    student, teacher = tensor(HINT[f"fs_{i:02d}"]).requires_grad_(), tensor(HINT[f"ft_{i:02d}"])
    translate = regressor(student, teacher)
    assert translate is not None
    places = {f"{NAMES[m]}.{kind}": f"reg{i:02d}_{m}_{kind}" for m in ("conv", "bn") for kind in ("weight", "bias")}
    load(translate, HINT, places)
    translated = translate(student)
    loss = hint_loss(translated, teacher)
    assert golden.error(translated, HINT[f"reg_out_{i:02d}"]) <= GRADIENT
    assert golden.error(loss, HINT[f"loss_{i:02d}"]) <= LOSS
    for statistic in ("running_mean", "running_var"):
        assert golden.error(translate[1].get_buffer(statistic), HINT[f"{statistic}_after_{i:02d}"]) <= GRADIENT
    own = dict(translate.named_parameters())
    references = [HINT[f"dfs_{i:02d}"], *(HINT[f"d_{places[name]}"] for name in own)]
    check_gradients(loss, [student, *own.values()], references)


@pytest.mark.parametrize("i", cases(VID))
def test_vid_equals_the_reference(i: int) -> None:
    student, teacher = tensor(VID[f"fs_{i:02d}"]).requires_grad_(), tensor(VID[f"ft_{i:02d}"])
    guess = VariationalGaussian(inputs=student.shape[1], outputs=teacher.shape[1], variance=5.0, epsilon=1e-5)
    assert golden.error(guess.rho, VID[f"log_scale_init_{i:02d}"]) <= 1e-6
    places = {f"{NAMES[f'conv{k}']}.weight": f"vid{i:02d}_conv{k}_weight" for k in (1, 2, 3)}
    places["rho"] = f"vid{i:02d}_rho"
    load(guess, VID, places)
    loss = guess(student, teacher)
    assert golden.error(loss, VID[f"loss_{i:02d}"]) <= LOSS
    own = dict(guess.named_parameters())
    references = [VID[f"dfs_{i:02d}"], *(VID[f"d_{places[name]}"] for name in own)]
    check_gradients(loss, [student, *own.values()], references)


def test_fsp_equals_the_reference() -> None:
    levels = range(int(FSP["n_levels"]))
    student = [tensor(FSP[f"fs{k}"]).requires_grad_() for k in levels]
    teacher = [tensor(FSP[f"ft{k}"]) for k in levels]
    for k in levels[:-1]:
        assert golden.error(flow(student[k], student[k + 1]), FSP[f"gram_s{k}"]) <= LOSS
    terms = torch.stack(flow_losses(student, teacher))
    assert np.allclose(terms.detach().numpy(), FSP["terms"], rtol=LOSS, atol=0)
    assert golden.error(terms.sum(), FSP["loss"]) <= LOSS
    check_gradients(terms.sum(), student, [FSP[f"dfs{k}"] for k in levels])


@pytest.mark.parametrize("i", cases(FT))
def test_ft_equals_the_reference(i: int) -> None:
    student, teacher = tensor(FT[f"fs_{i:02d}"]).requires_grad_(), tensor(FT[f"ft_{i:02d}"])
    factor = FT[f"factor_t_{i:02d}"].shape[1]
    translate = encoder(student.shape[1], factor, batch_norm=True)
    paraphrase = encoder(teacher.shape[1], factor, batch_norm=False)
    places = blocks(f"tra{i:02d}_enc", batch_norm=True)
    load(translate, FT, places)
    load(paraphrase, FT, blocks(f"par{i:02d}_enc", batch_norm=False))
    factors = translate(student), paraphrase(teacher)
    assert golden.error(factors[0], FT[f"factor_s_{i:02d}"]) <= GRADIENT
    assert golden.error(factors[1], FT[f"factor_t_{i:02d}"]) <= GRADIENT
    loss = factor_loss(*factors)
    assert golden.error(loss, FT[f"loss_{i:02d}"]) <= LOSS
    own = dict(translate.named_parameters())
    references = [FT[f"dfs_{i:02d}"], *(FT[f"d_{places[name]}"] for name in own)]
    check_gradients(loss, [student, *own.values()], references)


@pytest.mark.parametrize("i", cases(FT))
def test_the_paraphraser_of_ft_equals_the_reference(i: int) -> None:
    teacher = tensor(FT[f"ft_{i:02d}"])
    loss = FactorTransfer(
        share=FT[f"factor_t_{i:02d}"].shape[1] / teacher.shape[1], pretrain_epochs=1, pretrain_lr=0.01
    )
    loss.names = ["last"]
    loss.setup(setup_info(tensor(FT[f"fs_{i:02d}"]), teacher))
    encode = blocks(f"par{i:02d}_enc", batch_norm=False)
    decode = {name: place.replace("enc_conv", "dec_deconv") for name, place in encode.items()}
    load(loss.paraphrase, FT, encode)
    load(loss.restore, FT, decode)
    asked = loss.pretrain_parameters([], [])
    assert {id(p) for p in asked} == {id(p) for p in [*loss.paraphrase.parameters(), *loss.restore.parameters()]}
    for parameter in asked:
        parameter.requires_grad_()
    assert golden.error(loss.restore(loss.paraphrase(teacher)), FT[f"init_rec_{i:02d}"]) <= GRADIENT
    value = loss.pretrain_loss([], [teacher])
    assert golden.error(value, FT[f"init_loss_{i:02d}"]) <= LOSS
    places = [encode[name] for name, _ in loss.paraphrase.named_parameters()]
    places += [decode[name] for name, _ in loss.restore.named_parameters()]
    check_gradients(value, asked, [FT[f"d_{place}"] for place in places])


def setup_info(student: Tensor, teacher: Tensor) -> SetupInfo:
    return SetupInfo(student=[student], teacher=[teacher], training_images=1, labels=None)


@pytest.mark.parametrize(
    ("kd", "resnet20", "vgg"),
    [
        ("at", 0, 0),
        ("nst", 0, 0),
        ("sp", 0, 0),
        ("rkd", 0, 0),
        ("fitnet", 1_120, 66_304),
        ("cc", 16_640, 131_328),
        ("vid", 16_240, 1_820_032),
        ("fsp", 0, 0),
        ("ft", 64_896, 4_131_840),
        ("crd", 16_640, 131_328),
        ("cktf", 197_888, 509_440),
    ],
)
def test_each_loss_has_as_many_parameters_as_the_reference(kd: str, resnet20: int, vgg: int) -> None:
    for model, count in (("resnet20", resnet20), ("vgg8", vgg), ("vgg13", vgg)):
        loss: FeatureLoss | None = instantiate(small.config(f"kd={kd}", f"model={model}").kd).feature_loss
        assert loss is not None
        available = features(model)
        loss.names = loss.taps(list(available), nn.Identity())
        tapped = [available[name] for name in loss.names]
        labels = torch.arange(2)
        loss.setup(SetupInfo(student=tapped, teacher=tapped, training_images=2, labels=labels))
        assert sum(p.numel() for p in loss.parameters() if p.requires_grad) == count, model


@cache
def features(model: str) -> dict[str, Tensor]:
    """Return the features of a 32x32 image at a network's feature layers, by name."""
    parts = small.config(f"model={model}").model
    network: nn.Module = instantiate(parts.net, num_classes=10)
    recorder = Features(network, parts.feature_layers)
    with torch.no_grad():
        network.eval()(torch.zeros(1, 3, 32, 32))
    return dict(zip(recorder.taps, recorder.take(), strict=True))


def test_each_loss_taps_the_reference_s_layers() -> None:
    for kd, places in (
        ("vid", "123"),
        ("rkd", "4"),
        ("sp", "3"),
        ("fitnet", "2"),
        ("fsp", "0123"),
        ("ft", "3"),
        ("crd", "4"),
    ):
        task = small.make_task(small.network(), small.network(), f"kd={kd}")
        layers = small.config().model.feature_layers
        assert task.features is not None
        assert task.features[0].taps == [layers[int(place)] for place in places]

"""Networks of torchvision and timm, and some made to be difficult: quantized, trained one step, and restored."""

from __future__ import annotations

import copy
import dataclasses
import json
import re
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any
from urllib.error import URLError

import command
import pytest
import torch
from hydra import initialize_config_dir
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import models

from sqakd.advice import explain
from sqakd.app.compose import compose_spec
from sqakd.app.overrides import float_run_overrides
from sqakd.app.train import train
from sqakd.errors import SqakdError
from sqakd.models.timm import timm_network
from sqakd.models.torchvision import torchvision_network
from sqakd.models.trial import try_network
from sqakd.quantization.calibrate import calibrate
from sqakd.quantization.convert import Scheme, dequantize, quantize
from sqakd.quantization.curvature import Slice, estimate
from sqakd.quantization.layers import QuantConv2d, QuantLayer, QuantLinear, quant_layers, quantizers
from sqakd.quantization.quantizers.ewgs import ActivationBounds, WeightBounds
from sqakd.quantization.quantizers.rounding import ElementWiseGradientScaling, StraightThrough
from sqakd.quantization.selection import select
from sqakd.runs.record import Record
from sqakd.runs.spec import Spec, differences, identity, with_added_keys

IMAGES = (3, 64, 64)


def scheme(first_last: Any = "float") -> Scheme:
    return Scheme(
        weight=partial(WeightBounds, bits=4, start="paper"),
        input=partial(ActivationBounds, bits=4, start="paper"),
        rounding=StraightThrough,
        per_channel=False,
        output_scale=True,
        first_last=first_last,
        start=None,
        outer="float",
    )


def kinds(model: nn.Module) -> dict[str, type[nn.Module]]:
    return {name: type(module) for name, module in model.named_modules(remove_duplicate=False)}


def check_there_and_back(model: nn.Module, shape: tuple[int, int, int], *, stays_float: str | None = None) -> list[str]:
    """Quantize to 4 bits, calibrate, train one step and dequantize; the float network must be unchanged.

    Args:
        model: float network.
        shape: of an image.
        stays_float: text of the expected warning; None: no warning.

    Returns:
        Names of the quantized layers.
    """
    torch.manual_seed(0)
    images = torch.randn(2, *shape)
    before, weights = kinds(model), copy.deepcopy(model.state_dict())
    with torch.no_grad():
        logits = model.eval()(images)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        names = quantize(model, scheme(), image_shape=shape)
    messages = [str(warning.message) for warning in caught]
    if stays_float is None:
        assert messages == []
    else:
        assert len(messages) == 1
        assert stays_float in messages[0]

    calibrate(model, images)
    output = model.train()(images)
    F.cross_entropy(output, torch.tensor([1, 2])).backward()  # type: ignore[no-untyped-call]
    assert bool(torch.isfinite(output).all())
    assert all(bool(torch.isfinite(p.grad).all()) for p in model.parameters() if p.grad is not None)
    assert [name for name, layer in quant_layers(model) if layer.weight.grad is None] == []

    assert dequantize(model) == names
    assert kinds(model) == before
    model.load_state_dict(weights)  # batch-norm statistics have changed
    with torch.no_grad():
        assert torch.equal(model.eval()(images), logits)
    return names


def order(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if type(module) in (nn.Conv2d, nn.Linear)]


@pytest.mark.parametrize(
    "arch",
    [
        "resnet18",
        "mobilenet_v2",
        "mobilenet_v3_small",
        "shufflenet_v2_x0_5",
        "squeezenet1_1",
        "efficientnet_b0",
        pytest.param("densenet121", marks=pytest.mark.slow),
        "googlenet",
        "regnet_y_400mf",
    ],
)
def test_networks_of_torchvision(arch: str) -> None:
    """All layers but the first and the last are quantized, including depthwise and grouped ones."""
    model = torchvision_network(arch=arch, weights=None, num_classes=10)
    expected = order(model)[1:-1]
    assert check_there_and_back(model, IMAGES) == expected


def test_attention_without_layer_calls_stays_float() -> None:
    """MultiheadAttention multiplies by its own matrices and stays float; the layers around it are quantized."""
    model = models.VisionTransformer(
        image_size=16, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=10
    )
    names = check_there_and_back(
        model,
        (3, 16, 16),
        stays_float="float: parameter encoder.pos_embedding,"
        " MultiheadAttention encoder.layers.encoder_layer_0.self_attention and 1 more",
    )
    assert names == [f"encoder.layers.encoder_layer_{i}.mlp.{j}" for i in (0, 1) for j in (0, 3)]


def test_layers_that_are_read_but_not_called_stay_float() -> None:
    model = models.SwinTransformer(
        patch_size=[4, 4], embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=[4, 4], num_classes=10
    )
    names = check_there_and_back(model, (3, 32, 32), stays_float="Linear features.1.0.attn.qkv and 3 more")
    assert names == [
        *["features.1.0.mlp.0", "features.1.0.mlp.3"],
        "features.2.reduction",
        *["features.3.0.mlp.0", "features.3.0.mlp.3"],
    ]
    with pytest.warns(UserWarning, match=r"parameter features\.1\.0\.attn\.relative_position_bias_table and 1 more$"):
        quantize(model, scheme())  # without the size of the images no pass can run
    with pytest.raises(ValueError, match=r"take no part in the forward pass.*features\.1\.0\.attn\.qkv"):
        calibrate(model, torch.randn(2, 3, 32, 32))


@pytest.mark.parametrize(
    ("arch", "stays_float"),
    [
        ("test_resnet", None),
        ("test_efficientnet", None),
        ("test_convnext", None),
        ("test_vit", "parameter pos_embed"),
        ("tf_mobilenetv3_small_minimal_100", "Conv2dSame conv_stem and 4 more, Linear classifier"),
    ],
)
def test_networks_of_timm(arch: str, stays_float: str | None) -> None:
    """A position embedding and timm's own convolutions stay float, and the warning names them."""
    pytest.importorskip("timm")
    model = timm_network(arch=arch, weights=None, num_classes=10, options=None)
    size = 160 if arch == "test_vit" else 64
    assert check_there_and_back(model, (3, size, size), stays_float=stays_float)


def test_subclass_can_be_the_first_layer() -> None:
    """The first layer is then float already, and the second counts as an inner layer."""

    class Own(nn.Conv2d):
        pass

    model = nn.Sequential(Own(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1), nn.Flatten(), nn.Linear(64, 10))
    assert check_there_and_back(model, (3, 4, 4), stays_float="float: Own 0") == ["1", "2"]


@pytest.mark.parametrize("arch", ["torchvision mobilenet_v3_small", "timm test_vit", "timm test_convnext"])
def test_curvature_can_be_estimated_for_any_network(arch: str) -> None:
    """EWGS needs second derivatives of all activation functions, normalisations and attention."""
    source, _, name = arch.partition(" ")
    make = torchvision_network if source == "torchvision" else partial(timm_network, options=None)
    model = make(arch=name, weights=None, num_classes=10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantize(model, dataclasses.replace(scheme(), rounding=partial(ElementWiseGradientScaling, delta=0.0)))
    images = torch.randn(4, *IMAGES)
    calibrate(model, images)
    targets = quantizers(model)
    found = estimate(
        [Slice(lambda: F.cross_entropy(model(images), torch.arange(4)), 1.0)],
        model.train(),
        targets,
        max_probes=2,
        tolerance=0.0,
        generator=torch.Generator().manual_seed(0),
    )
    assert bool(torch.isfinite(found.trace).all())
    assert int(found.trace.count_nonzero()) > len(targets) // 2


class Bent(torch.autograd.Function):
    """A function with a derivative but no second derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise RuntimeError("derivative for bent_backward is not implemented")


def test_network_without_second_derivatives_is_refused() -> None:
    class Bending(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return Bent.apply(x)  # type: ignore[no-any-return]

    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), Bending(), nn.Flatten(), nn.Linear(64, 10))
    quantize(model, dataclasses.replace(scheme(), rounding=partial(ElementWiseGradientScaling, delta=0.0)))
    images = torch.randn(4, 3, 4, 4)
    calibrate(model, images)
    with pytest.raises(SqakdError, match=r"no second derivatives.*bent_backward") as error:
        estimate(
            [Slice(lambda: model(images).sum(), 1.0)],
            model,
            quantizers(model)[1:],
            max_probes=1,
            tolerance=0.0,
            generator=torch.Generator().manual_seed(0),
        )
    assert "quantizer.rounding.delta=0.001" in explain(error.value)


class Odd(nn.Module):
    """A network with a shared layer, a layer that runs twice, one shared ReLU, and layers of other types."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.a = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.twice = nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8))
        self.b = self.a
        self.up = nn.ConvTranspose2d(8, 8, 2, stride=2)
        self.line = nn.Conv1d(8, 8, 3)
        self.lookup = nn.Embedding(5, 8)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.stem(x))
        x = self.relu(self.a(x))
        x = self.relu(self.twice(self.relu(self.twice(x))))
        x = self.relu(self.b(x))
        x = self.line(self.up(x).flatten(2)).mean(dim=2)
        logits: Tensor = self.head(x + self.lookup.weight[0])
        return logits


def test_shared_layers_stay_shared_and_other_layers_are_named() -> None:
    others = "float: ConvTranspose2d up, Conv1d line, Embedding lookup"
    assert check_there_and_back(Odd(), (3, 8, 8), stays_float=others) == ["a", "twice.0"]
    model = Odd()
    with pytest.warns(UserWarning, match="stay float"):
        quantize(model, scheme())
    assert isinstance(model.a, QuantConv2d)
    assert model.a is model.b


def test_fast_path_of_evaluation_does_not_bypass_a_quantizer() -> None:
    """In evaluation mode, TransformerEncoderLayer reads the weights of its inner layers without calling them."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 8), layer, nn.Linear(8, 3))
    with pytest.warns(UserWarning, match=r"float: TransformerEncoderLayer 2$"):
        assert quantize(model, scheme()) == ["1"]


# The first and the last layers.


def stages() -> nn.Sequential:
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)),
        nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU()),
        nn.Conv2d(4, 4, 1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


@pytest.mark.parametrize(
    ("first", "quantized"),
    [
        (None, ["0.1", "1.0", "2"]),
        (["0"], ["1.0", "2"]),
        (["0.1"], ["0.0", "1.0", "2"]),
        (["0", "2"], ["1.0"]),
        ([], ["0.0", "0.1", "1.0", "2"]),
    ],
)
def test_first_layers_can_be_named(first: list[str] | None, quantized: list[str]) -> None:
    assert quantize(stages(), scheme(), first=first) == quantized


def test_first_layers_follow_the_policy() -> None:
    model = stages()
    assert quantize(model, scheme("8"), first=["0"]) == ["0.0", "0.1", "1.0", "2", "4"]
    assert [layer.weight_quantizer.bits for _, layer in quant_layers(model)] == [8, 8, 4, 4, 8]
    model = stages()
    quantize(model, scheme("same"), first=["0"])
    assert {layer.weight_quantizer.bits for _, layer in quant_layers(model)} == {4}


@pytest.mark.parametrize("name", ["layer0", "3", "1.1"])
def test_unknown_first_module_is_refused(name: str) -> None:
    """A module that does not exist is refused, and so is one without a layer."""
    model = stages()
    with pytest.raises(ValueError, match=rf"no convolution or linear layer in '{name}'; it has them in, .*[012]"):
        quantize(model, scheme(), first=["0", name])
    assert not any(isinstance(module, QuantLayer) for module in model.modules())


def test_last_layer_can_be_a_convolution() -> None:
    model = torchvision_network(arch="squeezenet1_0", weights=None, num_classes=10)
    found = select(model, types=(nn.Conv2d, nn.Linear), first=None, image_shape=None)
    assert {found.layers[layer] for layer in found.outer} == {"features.0", "classifier.1"}
    quantize(model, scheme("8"))
    last = model.get_submodule("classifier.1")
    assert isinstance(last, QuantConv2d)
    assert last.weight_quantizer.bits == 8


def test_layers_keep_their_settings() -> None:
    conv = nn.Conv2d(4, 6, (3, 5), stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2, padding_mode="reflect")
    model = nn.Sequential(nn.Conv2d(3, 4, 1), conv, nn.Flatten(), nn.Linear(6 * 8 * 12, 8), nn.Linear(8, 2))
    quantize(model, scheme())
    assert str(conv)[len("Conv2d(") : -1] in str(model[1])
    assert isinstance(model[3], QuantLinear)
    calibrate(model, torch.randn(2, 3, 16, 16))
    dequantize(model)
    assert model[1](torch.randn(1, 4, 16, 16)).shape == (1, 6, 8, 12)


# Networks by name.


def test_unknown_names_are_refused_with_close_ones() -> None:
    with pytest.raises(SqakdError, match=r"no network 'resnet5O'; close: resnet50") as error:
        torchvision_network(arch="resnet5O", weights=None, num_classes=10)
    assert "list_models" in explain(error.value)
    with pytest.raises(SqakdError, match="no network 'fcn_resnet50'") as error:  # it segments
        torchvision_network(arch="fcn_resnet50", weights=None, num_classes=10)
    assert "list_models" in explain(error.value)
    with pytest.raises(ValueError, match=r"resnet18 has no weights 'imagenet'; choose one of IMAGENET1K_V1, DEFAULT"):
        torchvision_network(arch="resnet18", weights="imagenet", num_classes=10)


def test_unknown_names_of_timm_are_refused_with_close_ones() -> None:
    pytest.importorskip("timm")
    with pytest.raises(SqakdError, match=r"no network 'resnet5O'; close: .*resnet50") as error:
        timm_network(arch="resnet5O", weights=None, num_classes=10, options=None)
    assert "list_models" in explain(error.value)
    with pytest.raises(ValueError, match=r"resnet18 has no weights 'imagenet'; choose one of DEFAULT, .*a1_in1k"):
        timm_network(arch="resnet18", weights="imagenet", num_classes=10, options=None)


def test_options_of_a_network_of_timm_reach_its_constructor() -> None:
    pytest.importorskip("timm")
    model = timm_network(arch="test_vit", weights=None, num_classes=10, options={"img_size": 32})
    assert model.state_dict()["pos_embed"].shape == (1, 5, 64)
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"img_siz": 32}, r"options={'img_siz': 32}: test_vit does not take them \(.*img_siz"),
        ({"checkpoint_path": "any.pt"}, "options has checkpoint_path; expected arguments of the constructor"),
        ({"num_classes": 3}, "options has num_classes; expected"),
    ],
)
def test_other_options_of_timm_are_refused(options: dict[str, Any], message: str) -> None:
    pytest.importorskip("timm")
    with pytest.raises(SqakdError, match=message):
        timm_network(arch="test_vit", weights=None, num_classes=10, options=options)


def test_a_run_and_its_float_run_have_the_options_of_timm_as_identity() -> None:
    plain, student = (
        spec("model=timm", "model.arch=test_vit", *options) for options in ((), ("model.options={img_size: 32}",))
    )
    assert differences(plain.identity, student.identity) == [
        "model.net.options: None -> (absent)",
        "model.net.options.img_size: (absent) -> 32",
    ]
    old = copy.deepcopy(plain.saved)
    for node in (old["model"], old["teacher"]):
        del node["options"], node["net"]["options"]
    assert identity(with_added_keys(old)) == plain.identity
    teacher = spec(*float_run_overrides(student, "model@teacher")).config
    assert teacher["model"] == student.config["model"]


def test_warnings_about_a_network_of_timm_are_lines_of_the_command(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    few = ["dataset.limit=64", "trainer.accelerator=cpu", "recipe.epochs=0", "teacher.recipe.epochs=1"]
    vit = ["model=timm", "model.arch=test_vit", "model.options={img_size: 32}", "quantizer=lsq", "bits=4"]
    done = command.train(*vit, *few, runs=tmp_path / "runs")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^warning: these parts of the network stay float: .*pos_embed", done.stdout, re.MULTILINE)
    assert "UserWarning" not in done.stderr


def test_missing_timm_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(SqakdError) as error:
        timm_network(arch="resnet18", weights=None, num_classes=10, options=None)
    assert "pip install -e '.[timm]'" in explain(error.value)


def test_failed_download_of_weights_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: Any, **__: Any) -> Any:
        raise URLError("no network")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    with pytest.raises(ValueError, match=r"DEFAULT of resnet18 could not be downloaded.*https://.*resnet18"):
        torchvision_network(arch="resnet18", weights="DEFAULT", num_classes=10)
    timm = pytest.importorskip("timm")
    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(ValueError, match="DEFAULT of resnet18 could not be loaded"):
        timm_network(arch="resnet18", weights="DEFAULT", num_classes=10, options=None)


@pytest.mark.parametrize("arch", ["shufflenet_v2_x0_5", "squeezenet1_1", "googlenet"])
@pytest.mark.parametrize("classes", [10, 1000])
def test_pretrained_weights_with_another_number_of_classes(
    arch: str, classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All tensors are pretrained, except a last layer for another number of classes."""
    options = {"init_weights": False} if arch == "googlenet" else {}
    stored = models.get_model(arch, **options).state_dict()
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_, **__: stored)
    model = torchvision_network(arch=arch, weights="DEFAULT", num_classes=classes)
    assert model.train()(torch.randn(2, *IMAGES)).shape == (2, classes)
    fresh = [name for name, tensor in model.state_dict().items() if stored[name].shape != tensor.shape]
    same = [name for name, tensor in model.named_parameters() if torch.equal(tensor, stored[name])]
    assert len(fresh) == (0 if classes == 1000 else 2)
    assert len(same) + len(fresh) == len(list(model.named_parameters()))
    plain = torchvision_network(arch=arch, weights=None, num_classes=classes)
    plain.load_state_dict(model.state_dict())  # a student loads the weights of its float run in this way
    x = torch.randn(2, *IMAGES)
    assert torch.equal(plain.eval()(x), model.eval()(x))


# Networks that are incompatible with the images.


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (nn.Conv2d(3, 10, 64), r"odd cannot take images of 3x32x32: .*[Kk]ernel size.*; .*dataset\.image_size=224"),
        (nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 7)), r"shape \(2, 7\); expected logits \(2, 10\)"),
        (nn.Identity(), r"shape \(2, 3, 32, 32\); expected logits"),
        (models.GoogLeNet(10, init_weights=False), r"returns a GoogLeNetOutputs; expected one tensor"),
    ],
)
def test_incompatible_network_is_refused_in_one_line(network: nn.Module, message: str) -> None:
    with pytest.raises(SqakdError) as error:
        try_network(network, name="odd", image_shape=(3, 32, 32), num_classes=10)
    assert re.search(message, explain(error.value))
    assert "\n" not in explain(error.value)


def test_trial_pass_does_not_change_the_network() -> None:
    model = torchvision_network(arch="mobilenet_v3_small", weights=None, num_classes=10).eval()
    before = copy.deepcopy(model.state_dict())
    try_network(model, name="small", image_shape=IMAGES, num_classes=10)
    assert not model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


# Commands.


def spec(*overrides: str) -> Spec:
    with initialize_config_dir(str(command.ROOT / "conf"), version_base="1.3"):
        return compose_spec(list(overrides))


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["model=vgg13"], "vgg13"),
        pytest.param(["model=resnet18"], "resnet18", marks=pytest.mark.slow),
        (["model=resnet18", "model.weights=DEFAULT"], "resnet18_DEFAULT"),
        pytest.param(["model=torchvision", "model.arch=resnet50"], "torchvision_resnet50", marks=pytest.mark.slow),
        (["model=torchvision", "model.arch=resnet50", "model.weights=DEFAULT"], "torchvision_resnet50_DEFAULT"),
        (["model=timm", "model.arch=resnet50", "model.weights=a1_in1k"], "timm_resnet50_a1_in1k"),
        (["model.net.blocks=1", "model.name=thin"], "thin"),
    ],
)
def test_runs_and_float_runs_are_named_by_the_network(overrides: list[str], name: str) -> None:
    student = spec(*overrides)
    assert student.config["name"] == f"digits-{name}-ewgs-w2a2-sqakd"
    teacher = spec(*float_run_overrides(student, "model@teacher")).config
    assert teacher["name"] == f"digits-{name}-none-w32a32-none"
    assert teacher["model"] == student.config["model"]


def test_student_and_teacher_from_the_same_collection() -> None:
    student = spec(
        "model=torchvision",
        "teacher.arch=resnet50",
        "teacher.weights=DEFAULT",
        "model.arch=mobilenet_v2",
        "model@teacher=torchvision",
        "model.first=[features.0]",
    )
    assert student.config["name"] == "digits-torchvision_mobilenet_v2-ewgs-w2a2-sqakd"
    teacher = spec(*float_run_overrides(student, "model@teacher")).config
    assert teacher["name"] == "digits-torchvision_resnet50_DEFAULT-none-w32a32-none"
    assert teacher["model"]["net"]["weights"] == "DEFAULT"
    own = spec(*float_run_overrides(student, "model")).config
    assert own["name"] == "digits-torchvision_mobilenet_v2-none-w32a32-none"
    assert own["model"]["first"] is None  # `first` is about quantization, so it must not change the float run


def make_run(runs: Path, *overrides: str) -> Record:
    with initialize_config_dir(str(command.ROOT / "conf"), version_base="1.3"):
        return train(compose_spec([f"paths.runs={runs}", *overrides]))


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        (["model=torchvision", "model.arch=resnet5O"], SqakdError, "resnet5O.*; close: resnet50"),
        (["model.first=[layer11]"], SqakdError, r"first=\['layer11'\]: the network has no .*; it has .*layer1"),
    ],
)
def test_wrong_network_is_refused_before_anything_is_written(
    overrides: list[str], error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        make_run(tmp_path / "runs", *overrides)
    assert not (tmp_path / "runs").exists()


def test_network_for_larger_images_is_refused_in_one_line(tmp_path: Path) -> None:
    done = command.train("model=torchvision", "model.arch=alexnet", runs=tmp_path / "runs")
    assert done.returncode == 1
    assert done.stderr.startswith("error: torchvision_alexnet cannot take images of 3x32x32: ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_wrong_teacher_can_be_corrected(tmp_path: Path) -> None:
    """A failed command does not claim the student's folder."""
    overrides = ["model@teacher=torchvision", "teacher.arch=alexnet"]
    with pytest.raises(ValueError, match="torchvision_alexnet cannot take images"):
        make_run(tmp_path / "runs", *overrides)
    assert not list((tmp_path / "runs").rglob("config.yaml"))


def test_any_network_trains(tmp_path: Path) -> None:
    short = ["recipe.epochs=1", "teacher.recipe.epochs=1", "+trainer.limit_train_batches=2", "dataset.limit=64"]
    assert make_run(tmp_path / "runs", "model=torchvision", "model.arch=shufflenet_v2_x0_5", *short) is not None
    name = "digits-torchvision_shufflenet_v2_x0_5"
    record = json.loads((tmp_path / f"runs/{name}-ewgs-w2a2-sqakd/seed0/record.json").read_text())
    assert record["float_run"]["name"] == f"{name}-none-w32a32-none"

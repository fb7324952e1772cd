"""CRD and CKTF against reference numbers: losses, gradients, memory banks and partition functions."""

from __future__ import annotations

from typing import Any

import golden_data as golden
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sqakd.kd.base import FeatureBatch
from sqakd.kd.cktf import ContrastiveTransfer, stage_vector
from sqakd.kd.contrastive_term import ContrastiveTerm

LOSS, GRADIENT, BANK = 1e-5, 1e-4, 1e-6
CRD = golden.load("04_kd_crd")
STEPS = sum(name.endswith("_loss") for name in CRD)
CKTF = {name: golden.load(f"04_kd_cktf_{name}") for name in ("resnet", "vgg")}


def tensor(array: Any) -> Tensor:
    return torch.from_numpy(np.array(array))


def draws(sample_index: Any, images: int) -> dict[str, Tensor]:
    """Return the reference's negatives as `draws`; each image has its own list among all training images."""
    negatives = tensor(sample_index).long()[:, 1:]
    chosen = torch.zeros(len(negatives), images, dtype=torch.bool).scatter_(1, negatives, True)
    assert torch.equal(chosen.sum(dim=1), torch.full((len(negatives),), negatives.shape[1]))
    return {"candidates": torch.arange(images), "chosen": chosen, "repeats": torch.ones(len(negatives))}


def from_reference(data: dict[str, Any], prefix: str, *, student: slice = slice(None)) -> ContrastiveTerm:
    """Return a term in the reference's initial state; `student` selects inputs of the student's embedding."""
    weights = {
        f"{who}_{kind}": tensor(data[f"{prefix}embed_{who}_{kind}"]) for who in "st" for kind in ("weight", "bias")
    }
    weights["s_weight"] = weights["s_weight"][:, student]
    made = ContrastiveTerm(
        student=weights["s_weight"].shape[1],
        teacher=weights["t_weight"].shape[1],
        width=len(weights["s_bias"]),
        images=int(data["n_data"]),
        negatives=int(data["n_neg"]),
        temperature=float(data["temperature"]),
        momentum=float(data["momentum"]),
    )
    state = {
        f"{name}.{kind}": weights[f"{name[0]}_{kind}"] for name in ("student", "teacher") for kind in ("weight", "bias")
    }
    banks = {f"{name}_memory.bank": tensor(data[f"{prefix}bank_{name[0]}_0"]) for name in ("student", "teacher")}
    made.load_state_dict({**state, **banks, "log_z": made.log_z})
    return made


def check_memory(made: ContrastiveTerm, data: dict[str, Any], prefix: str, step: int) -> None:
    for side, (who, memory) in enumerate((("s", made.student_memory), ("t", made.teacher_memory))):
        assert golden.error(memory.bank, data[f"{prefix}bank_{who}_{step}"]) <= BANK
        assert golden.error(made.log_z[side].exp(), data[f"{prefix}Z_{who}"]) <= LOSS


def test_each_step_of_crd_equals_the_reference() -> None:
    made = from_reference(CRD, "")
    assert STEPS > 1, "a second step uses the memory of the first"
    for step in range(STEPS):
        student, teacher = tensor(CRD[f"step{step}_fs"]).requires_grad_(), tensor(CRD[f"step{step}_ft"])
        index = tensor(CRD[f"step{step}_index"]).long()
        made.check_z()
        assert made.z_known == (step > 0)
        loss = made(student, teacher, index, draws(CRD[f"step{step}_sample_index"], int(CRD["n_data"])))
        assert golden.error(loss, CRD[f"step{step}_loss"]) <= LOSS
        own = dict(made.named_parameters())
        names = [f"step{step}_d_embed_{name[0]}_{name.partition('.')[2]}" for name in own]
        gradients = torch.autograd.grad(loss, [student, *own.values()])
        for got, name in zip(gradients, [f"step{step}_dfs", *names], strict=True):
            assert golden.error(got, CRD[name]) <= GRADIENT
        made.update_memory()
        check_memory(made, CRD, "", step + 1)


@pytest.mark.parametrize("name", CKTF)
def test_cktf_as_released_equals_the_reference(name: str) -> None:
    data, window = CKTF[name], 8 if name == "resnet" else None
    groups = range(int(data["n_groups"]))

    def last(who: str, group: int) -> Tensor:
        blocks = [key for key in data if key.startswith(f"block_{who}_g{group}_")]
        return tensor(data[max(blocks)])

    # The reference stores the first map pooled and flattened, so it is used as a map with one position.
    student = [tensor(data["f_first_s"])[:, :, None, None], *(last("s", g) for g in groups), tensor(data["f_last_s"])]
    teacher = [tensor(data["f_first_t"])[:, :, None, None], *(last("t", g) for g in groups), tensor(data["f_last_t"])]
    loss = ContrastiveTransfer(
        width=len(data["crd0_embed_s_bias"]),
        negatives=int(data["n_neg"]),
        temperature=float(data["temperature"]),
        momentum=float(data["momentum"]),
        intermediate=float(data["theta"]),
        window=window,
        normalise="batch",
    )
    places = [slice(None), *(padding(last("s", g), last("t", g), tensor(data[f"pair_s_g{g}"])) for g in groups)]
    places.append(slice(None))
    loss.contrasts = nn.ModuleList(from_reference(data, f"crd{i}_", student=place) for i, place in enumerate(places))
    for g in groups:
        assert golden.error(stage_vector(last("t", g), window, "batch"), data[f"pair_t_g{g}"]) <= LOSS
        assert golden.error(stage_vector(last("s", g), window, "batch"), data[f"pair_s_g{g}"][:, places[g + 1]]) <= LOSS
    for feature in student:
        feature.requires_grad_()
    nothing = torch.empty(0)
    index = tensor(data["index"]).long()
    drawn = draws(data["sample_index"], int(data["n_data"]))
    terms = loss(FeatureBatch(student, teacher, nothing, nothing, index, drawn))
    assert golden.error(terms[-1], data["loss_crd_last"]) <= LOSS
    assert golden.error(torch.stack(terms[:-1]).sum() / loss.intermediate, data["loss_crdst"]) <= LOSS
    torch.stack(terms).sum().backward()  # type: ignore[no-untyped-call]
    names = ["d_f_first_s", *(f"d_block_s_g{g}_last" for g in groups), "d_f_last_s"]
    for feature, key in zip(student, names, strict=True):
        assert feature.grad is not None
        assert golden.error(feature.grad.reshape(data[key].shape), data[key]) <= GRADIENT
    loss.after_backward()
    for i, (term, place) in enumerate(zip(loss.contrasts, places, strict=True)):
        assert isinstance(term, ContrastiveTerm)
        for kind, reference in (
            ("weight", data[f"d_crd{i}_embed_s_weight"][:, place]),
            ("bias", data[f"d_crd{i}_embed_s_bias"]),
        ):
            assert golden.error(term.student.get_parameter(kind).grad, reference) <= GRADIENT  # type: ignore[arg-type]
        check_memory(term, data, f"crd{i}_", 1)


def padding(student: Tensor, teacher: Tensor, pair: Tensor) -> slice:
    """Return where the student's channels are among the channels that the reference pads with zeros."""
    missing = teacher.shape[1] - student.shape[1]
    if not missing:
        return slice(None)
    place = slice(missing // 2, missing // 2 + student.shape[1])
    padded = pair.clone()
    padded[:, place] = 0
    assert not padded.any()
    return place

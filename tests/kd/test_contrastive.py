"""Properties of the contrastive losses CRD and CKTF."""

from __future__ import annotations

import functools

import pytest
import small
import torch
from small_crd import crd, feature_batch, random, setup_info, step
from torch import Tensor

from sqakd.advice import explain
from sqakd.errors import SqakdError
from sqakd.kd.cktf import ContrastiveTransfer, Normalise, stage_vector
from sqakd.kd.contrastive import ContrastiveDistillation


@pytest.mark.parametrize("normalise", ["image", "batch"])
def test_a_stage_vector_depends_on_the_other_images_only_with_the_release_s_normalisation(normalise: Normalise) -> None:
    feature = random(6, 4, 16, 16)
    together, alone = (stage_vector(part, 8, normalise)[:2] for part in (feature, feature[:2]))
    assert torch.allclose(together, alone, atol=1e-6) == (normalise == "image")
    if normalise == "image":
        assert torch.allclose(together.norm(dim=1), torch.ones(2))
        assert torch.allclose(stage_vector(3 * feature, 8, normalise)[:2], together, atol=1e-6)


def test_images_without_labels_are_refused() -> None:
    loss = ContrastiveDistillation(width=8, negatives=6, temperature=0.1, momentum=0.5)
    loss.names = ["pooled"]
    with pytest.raises(SqakdError, match="the data set has no labels") as error:
        loss.setup(setup_info(None))
    assert "kd=sqakd" in explain(error.value)
    for kd in ("crd", "cktf"):
        with pytest.raises(SqakdError, match="reads labels and the data set has none") as refused:
            small.make_task(small.network(), small.network(), f"kd={kd}", "kd.ce=0", labelled=False)
        assert "kd=sqakd" in explain(refused.value)


@pytest.mark.parametrize("argument", ["width=0", "negatives=0", "temperature=0", "momentum=1"])
def test_arguments_out_of_range_are_refused(argument: str) -> None:
    name, value = argument.split("=")
    with pytest.raises(SqakdError, match=f"^{argument}: expected"):
        crd(**{name: int(value)})


def test_an_intermediate_weight_of_zero_is_refused() -> None:
    arguments = {"width": 8, "negatives": 6, "temperature": 0.1, "momentum": 0.5}
    with pytest.raises(SqakdError, match=r"^intermediate=0\.0: expected a number above 0") as error:
        ContrastiveTransfer(**arguments, intermediate=0.0, window=None, normalise="image")  # type: ignore[arg-type]
    assert "kd=crd" in explain(error.value)


def test_a_resumed_loss_continues_with_the_same_bits() -> None:
    batches = [torch.arange(60)[start::7] for start in range(4)]
    whole, first = crd(), crd()
    expected = [step(whole, index, number) for number, index in enumerate(batches)]
    for number in (0, 1):
        step(first, batches[number], number)
    resumed = crd()
    resumed.load_state_dict(first.state_dict())
    got = [step(resumed, batches[number], number) for number in (2, 3)]
    assert torch.equal(torch.stack(got), torch.stack(expected[2:]))
    assert all(
        torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    )


def test_the_state_does_not_change_without_a_forward_pass() -> None:
    loss = crd()
    before = {name: value.clone() for name, value in loss.state_dict().items()}
    loss.after_backward()
    assert all(torch.equal(value, before[name]) for name, value in loss.state_dict().items())


@functools.cache
def compiled_and_eager() -> tuple[list[Tensor], list[Tensor]]:
    """Return the losses of three steps and the final state, of a compiled loss and of the same loss in eager mode."""
    torch._dynamo.reset()
    eager, loss = crd(), crd()
    graph = torch.compile(loss, fullgraph=True, backend="aot_eager")
    values: tuple[list[Tensor], list[Tensor]] = ([], [])
    for number, index in enumerate((torch.arange(6), torch.arange(4, 10), torch.arange(8, 14))):
        for made, call, found in ((loss, graph, values[0]), (eager, eager, values[1])):
            drawn = made.draw(index, torch.Generator().manual_seed(number))
            student, teacher = random(6, 5, seed=number), random(6, 7, seed=number + 9)
            found.append(call(feature_batch(student, teacher, index, drawn))[0].detach())
            made.after_backward()
    values[0].extend(loss.state_dict().values())
    values[1].extend(eager.state_dict().values())
    return values


def test_a_compiled_loss_updates_its_memory_banks() -> None:
    assert all(torch.allclose(a, b, rtol=1e-5) for a, b in zip(*compiled_and_eager(), strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_features_are_compared_in_single_precision(dtype: torch.dtype) -> None:
    index = torch.arange(6)
    student, teacher = random(6, 5).to(dtype), random(6, 7).to(dtype)
    losses = []
    for pair in ((student, teacher), (student.float(), teacher.float())):
        loss = crd()
        drawn = loss.draw(index, torch.Generator().manual_seed(0))
        losses.append(loss(feature_batch(*pair, index, drawn))[0])
    assert losses[0].dtype == torch.float32
    assert torch.equal(*losses)

"""The scores outside of a training."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import small
import torch

from sqakd.errors import SqakdError
from sqakd.training.confidence import confidence
from sqakd.training.evaluate import evaluate, top1


@pytest.mark.parametrize("kind", [small.RandomImages, small.UnlabelledImages])
def test_scores_are_those_of_a_validation_and_nothing_changes(kind: type[small.RandomImages], tmp_path: Path) -> None:
    labelled = kind is small.RandomImages
    task = small.make_task(small.quantized(), small.network(seed=7), labelled=labelled)
    task.student.train()
    trainer = small.make_small_trainer(task, tmp_path)
    before, random = copy.deepcopy(task.state_dict()), torch.get_rng_state()
    found = evaluate(task, small.images(kind), trainer)
    assert all(torch.equal(value, before[name]) for name, value in task.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())
    assert task.student.training
    (validated,) = trainer.validate(task, datamodule=small.images(kind), verbose=False)
    assert found == {name.removeprefix("val/"): pytest.approx(value) for name, value in validated.items()}
    assert ("top1" in found) == labelled


@pytest.mark.parametrize("judge", [top1, confidence])
def test_a_network_without_finite_logits_is_refused(judge: Callable[..., object]) -> None:
    """A negative variance is finite, and its square root is not; the class with NaN would count as predicted."""
    network = small.network()
    network.get_submodule("layer2.0.bn1").running_var[0] = -1.0  # type: ignore[operator]
    with pytest.raises(SqakdError, match="its logits for the validation images are NaN or infinite"):
        judge(network, small.images(), torch.device("cpu"))

"""The scores outside of a training."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import small
import torch

from sqakd.training.evaluate import evaluate


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

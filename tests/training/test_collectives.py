"""Several processes: what they send to each other, and that they end in the weights of one process.

A group of two processes and one of four train each case. A batch has eight images, whatever the number of processes.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import ranks
import small
import torch
from step_cases import Tiny, make_case, tiny
from torch import Tensor, distributed, nn

from sqakd.training.callbacks.bits_schedule import BitsSchedule
from sqakd.training.callbacks.divergence import Divergence
from sqakd.training.callbacks.ema import WeightAverage
from sqakd.training.callbacks.history import History
from sqakd.training.callbacks.resume import Resume
from sqakd.training.task import Task
from sqakd.training.trainer import make_trainer

EPOCHS, STEPS = 2, 6  # of three batches each
# Distillation loss and further overrides of each case.
CASES = {"sqakd": ("sqakd",), "crd": ("crd", "kd.feature_loss.negatives=6"), "progressive": ("sqakd",)}
PARTS = ("trained", "average", "objective")
GATHER = "kd/memory.py gather_ranks"
CHECK = "training/callbacks/divergence.py check"


def without_batch_norm(seed: int) -> Tiny:
    """Return a network whose logits of an image do not depend on the other images of its process."""
    network = tiny(seed)
    network.one[1], network.two[1] = nn.Identity(), nn.Identity()
    return network


class Trained(pl.Callback):
    """Keeps the trained weights, which the average then replaces."""

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Task)
        self.tensors = {name: value.clone() for name, value in pl_module.student.state_dict().items()}


def train(case: str, folder: Path, options: dict[str, Any]) -> dict[str, dict[str, Tensor]]:
    """Train with the callbacks of a run; return trained weights, moving average and objective."""
    folder.mkdir(parents=True)
    kd, *words = CASES[case]
    task = make_case("ewgs", kd, *words, f"recipe.epochs={EPOCHS}", "recipe.batch_size=8", network=without_batch_norm)
    trained = Trained()
    callbacks: list[pl.Callback] = [
        trained,
        WeightAverage(epochs=1),
        Divergence(every_n_steps=2),
        History(folder / "metrics.csv"),
    ]
    if case == "progressive":
        callbacks.append(BitsSchedule(stages=[{"share": 0.5, "w_bits": 8, "a_bits": 8}]))
    trainer = make_trainer(
        task.recipe, options, callbacks=[*callbacks, Resume(folder / "last.ckpt")], loggers=[], folder=folder
    )
    trainer.fit(task, datamodule=small.images())
    found = (trained.tensors, dict(task.student.state_dict()), dict(task.objective.state_dict()))
    return dict(zip(PARTS, found, strict=True))


def train_all(folder: Path, recorder: ranks.Collectives) -> dict[str, Any]:
    """Return the tensors of each case, and the collective operations of its training."""
    found: dict[str, Any] = {}
    for case in CASES:
        tensors = train(case, folder / case, ranks.trainer_config(distributed.get_world_size()))
        found[case] = (tensors, [tuple(sent) for sent in recorder.take()])
    return found


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Return what each of two ranks ends with."""
    return ranks.on_ranks(2, tmp_path_factory.mktemp("ranks2-"), train_all)


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return ranks.on_ranks(4, tmp_path_factory.mktemp("ranks4-"), train_all)


def sent_by(rank: dict[str, Any], case: str) -> list[ranks.Sent]:
    return [ranks.Sent(*sent) for sent in rank[case][1]]


def check_equal(group: list[dict[str, Any]], case: str) -> None:
    first, *others = (rank[case][0] for rank in group)
    for other in others:
        for part in PARTS:
            assert first[part].keys() == other[part].keys()
            assert all(torch.equal(first[part][name], other[part][name]) for name in first[part])


@pytest.mark.parametrize("case", CASES)
def test_two_processes_end_in_equal_tensors(two: list[dict[str, Any]], case: str) -> None:
    check_equal(two, case)


@pytest.mark.parametrize("case", ["sqakd", "progressive"])
def test_two_processes_end_in_the_weights_and_the_average_of_one(
    two: list[dict[str, Any]], case: str, tmp_path: Path
) -> None:
    """The tolerance is 2e-4 of each tensor's largest value: sums have another order, and rounding amplifies that.

    CRD is not here, because each rank draws negatives of its own.
    """
    one = train(case, tmp_path / case, {"accelerator": "cpu", "devices": 1, "enable_checkpointing": True})
    got = two[0][case][0]
    assert not torch.equal(one["average"]["one.0.weight"], one["trained"]["one.0.weight"])
    for part in PARTS:
        for name, tensor in one[part].items():
            if tensor.is_floating_point():
                limit = 2e-4 * float(tensor.abs().max())
                torch.testing.assert_close(got[part][name], tensor, rtol=0, atol=limit)


def test_a_step_sends_the_gradient_once_and_what_crd_remembers(two: list[dict[str, Any]]) -> None:
    for case in CASES:
        sent = [one for one in sent_by(two[0], case) if one.phase == "step"]
        counts = Counter(one.name for one in sent)
        gradients = {one.size for one in sent if one.name == "allreduce_" and one.place != CHECK}
        # The number of images, their positions, and the embeddings of both networks; at first also two constants.
        assert counts.pop("allgather_", 0) == (4 * STEPS + 2 if case == "crd" else 0)
        # DDP sends the buffers of the student before each step, those of floats and those of flags apart. Lightning
        # would send a third number before each step, whether the system asks the run to stop.
        # Whether the loss is finite, which the CPU asks in each step; Lightning lets all processes meet before that.
        assert counts.pop("barrier") == sum(one.place == CHECK for one in sent) / 2 == STEPS
        assert counts == {"allreduce_": 2 * STEPS, "broadcast_": 2 * STEPS}
        assert len(gradients) == 1
        assert {one.place for one in sent if one.name == "allgather_"} <= {GATHER}


def test_ranges_are_sent_once_where_bits_change(two: list[dict[str, Any]]) -> None:
    def ranges(case: str) -> int:
        return sum("bits_schedule" in one.place for one in sent_by(two[0], case))

    student = two[0]["progressive"][0]["average"]
    assert (ranges("sqakd"), ranges("progressive")) == (0, EPOCHS * len(student))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_four_processes_send_as_much_as_two(two: list[dict[str, Any]], four: list[dict[str, Any]], case: str) -> None:
    """The embeddings that CRD gathers are those of the whole batch, so each of four sends half as many."""
    check_equal(four, case)
    few, many = sent_by(two[0], case), sent_by(four[0], case)
    assert Counter((one.name, one.place, one.phase) for one in few) == Counter(
        (one.name, one.place, one.phase) for one in many
    )
    shares = [[one for one in group if one.place == GATHER and one.size > 8] for group in (few, many)]
    assert sum(one.size for one in shares[0]) == 2 * sum(one.size for one in shares[1])
    rest = [sum(one.size for one in group if one.place != GATHER) for group in (few, many)]
    assert rest[0] == rest[1]

"""Trainings by several processes on the CPU, with a record of what they send to each other."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from made_up_device import marked, place
from pytorch_lightning.loops import evaluation_loop, training_epoch_loop
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, distributed
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from warm_process import SERVER

TIMEOUT = 300  # seconds


class Sent(NamedTuple):
    """One collective operation, as this rank sees it.

    Attributes:
        name: of torch's operation, such as "allreduce_".
        size: bytes that this rank contributes.
        place: function of `sqakd`, see `made_up_device.place`.
        phase: "step", "evaluation" or empty.
    """

    name: str
    size: int
    place: str
    phase: str


class Collectives(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records each collective operation, also those that DDP starts during the backward pass."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.sent: list[Sent] = []
        self.phase = ""

    def take(self) -> list[Sent]:
        """Return the operations since the last call."""
        found, self.sent = self.sent, []
        return found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "c10d":
            # The last list of a gather has this rank's tensors; the others receive.
            given = args[1] if "gather" in func.name() else args[0]
            size = sum(x.nbytes for x in tree_leaves(given) if isinstance(x, Tensor))
            self.sent.append(Sent(func.name().removeprefix("c10d::"), size, place(), self.phase))
        return func(*args, **(kwargs or {}))


def trainer_config(world_size: int) -> dict[str, Any]:
    """Return options of a trainer whose processes exist already."""
    strategy = DDPStrategy(cluster_environment=TorchElasticEnvironment(), process_group_backend="gloo")
    return {"accelerator": "cpu", "devices": world_size, "strategy": strategy, "enable_checkpointing": True}


def _run(rank: int, world_size: int, folder: Path, work: Callable[[Path, Collectives], Any]) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size), "GROUP_RANK": "0"}
    os.environ |= {"LOCAL_WORLD_SIZE": str(world_size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    meeting = f"file://{folder}/meeting"
    distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world_size)
    recorder = Collectives()
    with pytest.MonkeyPatch.context() as patch, recorder:
        for loop, name, phase in (
            (training_epoch_loop._TrainingEpochLoop, "advance", "step"),
            (evaluation_loop._EvaluationLoop, "_evaluation_step", "evaluation"),
        ):
            patch.setattr(loop, name, marked(recorder, phase, getattr(loop, name)))
        result = work(folder / f"rank{rank}", recorder)
    torch.save(result, folder / f"{rank}.pt")
    distributed.destroy_process_group()


def on_ranks(world_size: int, folder: Path, work: Callable[[Path, Collectives], Any]) -> list[Any]:
    """Run `work(folder of the rank, recorder)` in each process of a group, and return the results by rank.

    Args:
        world_size: number of processes.
        folder: empty folder.
        work: function of a module; its result consists of tensors and plain data.
    """
    ranks = range(world_size)
    processes = [SERVER.Process(target=_run, args=(rank, world_size, folder, work), daemon=True) for rank in ranks]
    for process in processes:
        process.start()
    for process in processes:
        process.join(TIMEOUT)
    assert [process.exitcode for process in processes] == [0] * world_size
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in ranks]

"""Properties of the memory bank, in one process and in distributed training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import small
import torch
from small_crd import crd, random, step
from torch import Tensor, distributed
from torch.multiprocessing.spawn import spawn

from sqakd.kd.memory import MemoryBank, gather_ranks


def test_an_update_changes_the_batch_s_rows_only_and_a_repeated_image_takes_its_last_embedding() -> None:
    memory = MemoryBank(images=6, width=4, momentum=0.5)
    before, embedding = memory.bank.clone(), random(3, 4)
    memory.update(torch.tensor([4, 1, 4]), embedding)
    for row, new in ((1, embedding[1]), (4, embedding[2])):
        moved = (before[row] + new) / 2
        assert torch.allclose(memory.bank[row], moved / moved.norm())
    assert torch.equal(memory.bank[[0, 2, 3, 5]], before[[0, 2, 3, 5]])


def run_rank(rank: int, folder: Path, work: Any) -> None:
    """Run `work(rank)` in a process group of two ranks and save its result."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    torch.save(work(rank), folder / f"{rank}.pt")
    distributed.destroy_process_group()


def on_two_ranks(folder: Path, work: Any) -> list[Any]:
    spawn(run_rank, (folder, work), nprocs=2)  # type: ignore[no-untyped-call]
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


GLOBAL = [torch.arange(9), torch.arange(5, 14)]  # two batches of 9 images: 4 for rank 0 and 5 for rank 1


def two_steps(rank: int) -> list[dict[str, Tensor]]:
    """Take two steps on one of two ranks; return the state after each."""
    loss, states = crd(), []
    for number, index in enumerate(GLOBAL):
        step(loss, index[:4] if rank == 0 else index[4:], number)
        states.append({name: value.clone() for name, value in loss.state_dict().items()})
    # Gathered tensors are in the order of the ranks.
    (joined,) = gather_ranks(torch.full((2 - rank,), rank))
    assert joined.tolist() == [0, 0, 1]
    return states


@pytest.mark.slow
def test_two_ranks_have_the_memory_banks_of_one_process(tmp_path: Path) -> None:
    one, other = on_two_ranks(tmp_path, two_steps)
    alone = crd()
    for number, index in enumerate(GLOBAL):
        step(alone, index, number)
        assert all(torch.equal(one[number][name], value) for name, value in other[number].items())
        for name, value in alone.state_dict().items():
            if name.endswith("bank"):
                assert torch.allclose(one[number][name], value, atol=1e-6), name
    # Each rank estimates Z from its part of the first batch; the stored Z is the mean of both.
    parts = [crd() for _ in range(2)]
    for part, index in zip(parts, (GLOBAL[0][:4], GLOBAL[0][4:]), strict=True):
        step(part, index, 0)
    zs = torch.stack([part.contrasts[0].get_buffer("log_z").exp() for part in parts])
    assert torch.allclose(one[0]["contrasts.0.log_z"].exp(), zs.mean(dim=0))


def test_ddp_does_not_broadcast_the_memory_banks() -> None:
    task = small.make_task(small.quantized(), small.network(), "kd=crd")
    task.build_feature_loss(small.batch(2), training_images=small.TRAIN, labels=small.images().train_labels)
    ignored = set(task._ddp_params_and_buffers_to_ignore)
    assert {name for name, _ in task.named_buffers() if "feature_loss" in name} == ignored
    assert sum(name.endswith("bank") for name in ignored) == 2
    assert not ignored & {name for name, _ in task.named_parameters()}

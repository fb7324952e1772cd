"""Batch norm over all devices: hooks move to the new layers, and the curvature needs no other process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import small
import step_cases
import torch
from torch import distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sqakd.dataset.batch import Batch
from sqakd.quantization.curvature import estimate
from sqakd.quantization.layers import quantizers
from sqakd.quantization.probe import own_statistics
from sqakd.training.callbacks.divergence import first_non_finite
from sqakd.training.callbacks.hessian_scaling import slices_of
from sqakd.training.sync_batch_norm import HOOKS, SyncBatchNorm
from sqakd.training.task import Task
from sqakd.training.trainer import construct


@pytest.fixture
def connected(tmp_path: Path) -> Iterator[None]:
    """Connect this process with itself; torch's synchronized batch norm then refuses to train on the CPU."""
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def count(network: nn.Module, kind: type[nn.Module]) -> int:
    return sum(isinstance(module, kind) for module in network.modules())


def losses(task: Task) -> dict[str, Any]:
    images, index = small.batch(step_cases.BATCH), step_cases.index_of(0)
    label = step_cases.labels_of(step_cases.BATCH)
    torch.manual_seed(0)
    return task.eval().eager_losses(images, label, index, {})


@pytest.mark.parametrize("kd", ["reconstruction", "rkd", "cc", "at"])
def test_taps_of_a_feature_loss_outlive_the_conversion_and_its_end(kd: str) -> None:
    """The pooled vector of a ResNet is the input of its last layer, and inner taps are inputs of batch norms."""
    task = small.make_task(small.quantized("quantizer=ewgs"), small.network(seed=1), f"kd={kd}", "quantizer=ewgs")
    task.build_feature_loss(small.batch(2), training_images=small.TRAIN, labels=step_cases.labels_of(small.TRAIN))
    expected = losses(task)
    plugin, layers = SyncBatchNorm(), count(task.student, _BatchNorm)
    for convert, synchronized in ((plugin.apply, layers), (plugin.revert, 0), (plugin.apply, layers)):
        convert(task)
        assert count(task.student, nn.SyncBatchNorm) == synchronized
        found = losses(task)
        assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_handle_removes_a_hook_that_has_moved() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    calls: list[str] = []
    handles = [
        network[1].register_forward_pre_hook(lambda *_: calls.append("before")),
        network[1].register_forward_hook(lambda *_: calls.append("after")),
        network[1].register_forward_hook(lambda *_, **__: calls.append("always"), with_kwargs=True, always_call=True),
    ]
    SyncBatchNorm().apply(network)
    assert isinstance(network[1], nn.SyncBatchNorm)
    network(small.batch(2))
    assert calls == ["before", "after", "always"]
    for handle in handles:
        handle.remove()
    network(small.batch(2))
    assert len(calls) == 3


def test_torch_keeps_the_hooks_of_a_forward_pass_where_they_are_moved_from() -> None:
    kinds = {name for name in vars(nn.Module()) if name.startswith("_forward") and "hooks" in name}
    assert kinds == set(HOOKS)


@pytest.mark.parametrize("synchronized", [True, False])
def test_a_trainer_that_synchronizes_batch_norm_moves_hooks(synchronized: bool) -> None:
    trainer = construct({"accelerator": "cpu", "devices": 2, "strategy": "ddp", "sync_batchnorm": synchronized})
    assert isinstance(vars(trainer.strategy)["_layer_sync"], SyncBatchNorm) == synchronized


@pytest.mark.usefixtures("connected")
def test_the_curvature_of_a_synchronized_network_is_that_of_the_plain_one() -> None:
    """torch's synchronized batch norm has no second derivative."""
    batch = Batch(step_cases.images_of(0), step_cases.labels_of(step_cases.BATCH), step_cases.index_of(0), {})
    found = []
    for synchronized in (False, True):
        task = step_cases.make_case("ewgs", "sqakd").train()
        if synchronized:
            SyncBatchNorm().apply(task)
            with pytest.raises(ValueError, match="SyncBatchNorm expected input tensor to be on GPU"):
                task.student(batch.image)
        targets = list(quantizers(task.student))
        generator = torch.Generator().manual_seed(0)
        slices = slices_of(task, batch, step_cases.BATCH)
        found.append(estimate(slices, task.student, targets, max_probes=2, tolerance=0, generator=generator))
    assert torch.equal(found[0].trace, found[1].trace)
    assert found[0].trace.all()


@pytest.mark.usefixtures("connected")
def test_the_search_for_a_non_finite_layer_needs_no_other_process() -> None:
    network = SyncBatchNorm().apply(small.network()).train()
    with torch.no_grad():
        network.get_parameter("layer1.0.conv2.weight").view(-1)[0] = float("nan")
    assert "layer1.0.conv2 has non-finite weight" in str(first_non_finite(network, small.batch(4)))
    with pytest.raises(ValueError, match="SyncBatchNorm expected"):
        network(small.batch(4))  # it is synchronized again
    with own_statistics(network):
        network(small.batch(4))

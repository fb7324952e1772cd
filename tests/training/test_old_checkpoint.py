"""Checkpoints written before the code was rearranged: they still load, as plain data, and restore the same student."""

from __future__ import annotations

from typing import Any

import command
import small
import torch

from sqakd.models.resnet import CifarResNet
from sqakd.quantization.convert import quantize
from sqakd.quantization.layers import quantizers
from sqakd.training.callbacks.history import History

FILE = command.ROOT / "tests/old_runs/version1/digits16-resnet20-lsq-w2a2-sqakd/seed0/checkpoints/last.ckpt"
PREFIX = "student."


def checkpoint() -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(FILE, weights_only=True)
    return loaded


def student() -> CifarResNet:
    model = CifarResNet(blocks=1, num_classes=10)
    quantize(model, small.scheme("quantizer=lsq", "bits=2"))
    return model


def test_old_checkpoint_restores_a_quantized_network() -> None:
    state = checkpoint()["state_dict"]
    weights = {name.removeprefix(PREFIX): value for name, value in state.items() if name.startswith(PREFIX)}
    model = student()
    model.load_state_dict(weights, strict=True)
    assert all(quantizer.calibrated for quantizer in quantizers(model))
    assert command.same_bits(model.state_dict(), weights)


def test_old_checkpoint_fits_a_task_and_its_optimizer() -> None:
    loaded = checkpoint()
    task = small.make_task(student(), small.network(), "quantizer=lsq", "bits=2")
    task.load_state_dict(loaded["state_dict"], strict=True)
    optimizer = task.configure_optimizers()
    optimizer.load_state_dict(loaded["optimizer_states"][0])
    moments = [optimizer.state[parameter]["exp_avg"].shape for parameter in task.student.parameters()]
    assert moments == [parameter.shape for parameter in task.student.parameters()]


def test_old_checkpoint_has_the_rows_of_the_history() -> None:
    history = History(FILE.with_name("unused.csv"))
    history.load_state_dict(checkpoint()["callbacks"][history.state_key])
    assert {"epoch", "train/loss", "val/top1", "val/agreement", "images_per_second"} <= history.rows[0].keys()

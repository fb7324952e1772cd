"""Bits schedule: the bits of each epoch, the calibration at each change, and the marking of preliminary epochs."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import command
import pytest
import pytorch_lightning as pl
import small
import torch
from hydra.utils import instantiate
from torch import Tensor

from sqakd.quantization.calibrate import calibrate, recalibrate
from sqakd.quantization.convert import quantize
from sqakd.quantization.layers import quant_layers, quantizers
from sqakd.training.callbacks.bits_schedule import BitsSchedule, _broadcast
from sqakd.training.callbacks.history import History
from sqakd.training.callbacks.resume import Resume
from sqakd.training.task import Task

PROGRESSIVE = [{"share": 0.25, "w_bits": 8, "a_bits": 8}, {"share": 0.25, "w_bits": 2, "a_bits": 3}]
EPOCHS = 4


class Watch(pl.Callback):
    """Records bits and tensors at the first step of each epoch, and tensors at its end."""

    def __init__(self) -> None:
        self.bits: list[list[tuple[int, int]]] = []
        self.states: list[dict[str, Tensor]] = []
        self.before: list[dict[str, Tensor]] = []
        self.trained: list[set[int]] = []

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0:
            layers = [layer for _, layer in quant_layers(pl_module.student)]
            self.bits.append([(layer.weight_quantizer.bits, layer.input_quantizer.bits) for layer in layers])
            self.states.append({name: value.clone() for name, value in pl_module.student.state_dict().items()})
            assert {id(p) for g in pl_module.optimizers().param_groups for p in g["params"]} == {
                id(p) for p in pl_module.student.parameters()
            }

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.before.append({name: value.clone() for name, value in pl_module.student.state_dict().items()})


def distilling(*overrides: str, epochs: int = EPOCHS) -> Task:
    overrides = (f"recipe.epochs={epochs}", "recipe.batch_size=8", "recipe.lr=0.01", *overrides)
    return small.make_task(small.quantized(*overrides), small.network(seed=7), *overrides)


def fit(folder: Path, stages: list[dict[str, float]], *overrides: str) -> tuple[Task, Watch, History]:
    task, watch, history = distilling(*overrides), Watch(), History(folder / "metrics.csv")
    small.fit(task, folder, callbacks=[BitsSchedule(stages=stages), watch, history])
    return task, watch, history


@pytest.mark.parametrize(
    ("shares", "epochs", "expected"),
    [
        ([0.25, 0.25], 4, [0, 1, 2, 2]),
        ([0.5], 3, [0, 0, 1]),
        ([0.1, 0.2, 0.2], 20, [0] * 2 + [1] * 4 + [2] * 4 + [3] * 10),
        ([0.1, 0.2, 0.2], 1, [3]),
        ([0.5, 0.49], 2, [0, 2]),
    ],
)
def test_each_epoch_has_its_stage(shares: list[float], epochs: int, expected: list[int]) -> None:
    schedule = BitsSchedule(stages=[{"share": share, "w_bits": 8, "a_bits": 8} for share in shares])
    assert [schedule.stage(epoch, epochs) for epoch in range(epochs)] == expected


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["bits=1"], [(8, 8), (2, 3), (1, 1), (1, 1)]),
        (["w_bits=1", "a_bits=4"], [(8, 8), (2, 4), (1, 4), (1, 4)]),
        (["w_bits=4", "a_bits=2"], [(8, 8), (4, 3), (4, 2), (4, 2)]),
    ],
)
def test_quantizers_have_the_larger_of_stage_bits_and_own_bits(
    overrides: list[str], expected: list[tuple[int, int]], tmp_path: Path
) -> None:
    _, watch, history = fit(tmp_path, PROGRESSIVE, *overrides)
    assert watch.bits == [[bits] * 6 for bits in expected]
    assert [row["preliminary"] for row in history.rows] == [1, 1, 0, 0]


def test_outer_layers_of_eight_bits_keep_their_bits(tmp_path: Path) -> None:
    _, watch, _ = fit(tmp_path, [{"share": 0.5, "w_bits": 4, "a_bits": 4}], "bits=1", "quantizer.first_last=8")
    assert [bits[0] for bits in watch.bits] == [(8, 8)] * EPOCHS
    assert [bits[1] for bits in watch.bits] == [(4, 4)] * 2 + [(1, 1)] * 2


@pytest.mark.parametrize("method", ["ewgs", "lsq", "pact", "dorefa"])
def test_changed_bits_get_the_ranges_of_a_network_built_with_them(method: str, tmp_path: Path) -> None:
    """Weights and batch norms come from the stage before, and the ranges from calibration on these weights."""
    _, watch, _ = fit(tmp_path, PROGRESSIVE, "bits=1", f"quantizer={method}")
    data = small.images()
    for epoch, overrides in ((1, ("w_bits=2", "a_bits=3")), (2, ("bits=1",))):
        fresh = small.network()
        quantize(fresh, small.scheme(f"quantizer={method}", *overrides))
        own = {name: value for name, value in watch.before[epoch - 1].items() if name in small.network().state_dict()}
        fresh.load_state_dict(own, strict=False)
        calibrate(fresh, data.calibration_batch(1))
        state = fresh.state_dict()
        assert state.keys() == watch.states[epoch].keys()
        different = [k for k, v in state.items() if not torch.equal(v, watch.states[epoch][k])]
        assert different == [], epoch
    # Within a stage nothing is calibrated again.
    assert command.same_bits(watch.states[3], watch.before[2])


@pytest.mark.parametrize("method", ["ewgs", "lsq"])
def test_quantizers_with_unchanged_bits_keep_their_range(method: str, tmp_path: Path) -> None:
    stages = [{"share": 0.5, "w_bits": 8, "a_bits": 1}]
    _, watch, _ = fit(tmp_path, stages, "bits=1", f"quantizer={method}")
    before, after = watch.before[1], watch.states[2]
    ranges = [name for name in before if "_quantizer." in name and before[name].is_floating_point()]
    kept = [name for name in ranges if "input_quantizer" in name]
    assert kept
    assert all(torch.equal(before[name], after[name]) for name in kept)
    moved = [name for name in ranges if "weight_quantizer" in name and "delta" not in name]
    assert any(not torch.equal(before[name], after[name]) for name in moved)


def test_delta_estimated_for_other_bits_is_reset() -> None:
    network = small.quantized("quantizer=ewgs", "bits=4")
    all_quantizers = quantizers(network)
    for quantizer in all_quantizers:
        quantizer.rounding.delta.fill_(0.3)  # type: ignore[operator]
    changed = all_quantizers[:1]
    changed[0].set_bits(2)
    recalibrate(network, small.batch(8), changed)
    assert [round(float(q.rounding.delta), 3) for q in all_quantizers] == [0.0] + [0.3] * (len(all_quantizers) - 1)  # type: ignore[arg-type]


def test_stages_without_an_epoch_cause_a_warning(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="4 epochs are too few for these stages of the bits schedule: w8 a8"):
        fit(tmp_path, [{"share": 0.05, "w_bits": 8, "a_bits": 8}], "bits=1")


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_schedule_without_any_stage_is_refused(epochs: int) -> None:
    schedule = BitsSchedule(stages=[{"share": 0.2, "w_bits": 8, "a_bits": 8}])
    with pytest.raises(ValueError, match=f"{epochs} epochs are too few .* none of its stages would have an epoch"):
        schedule.check_epochs(epochs)
    schedule.check_epochs(5)


def test_stages_below_the_own_bits_change_nothing(tmp_path: Path) -> None:
    task, _, history = fit(tmp_path, PROGRESSIVE, "bits=8")
    plain = distilling("bits=8")
    small.fit(plain, tmp_path)
    assert command.same_bits(task.student.state_dict(), plain.student.state_dict())
    assert [row["preliminary"] for row in history.rows] == [0] * EPOCHS


def test_ranks_exchange_tensors_of_the_device_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Extra state, such as whether a tensor is signed, is on the CPU, which a group of GPUs does not serve."""
    sent: list[Tensor] = []
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "broadcast", lambda tensor, _: sent.append(tensor))
    student = small.quantized("quantizer=lsq").to("meta")
    assert any(name.endswith("_extra_state") for name in student.state_dict())
    _broadcast(student)
    assert {tensor.device.type for tensor in sent} == {"meta"}
    assert len(sent) == len([name for name in student.state_dict() if not name.endswith("_extra_state")])


def test_finished_run_without_a_record_resumes_with_its_own_bits(tmp_path: Path) -> None:
    last = tmp_path / "last.ckpt"
    outputs = []
    for resume in (None, str(last)):
        task = distilling("bits=1")
        trainer = small.make_small_trainer(task, tmp_path, [BitsSchedule(stages=PROGRESSIVE), Resume(last)])
        trainer.fit(task, datamodule=small.images(), ckpt_path=resume, weights_only=True)
        assert {layer.weight_quantizer.bits for _, layer in quant_layers(task.student)} == {1}
        with torch.no_grad():
            outputs.append(task.student.eval()(small.batch(4)))
    assert torch.equal(*outputs)


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ({"share": 0.5, "w_bits": 8}, "expected share, w_bits and a_bits"),
        ({"share": 0.5, "w_bits": 9, "a_bits": 1}, "bits from 1 to 8"),
        ({"share": 0.5, "w_bits": 2.5, "a_bits": 1}, "bits from 1 to 8"),
        ({"share": 0.0, "w_bits": 8, "a_bits": 1}, "a share above 0"),
        ({"share": 1.0, "w_bits": 8, "a_bits": 1}, "a sum below 1"),
        ({"share": "half", "w_bits": 8, "a_bits": 1}, "a share above 0"),
    ],
)
def test_impossible_stages_are_refused(stage: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BitsSchedule(stages=[stage])


@pytest.mark.parametrize("name", ["progressive", "two_step"])
def test_shipped_schedules_end_in_the_own_bits(name: str) -> None:
    schedule: BitsSchedule = instantiate(small.config(f"plus={name}").get("plus")[name])
    schedule.own = [1, 1]
    bits = [schedule.bits_at(epoch, 20) for epoch in range(20)]
    assert bits[-1] == [1, 1]
    assert bits[0][0] == 8
    assert all(later[0] <= earlier[0] for earlier, later in pairwise(bits))
    assert sum(b == [1, 1] for b in bits) >= 10, "half of the epochs"

"""Callbacks: the files and metrics that they write, and the errors that stop a run, in Lightning's own loop."""

from __future__ import annotations

import copy
import csv
import io
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import pytorch_lightning as pl
import small
import torch
from hydra.utils import instantiate
from PIL import Image
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.strategies import SingleDeviceStrategy
from torch import Tensor, nn

from sqakd.advice import explain
from sqakd.dataset.batch import Batch
from sqakd.quantization.layers import quant_layers, quantizers
from sqakd.training.callbacks.divergence import Divergence, DivergenceError, first_non_finite
from sqakd.training.callbacks.hessian_scaling import HessianScaling
from sqakd.training.callbacks.histograms import Histograms
from sqakd.training.callbacks.history import History, as_csv
from sqakd.training.callbacks.quantizer_statistics import (
    COMMON,
    QuantizerStatistics,
    Rows,
    means,
    named,
    statistics,
    table,
)
from sqakd.training.callbacks.resume import Resume
from sqakd.training.loggers.send import send_picture, send_table
from sqakd.training.task import Task

CONVS = [f"layer{stage}.0.conv{i}" for stage in (1, 2, 3) for i in (1, 2)]


def distilling(*overrides: str, epochs: int = 2) -> Task:
    student = small.quantized("quantizer=ewgs", *overrides)
    return small.make_task(student, small.network(seed=7), f"recipe.epochs={epochs}", "recipe.lr=0.01")


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


# History.


def test_history_has_a_row_for_each_epoch(tmp_path: Path) -> None:
    history = History(tmp_path / "metrics.csv")
    trainer = small.fit(distilling(), tmp_path, callbacks=[history])
    assert [row["epoch"] for row in history.rows] == [0, 1]
    metrics = {k: float(v) for k, v in trainer.callback_metrics.items()}
    assert {k: v for k, v in history.rows[1].items() if k in metrics} == metrics
    assert {"train/loss", "train/kl", "train/lr", "val/top1", "val/agreement", "val/kl"} <= history.rows[0].keys()
    assert all(row["images_per_second"] > 0 for row in history.rows)
    assert history.seconds > 0
    assert history.rows[0]["train/loss"] != history.rows[1]["train/loss"]
    written = read((tmp_path / "metrics.csv").read_text())
    assert [{k: float(v) for k, v in row.items()} for row in written] == [
        pytest.approx(row, rel=1e-6) for row in history.rows
    ]


def test_resumed_history_continues(tmp_path: Path) -> None:
    first = History(tmp_path / "first.csv")
    small.fit(distilling(), tmp_path, callbacks=[first])
    state = copy.deepcopy(first.state_dict())
    second = History(tmp_path / "second.csv")
    second.load_state_dict(state)
    assert second.state_dict() == first.state_dict()
    small.fit(distilling(), tmp_path, callbacks=[second])
    assert second.rows[:2] == first.rows
    assert [row["epoch"] for row in second.rows] == [0, 1, 0, 1]
    assert second.seconds > first.seconds
    assert len(read((tmp_path / "second.csv").read_text())) == 4


def test_a_history_keeps_all_numbers_of_devices(tmp_path: Path) -> None:
    """A run that one device continues after two is a cell of its own, and so is its record."""
    history, module = History(tmp_path / "metrics.csv"), pl.LightningModule()
    for count in (2, 1, 2):
        history.load_state_dict(copy.deepcopy(history.state_dict()))
        history.on_train_start(cast(pl.Trainer, SimpleNamespace(world_size=count)), module)
    assert history.devices == [2, 1]
    earlier = {key: value for key, value in history.state_dict().items() if key != "devices"}
    history.load_state_dict(earlier)
    assert history.devices == []


def test_a_history_keeps_the_scores_before_the_training(tmp_path: Path) -> None:
    history, other = History(tmp_path / "metrics.csv"), History(tmp_path / "other.csv")
    history.initial = {"top1": 0.25}
    other.load_state_dict(copy.deepcopy(history.state_dict()))
    assert other.initial == {"top1": 0.25}
    earlier = {key: value for key, value in history.state_dict().items() if key != "initial"}
    other.load_state_dict(earlier)
    assert other.initial == {}


def test_without_a_training_there_is_a_header_and_no_row(tmp_path: Path) -> None:
    history, task = History(tmp_path / "metrics.csv"), distilling(epochs=0)
    history.initial = {"top1": 0.25, "agreement": 0.5}
    before = copy.deepcopy(task.state_dict())
    small.fit(task, tmp_path, callbacks=[history])
    assert (tmp_path / "metrics.csv").read_text() == "epoch,val/top1,val/agreement\n"
    assert all(torch.equal(value, before[name]) for name, value in task.state_dict().items())


def test_as_csv_has_a_column_for_each_name() -> None:
    text = as_csv([{"epoch": 0, "a": 0.1}, {"epoch": 1, "b": 1 / 3}])
    assert text == "epoch,a,b\n0,0.1,\n1,,0.3333333\n"
    assert as_csv([]) == "\n"


# Statistics of quantizers.


def test_statistics_have_a_row_for_each_quantizer_in_network_order() -> None:
    model = small.quantized("quantizer=ewgs", "w_bits=2", "a_bits=3", "quantizer.rounding.delta=0.25")
    rows = statistics(model, small.batch(4))
    assert [(row["layer"], row["is_weight"], row["bits"]) for row in rows] == [
        (i, is_weight, bits) for i in range(6) for is_weight, bits in ((1, 2), (0, 3))
    ]
    for row, (_, layer) in zip(rows[::2], quant_layers(model), strict=True):
        assert layer.output_scale is not None
        assert row["lower"] == layer.weight_quantizer.get_parameter("lower").item()
        assert row["upper"] == layer.weight_quantizer.get_parameter("upper").item()
        assert row["output_scale"] == layer.output_scale.item()
        assert row["delta"] == 0.25


@pytest.mark.parametrize("method", ["ewgs", "lsq", "dorefa", "pact"])
@torch.no_grad()
def test_shares_equal_the_frequencies_of_the_codes(method: str) -> None:
    model, images = small.quantized(f"quantizer={method}", "bits=3").eval(), small.batch(4)
    inputs: dict[nn.Module, Tensor] = {}
    for _, layer in quant_layers(model):
        layer.register_forward_pre_hook(lambda layer, args: inputs.update({layer: args[0]}))
    rows = statistics(model.train(), images)
    assert model.training
    for i, (_, layer) in enumerate(quant_layers(model)):
        pairs = ((layer.weight_quantizer, layer.weight), (layer.input_quantizer, inputs[layer]))
        for row, (quantizer, tensor) in zip(rows[2 * i : 2 * i + 2], pairs, strict=True):
            shares = {name: value for name, value in row.items() if name.startswith("code_")}
            assert list(shares) == [f"code_{code}" for code in quantizer.grid().tolist()]
            assert sum(shares.values()) == pytest.approx(1)
            codes = quantizer.codes(tensor).integers.numpy()
            assert list(shares.values()) == pytest.approx([np.mean(codes == code) for code in quantizer.grid().numpy()])


def test_clip_range_is_where_clipping_starts() -> None:
    """The range is given by the method's bounds, or by the ends of its grid; of several channels the widest counts."""
    ewgs, lsq = small.quantized("quantizer=ewgs", "bits=2"), small.quantized("quantizer=lsq", "bits=2")
    first, second = statistics(ewgs, small.batch(4))[0], statistics(lsq, small.batch(4))[0]
    assert (first["clip_low"], first["clip_high"]) == (first["lower"], first["upper"])
    assert second["clip_low"] == pytest.approx(-2 * second["step"])
    assert second["clip_high"] == pytest.approx(second["step"])
    several = small.quantized("quantizer=lsq", "bits=2", "quantizer.per_channel=true")
    step = next(quant_layers(several))[1].weight_quantizer.get_parameter("step")
    assert statistics(several, small.batch(4))[0]["clip_high"] == pytest.approx(step.max().item())


def test_entropy_and_use_of_the_codes() -> None:
    for row in statistics(small.quantized("quantizer=pact_released", "bits=2"), small.batch(4)):
        shares = [value for key, value in row.items() if key.startswith("code_") and value > 0]
        assert row["entropy"] == pytest.approx(sum(-share * np.log2(share) for share in shares))
        assert row["used"] == len(shares) / 4
        assert 0 <= row["entropy"] <= 2


def test_means_over_layers_are_named_without_a_layer() -> None:
    common = {"clip_low": -1.0, "clip_high": 1.0, "entropy": 1.0, "used": 1.0, "bits": 2.0}
    rows = [{"layer": i, "is_weight": w, **common, "entropy": 1.0 + i + w} for i in (0.0, 1.0) for w in (1.0, 0.0)]
    logged = named(rows, ["one", "two"]) | means(rows)
    assert logged["quantizer/two/weight/entropy"] == 3
    assert logged["quantizer/one/input/entropy"] == 1
    assert (logged["layers/weight/entropy"], logged["layers/input/entropy"]) == (2.5, 1.5)
    assert not any(name.endswith(("/bits", "/layer", "/is_weight")) for name in logged)


def logged_events(folder: Path) -> Any:
    """Return what TensorBoard reads from a folder."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder), size_guidance={"histograms": 0})
    events.Reload()
    return events


def test_a_table_has_a_row_for_each_tensor_and_no_number_where_a_layer_has_none() -> None:
    rows = [{"layer": 1.0, "is_weight": 1.0, "bits": 2.0, "upper": 0.5}, {"layer": 0.0, "is_weight": 0.0, "bits": 1.0}]
    columns, data = table(rows, ["one", "two"])
    assert columns == ["layer", "tensor", "bits", "upper"]
    assert data == [["two", "weight", 2.0, 0.5], ["one", "input", 1.0, None]]


def test_tensorboard_gets_the_means_and_one_table_per_epoch(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, name=None, version="events")
    task = distilling()
    small.fit(
        task, tmp_path, callbacks=[QuantizerStatistics(every_n_epochs=1, file=None, names=False)], loggers=[logger]
    )
    events = logged_events(tmp_path / "events")
    names = {tag for tag in events.Tags()["scalars"] if tag.startswith(("layers/", "quantizer"))}
    assert names == {f"layers/{tensor}/{key}" for tensor in ("weight", "input") for key in COMMON}
    texts = [event.tensor_proto.string_val[0].decode() for event in events.Tensors("quantizers/text_summary")]
    assert [text.count(f"{CONVS[0]}|weight|") for text in texts] == [1, 1]


def test_a_table_is_text_for_tensorboard_with_empty_cells_where_numbers_are_missing(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, name=None, version="events")
    send_table(logger, "table", ["layer", "upper"], [["one", 0.123456], ["two", None]], 3)
    logger.finalize("success")
    (event,) = logged_events(tmp_path / "events").Tensors("table/text_summary")
    assert event.tensor_proto.string_val[0].decode() == "layer|upper\n---|---\none|0.1235\ntwo|"


def test_a_picture_is_sent_to_loggers_that_show_pictures(tmp_path: Path) -> None:
    Image.new("RGB", (6, 4), (255, 0, 0)).save(tmp_path / "picture.png")
    logger = TensorBoardLogger(tmp_path, name=None, version="events")
    send_picture(logger, "picture", tmp_path / "picture.png", 3)
    logger.finalize("success")
    events = logged_events(tmp_path / "events")
    (shown,) = events.Images("picture")
    assert (shown.step, shown.width, shown.height) == (3, 6, 4)


def test_statistics_are_written_and_logged(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path, name=None, version="")
    file = tmp_path / "quantizers.csv"
    task = distilling()
    callback = QuantizerStatistics(every_n_epochs=1, file=str(file), names=True)
    small.fit(task, tmp_path, callbacks=[callback], loggers=[logger])
    written = read(file.read_text())
    assert [(row["epoch"], row["name"]) for row in written] == [(e, name) for e in "01" for name in CONVS for _ in "wi"]
    rows = [row for row in written if row["epoch"] == "1"]
    logged = [row for row in read((tmp_path / "metrics.csv").read_text()) if row[f"quantizer/{CONVS[0]}/weight/upper"]]
    assert [float(row["epoch"]) for row in logged] == [0, 1]
    for i, name in enumerate(CONVS):
        upper = task.student.get_parameter(f"{name}.weight_quantizer.upper").item()
        assert float(rows[2 * i]["upper"]) == pytest.approx(upper, rel=1e-6)
        for epoch in (0, 1):  # every epoch has its own numbers
            row = written[2 * (epoch * len(CONVS) + i)]
            assert (row["layer"], row["is_weight"]) == (str(i), "1")
            upper = float(logged[epoch][f"quantizer/{name}/weight/upper"])
            assert float(row["upper"]) == pytest.approx(upper, rel=1e-6)


def test_rows_of_statistics_continue_after_a_resume() -> None:
    first, whole = Rows(), Rows()
    rows: list[dict[str, float | str]] = [
        {"epoch": 0, "name": 'a,"b"', "code_0": 1 / 3},
        {"epoch": 1, "name": "c", "code_0": 0.25, "code_-1": 0.75},  # other bits, other codes
        {"epoch": 2, "name": "c", "code_-1": 1.0},
    ]
    for row in rows:
        whole.add(row)
    for row in rows[:2]:
        first.add(row)
    callback = QuantizerStatistics(every_n_epochs=1, file="quantizers.csv", names=False)
    callback.load_state_dict({"rows": first.csv()})
    callback.rows.add(rows[2])
    assert callback.state_dict() == {"rows": whole.csv()}
    assert whole.csv().splitlines() == [
        "epoch,name,code_0,code_-1",
        '0,"a,""b""",0.3333333,',
        "1,c,0.25,0.75",
        "2,c,,1",
    ]
    assert Rows().csv() == ""


@pytest.mark.parametrize(("every", "expected"), [(1, [1, 2, 3]), (2, [2, 3]), (10, [3])])
def test_statistics_are_written_every_few_epochs_and_at_the_end(
    every: int, expected: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    epochs: list[int] = []
    task, callback = distilling(epochs=3), QuantizerStatistics(every_n_epochs=every, file=None, names=False)

    def note(*_: object) -> list[dict[str, float]]:
        epochs.append(task.current_epoch + 1)
        return []

    monkeypatch.setattr("sqakd.training.callbacks.quantizer_statistics.statistics", note)
    small.fit(task, tmp_path, callbacks=[callback])
    assert epochs == expected


def test_float_network_has_no_statistics(tmp_path: Path) -> None:
    task = small.make_task(small.network(), None, "quantizer=none", "recipe.epochs=1")
    small.fit(
        task,
        tmp_path,
        callbacks=[QuantizerStatistics(every_n_epochs=1, file=str(tmp_path / "quantizers.csv"), names=False)],
    )
    assert not (tmp_path / "quantizers.csv").exists()
    assert statistics(small.network(), small.batch(2)) == []


# Histograms.


def test_histograms_are_written_to_tensorboard(tmp_path: Path) -> None:
    task = distilling()
    logger = TensorBoardLogger(tmp_path, name=None, version="events")
    small.fit(task, tmp_path, callbacks=[Histograms(every_n_epochs=1)], loggers=[logger])
    events = logged_events(tmp_path / "events")
    assert set(events.Tags()["histograms"]) == {f"histogram/{c}/{kind}" for c in CONVS for kind in ("weight", "input")}
    for name in CONVS:
        weight = task.student.get_parameter(f"{name}.weight").detach()
        first, last = (event.histogram_value for event in events.Histograms(f"histogram/{name}/weight"))
        assert sum(last.bucket) == last.num == weight.numel()
        assert (last.min, last.max) == pytest.approx((float(weight.min()), float(weight.max())), rel=1e-6)
        assert last.sum == pytest.approx(float(weight.sum()), abs=0.01 * float(weight.abs().sum()))
        assert list(first.bucket) != list(last.bucket), "each epoch has its own histogram"
    first_batch = events.Histograms(f"histogram/{CONVS[0]}/input")[-1].histogram_value
    assert first_batch.num == 8 * 16 * 8 * 8


def test_no_histogram_is_computed_without_a_logger_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise AssertionError("no logger can show a histogram")

    monkeypatch.setattr("sqakd.training.callbacks.histograms.histogram", fail)
    monkeypatch.setattr("sqakd.training.callbacks.histograms.visit", fail)
    loggers = [CSVLogger(tmp_path, name=None, version="")]
    small.fit(distilling(), tmp_path, callbacks=[Histograms(every_n_epochs=1)], loggers=loggers)


@pytest.mark.parametrize(
    "make",
    [lambda n: Histograms(every_n_epochs=n), lambda n: QuantizerStatistics(every_n_epochs=n, file=None, names=False)],
)
def test_snapshots_every_zero_epochs_are_refused(make: Callable[[int], object]) -> None:
    with pytest.raises(ValueError, match="every_n_epochs=0: expected a whole number of at least 1"):
        make(0)


# Divergence.


def break_weight(model: nn.Module, name: str) -> None:
    model.get_parameter(name).data[0, 0, 0, 0] = float("nan")


def test_first_layer_with_non_finite_weights_is_reported() -> None:
    model, images = small.quantized("quantizer=ewgs"), small.batch(4)
    assert first_non_finite(model, images) is None
    assert first_non_finite(model, images / 0) == "the images themselves are not finite"
    break_weight(model, "layer3.0.conv1.weight")
    break_weight(model, "layer2.0.conv2.weight")
    assert first_non_finite(model, images) == "layer layer2.0.conv2 has non-finite weight"


def test_layer_with_finite_weights_and_infinite_output_is_reported() -> None:
    model = small.network()
    model.layer2[0].get_submodule("bn1").register_forward_hook(lambda _, __, output: output / 0)
    assert (first_non_finite(model, small.batch(4)) or "").startswith("layer layer2.0.bn1 is the first with a non-")


def test_layer_of_a_non_finite_feature_loss_is_reported() -> None:
    """Student and logits are finite; only the feature loss of the second stage is not."""
    task = small.make_task(small.quantized(), small.network(seed=1), "kd=at")
    task.build_feature_loss(small.batch(2), training_images=24, labels=None)
    assert task.teacher is not None
    task.teacher.get_submodule("layer2").register_forward_hook(lambda _, __, y: y / 0, prepend=True)
    callback = Divergence(every_n_steps=50)
    callback.last_batch = Batch(small.batch(4), torch.arange(4), torch.arange(4), {})
    trainer = cast(pl.Trainer, SimpleNamespace(current_epoch=0, global_step=7, strategy=SingleDeviceStrategy()))
    task._trainer = cast(pl.Trainer, SimpleNamespace(global_step=7, global_rank=0))
    with pytest.raises(DivergenceError, match="step 7: the feature loss AttentionTransfer is nan at layer layer2"):
        callback.check(trainer, task, torch.tensor(float("nan")))


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), -float("inf")])
def test_non_finite_loss_stops_the_run_and_changes_nothing(loss: float) -> None:
    task = distilling().train()
    break_weight(task.student, "layer1.0.conv2.weight")
    before = {name: tensor.clone() for name, tensor in task.state_dict().items()}
    callback = Divergence(every_n_steps=50)
    callback.last_batch = SimpleNamespace(image=small.batch(4))
    trainer = cast(pl.Trainer, SimpleNamespace(current_epoch=3, global_step=100, strategy=SingleDeviceStrategy()))
    callback.check(trainer, task, torch.tensor(1e30))
    with pytest.raises(
        DivergenceError, match=rf"the loss is {loss} in epoch 3, step 100: layer layer1\.0\.conv2"
    ) as error:
        callback.check(trainer, task, torch.tensor(loss))
    assert "recipe.lr=0.005" in explain(error.value), "half of the learning rate"
    for name, tensor in task.state_dict().items():
        assert torch.equal(tensor.nan_to_num(), before[name].nan_to_num()), name


def test_run_stops_before_a_non_finite_step_changes_the_weights(tmp_path: Path) -> None:
    class Poison(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
            if (trainer.current_epoch, batch_idx) == (1, 1):
                batch.image[0] = float("nan")
                weights.update(copy.deepcopy(dict(pl_module.student.named_parameters())))

    weights: dict[str, Tensor] = {}
    task = distilling()
    with pytest.raises(DivergenceError, match="in epoch 1, step 4: the images themselves are not finite"):
        small.fit(task, tmp_path, callbacks=[Poison(), Divergence(every_n_steps=50)])
    assert all(torch.equal(parameter, weights[name]) for name, parameter in task.student.named_parameters())


@pytest.mark.parametrize("fault", ["weight", "buffer", "score"])
def test_what_the_last_step_broke_stops_the_run_before_a_checkpoint(tmp_path: Path, fault: str) -> None:
    """The loss of each step is finite; the last step of the second epoch leaves a fault behind."""

    class Break(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
            if (trainer.current_epoch, trainer.is_last_batch) != (1, True):
                return
            if fault == "weight":
                break_weight(pl_module.student, "layer1.0.conv2.weight")
            elif fault == "buffer":
                pl_module.student.layer1[0].bn1.running_mean.fill_(float("inf"))
            else:
                pl_module.student.linear.register_forward_hook(lambda module, _, y: y if module.training else y / 0)

    task = distilling(epochs=3)
    resume = Resume(tmp_path / "last.ckpt")
    callbacks = [Break(), Divergence(every_n_steps=50), resume]
    found = {
        "weight": r"after epoch 1; val/kl is nan; layer layer1\.0\.conv2 has non-finite weight\. The checkpoint",
        "buffer": r"after epoch 1; layer layer1\.0\.bn1 has non-finite running_mean\. The checkpoint",
        "score": r"after epoch 1; val/kl is nan\. The checkpoint of the last whole epoch is kept",
    }
    with pytest.raises(DivergenceError, match=found[fault]) as error:
        small.fit(task, tmp_path, callbacks=callbacks)
    assert "recipe.lr=0.005" in explain(error.value)
    assert torch.load(resume.file, weights_only=True)["epoch"] == 0


def test_a_mask_may_be_infinite(tmp_path: Path) -> None:
    task = distilling()
    task.student.register_buffer("mask", torch.full((2, 2), -float("inf")))
    small.fit(task, tmp_path, callbacks=[Divergence()])
    assert first_non_finite(task.student, small.batch(2)) is None


# Gradient scaling from the curvature.


def deltas(task: Task) -> Tensor:
    found = [tensor for name, tensor in task.student.named_buffers() if name.endswith("rounding.delta")]
    assert len(found) == 2 * len(CONVS)
    return torch.stack(found).clone()


def scaling(**changes: Any) -> HessianScaling:
    made: HessianScaling = instantiate(small.config().callbacks.hessian_scaling, batches=2, batch_size=8, **changes)
    return made


def test_estimate_is_positive_and_reproducible(tmp_path: Path) -> None:
    tasks = [distilling() for _ in range(2)]
    for task in tasks:
        assert (deltas(task) == 0).all()
        small.fit(task, tmp_path, callbacks=[scaling(update_every=1)])
    first, second = (deltas(task) for task in tasks)
    assert first.isfinite().all()
    assert (first >= 0).all()
    assert (first > 0).any()
    assert torch.equal(first, second)
    students = [task.student.state_dict() for task in tasks]
    assert all(torch.equal(tensor, students[1][name]) for name, tensor in students[0].items())


def test_estimate_does_not_change_the_training(tmp_path: Path) -> None:
    """Only the scaling factors change; batch norm, gradients and random numbers are as without an estimate."""
    task = distilling()
    before = {name: tensor.clone() for name, tensor in task.student.state_dict().items()}
    random = torch.get_rng_state()
    data = small.images()
    batches = data.probe_batches(count=2, size=8, epoch=1)
    scaling().update(task.train(), quantizers(task.student), batches, epoch=1)
    changed = {name for name, tensor in task.student.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed
    assert all(name.endswith("rounding.delta") for name in changed)
    assert all(parameter.grad is None for parameter in task.parameters())
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize("delta", [0.0, 0.01])
def test_fixed_scaling_stays_constant(delta: float, tmp_path: Path) -> None:
    task = distilling(f"quantizer.rounding.delta={delta}")
    small.fit(task, tmp_path, callbacks=[scaling(update_every=1)])
    assert (deltas(task) == delta).all()


def test_other_rounding_rules_have_no_scaling(tmp_path: Path) -> None:
    task = distilling("quantizer/rounding=ste")
    small.fit(task, tmp_path, callbacks=[scaling(update_every=1)])
    assert not [name for name, _ in task.student.named_buffers() if "delta" in name]


def test_first_estimate_comes_after_the_first_interval(tmp_path: Path) -> None:
    task = distilling(epochs=2)
    small.fit(task, tmp_path, callbacks=[scaling(update_every=2)])
    assert (deltas(task) == 0).all()


@pytest.mark.parametrize("name", ["update_every", "max_probes"])
def test_estimate_without_epochs_or_probes_is_refused(name: str) -> None:
    with pytest.raises(Exception, match=f"{name}=0: expected a whole number of at least 1"):
        scaling(**{name: 0})

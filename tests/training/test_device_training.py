"""A whole training on a made-up accelerator: each function that waits for the device is named in docs/gpu.md.

The training has all callbacks of a run and the add-ons, in Lightning's own loop. On the made-up device
(`tests/support/made_up_device.py`) it ends in the same bits as on the CPU.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import command
import pages
import pytest
import pytorch_lightning as pl
import small
import torch
from hydra.utils import instantiate
from made_up_device import Event, made_up_device, trainer_config, values
from step_cases import make_case
from torch import Tensor

from sqakd.quantization.balance import balances
from sqakd.quantization.calibrate import calibrate
from sqakd.quantization.convert import quantize
from sqakd.training.callbacks.divergence import Divergence
from sqakd.training.callbacks.history import History
from sqakd.training.callbacks.resume import Resume
from sqakd.training.evaluate import evaluate, top1
from sqakd.training.pretrain import pretrain
from sqakd.training.task import Task
from sqakd.training.trainer import make_trainer

PAGE = pages.Page(command.ROOT / "docs" / "gpu.md")
ADDONS = ["bn", "cutmix", "dampen", "ema", "trivial", "two_step"]
OVERRIDES = ["recipe.batch_size=8", "recipe.epochs=2", "recipe.lr=0.01", "kd=crd", "kd.feature_loss.negatives=6"]
OVERRIDES += ["callbacks.hessian_scaling.update_every=1", "callbacks.hessian_scaling.batches=1"]
STEPS = 3  # of an epoch


def documented() -> dict[str, str]:
    """Return the functions that wait for the device, and when they do, from the table of docs/gpu.md."""
    start = next(i for i, row in enumerate(PAGE.rows) if row[0] == "function that waits for the GPU")
    rows = [row for row in PAGE.rows[start + 2 :] if len(row) == 3]
    return {pages.SPAN.findall(row[0])[0]: row[1] for row in rows}


def callbacks_of(folder: Path, config: Any) -> list[pl.Callback]:
    """Return the callbacks of a run; those of the add-ons first."""
    own = config.callbacks
    made = [instantiate(config.plus[name], **({"batch_size": 8} if name == "bn" else {})) for name in ADDONS]
    return [
        *(part for part in made if isinstance(part, pl.Callback)),
        instantiate(own.hessian_scaling),
        instantiate(own.quantizer_statistics, file=str(folder / "quantizers.csv")),
        instantiate(own.progress, label="run"),
        Divergence(every_n_steps=2),
        History(folder / "metrics.csv"),
        Resume(folder / "last.ckpt"),
    ]


def train(folder: Path, options: dict[str, Any]) -> Task:
    """Train with all callbacks of a run and the add-ons."""
    folder.mkdir()
    config, data = small.config(f"plus=[{','.join(ADDONS)}]", *OVERRIDES), small.images()
    data.extend({name: instantiate(config.plus[name]) for name in ("cutmix", "trivial")})
    task = make_case("ewgs", "crd", *OVERRIDES)
    trainer = make_trainer(
        task.recipe, options, callbacks=callbacks_of(folder, config), loggers=[], folder=folder, validates=True
    )
    trainer.fit(task, datamodule=data)
    return task


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Tensor], list[Tensor], list[Event]]:
    """Return the final tensors of a training on the CPU, those of the same on the made-up device, and the events."""
    folder = tmp_path_factory.mktemp("trained")
    on_cpu = train(folder / "cpu", {"accelerator": "cpu", "devices": 1, "enable_checkpointing": True})
    with made_up_device() as recorder:
        on_device = train(folder / "device", trainer_config())
        found = values(on_device.state_dict().values())
    return list(on_cpu.state_dict().values()), found, recorder.take()


def test_training_on_the_device_ends_in_the_bits_of_the_cpu(trained: Any) -> None:
    expected, got, _ = trained
    assert len(got) == len(expected) > 40
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_training_steps_wait_for_the_device_in_documented_functions_only(trained: Any) -> None:
    within = {event.place for event in trained[2] if event.phase == "step"}
    assert within == {place for place, when in documented().items() if "step" in when}
    checks = [event for event in trained[2] if event.phase == "step" and "divergence" in event.place]
    assert len(checks) == STEPS  # every second of two epochs' steps
    assert not [event for event in trained[2] if event.phase == "evaluation"]


def other_stages(folder: Path) -> list[Event]:
    """Return the events of calibration, checks, evaluation and the stage before the training."""
    data = small.images()
    task = make_case("pact", "ft", "kd.feature_loss.pretrain_epochs=1", "recipe.batch_size=8")
    other, trainer = small.network(), small.make_small_trainer(task, folder)
    quantize(other, small.scheme("quantizer=lsq"))
    with made_up_device() as recorder:
        images = data.calibration_batch(1).to("meta")
        calibrate(other.to("meta"), images)
        balances(other, images)
        task.to("meta")
        evaluate(task, data, trainer)
        top1(task.student, data, torch.device("meta"))
        resume = Resume(folder / "before.ckpt")
        pretrain(task, data, trainer_config(), epochs=1, images=images[:2], resume=resume, callbacks=[])
    return recorder.take()


def test_each_function_that_waits_for_the_device_is_documented(trained: Any, tmp_path: Path) -> None:
    found = {event.place for event in [*trained[2], *other_stages(tmp_path)]}
    assert found == set(documented())

"""Contract of every feature loss. The losses are those of conf/kd, so a new loss is covered at once."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import command
import pytest
import pytorch_lightning as pl
import small
import torch
import yaml
from omegaconf import OmegaConf
from torch import Tensor

from sqakd.advice import explain
from sqakd.errors import SqakdError
from sqakd.kd.base import FeatureBatch, FeatureLoss, SetupInfo
from sqakd.runs.saved_state import find_start
from sqakd.training.callbacks.progress_bar import ProgressBar
from sqakd.training.callbacks.resume import Resume
from sqakd.training.pretrain import pretrain
from sqakd.training.task import Task


def values(file: Path) -> dict[str, Any]:
    """Return the values of a file in conf/kd, with those of the loss that the file extends."""
    own = yaml.safe_load(file.read_text())
    extended = [values(file.with_name(f"{base}.yaml")) for base in own.get("defaults", []) if base[0] not in "/_"]
    merged: dict[str, Any] = OmegaConf.to_container(OmegaConf.merge(*extended, own))  # type: ignore[assignment]
    return merged


FILES = sorted((command.ROOT / "conf" / "kd").glob("*.yaml"))
CONFIGS = {file.stem: values(file) for file in FILES}
KDS = [name for name, config in CONFIGS.items() if config.get("feature_loss")]
STAGED = [name for name in KDS if CONFIGS[name]["feature_loss"].keys() & {"pretrain_epochs", "pretrain_share"}]
# Losses that compare features of any two shapes, or logits only.
ANY_SHAPES = {"sp", "dist"}


@cache
def overrides(kd: str) -> tuple[str, ...]:
    """Return overrides for a short training in which the loss has a positive weight in every step."""
    feature = () if CONFIGS[kd]["feature"] else ("kd.feature=1",)
    return (f"kd={kd}", "recipe.epochs=2", "recipe.batch_size=8", *feature)


def make(kd: str, *, bits: int = 2) -> Task:
    task = small.make_task(small.quantized(f"bits={bits}"), small.network(seed=1), *overrides(kd))
    labels = small.images().train_labels
    task.build_feature_loss(small.batch(2), training_images=small.TRAIN, labels=labels)
    return task


def feature_loss(task: Task) -> FeatureLoss:
    assert task.objective.feature_loss is not None
    return task.objective.feature_loss


def own(task: Task) -> dict[str, torch.nn.Parameter]:
    return {name: p for name, p in feature_loss(task).named_parameters() if p.requires_grad}


def losses(task: Task) -> dict[str, Tensor]:
    """Return the losses of a batch, as a training step computes them."""
    index = torch.arange(8)
    draws = task.objective.draw(index, torch.Generator().manual_seed(0))
    return task.eager_losses(small.batch(8, 5), index % small.CLASSES, index, draws)


def feature_batch(task: Task) -> FeatureBatch:
    """Return a batch whose student features and logits require a gradient."""
    assert task.features is not None
    images, index = small.batch(8, 5), torch.arange(8)
    with torch.no_grad():
        logits, teacher_logits = task.student(images), task.teacher_logits(images)
    assert teacher_logits is not None
    logits.requires_grad_()
    draws = task.objective.draw(index, torch.Generator().manual_seed(0))
    student = [feature.detach().requires_grad_() for feature in task.features[0].take()]
    return FeatureBatch(student, task.features[1].take(), logits, teacher_logits, index, draws)


def test_the_contract_covers_the_whole_zoo() -> None:
    zoo = {"at", "nst", "sp", "rkd", "crd", "fitnet", "cc", "vid", "fsp", "ft", "cktf", "fsp_released", "cktf_released"}
    assert zoo | {"squat", "dist", "reconstruction"} <= set(KDS)
    assert {"fsp", "ft", "reconstruction"} <= set(STAGED)


@pytest.mark.parametrize("kd", KDS)
def test_gradients_reach_the_student_and_the_loss_s_own_parameters_only(kd: str) -> None:
    task = make(kd)
    part = losses(task)["feature"]
    assert part.dtype == torch.float32
    part.backward()  # type: ignore[no-untyped-call]
    assert {name for name, p in own(task).items() if p.grad is None} == set()
    assert not own(task) or max(float(p.grad.abs().max()) for p in own(task).values() if p.grad is not None) > 0
    first = task.student.get_parameter("conv1.weight")
    assert first.grad is not None
    assert float(first.grad.abs().max()) > 0
    assert task.teacher is not None
    assert all(p.grad is None and not p.requires_grad for p in task.teacher.parameters())


@pytest.mark.parametrize("kd", KDS)
def test_own_parameters_are_in_the_optimizer_and_in_the_checkpoint(kd: str) -> None:
    task = make(kd)
    trained = {id(p) for p in task.configure_optimizers().param_groups[0]["params"]}
    assert {name for name, p in own(task).items() if id(p) not in trained} == set()
    saved = task.state_dict()
    assert {f"objective.feature_loss.{name}" for name, _ in feature_loss(task).named_parameters()} <= saved.keys()
    assert not any(name.startswith("teacher") for name in saved)


@pytest.mark.parametrize("kd", KDS)
def test_each_term_is_a_finite_scalar_with_a_name(kd: str) -> None:
    task = make(kd)
    terms = feature_loss(task)(feature_batch(task))
    assert len(terms) == len(feature_loss(task).names)
    assert all(term.shape == () and bool(term.isfinite()) for term in terms)


@pytest.mark.parametrize("kd", KDS)
def test_the_compiled_loss_equals_the_eager_loss(kd: str) -> None:
    task = make(kd)
    batch, parameters = feature_batch(task), list(own(task).values())
    torch._dynamo.reset()
    # A loss can break the tracing only, so this backend runs the traced graph without generating code.
    compiled = torch.compile(feature_loss(task), fullgraph=True, backend="aot_eager")
    got, expected = (torch.stack(loss(batch)).sum() for loss in (compiled, feature_loss(task)))
    assert torch.allclose(got, expected, rtol=1e-5)
    inputs = [*batch.student, *parameters] or [batch.student_logits]
    pairs = zip(torch.autograd.grad(got, inputs), torch.autograd.grad(expected, inputs), strict=True)
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-5 * float(b.abs().max())) for a, b in pairs)


@pytest.mark.parametrize("kd", KDS)
def test_mixed_precision_gives_a_float32_loss_and_finite_gradients(kd: str) -> None:
    task = make(kd, bits=8)  # at 8 bits, bfloat16 moves few codes by more than one
    with torch.autocast("cpu", dtype=torch.bfloat16):
        parts = losses(task)
    parts["loss"].backward()  # type: ignore[no-untyped-call]
    assert parts["feature"].dtype == torch.float32
    assert float(parts["feature"].detach()) == pytest.approx(
        float(losses(make(kd, bits=8))["feature"].detach()), rel=0.1
    )
    gradients = [p.grad for p in task.parameters() if p.grad is not None]
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)


@pytest.mark.parametrize("kd", [kd for kd in KDS if kd not in ANY_SHAPES])
def test_incompatible_shapes_are_refused(kd: str) -> None:
    loss = feature_loss(small.make_task(small.quantized(), small.network(seed=1), *overrides(kd)))
    layers = small.config().model.feature_layers
    loss.names = loss.taps(layers, small.network())
    student, teacher = ([torch.zeros(2, *shape)] * len(loss.names) for shape in ((5, 7), (7, 11)))  # tokens, not maps
    info = SetupInfo(student=student, teacher=teacher, training_images=small.TRAIN, labels=None)
    with pytest.raises(SqakdError, match=r"shape \[5, 7\] and the teacher's \[7, 11\]; expected .") as error:
        loss.setup(info)
    assert "feature_layers" in explain(error.value)


class Stop(Exception):  # noqa: N818  # it is no error
    """Simulated end of the process."""


class StopAt(ProgressBar):
    """Callback that ends the training before one step of one stage.

    It is a progress bar, because progress bars are the callbacks that run in both stages.
    """

    def __init__(self, *, before_training: bool, epoch: int, step: int) -> None:
        super().__init__(label="main", lines=1)
        self.at = before_training, epoch, step

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: object, batch_idx: int
    ) -> None:
        if self.at == (self.label != "main", trainer.current_epoch, batch_idx):
            raise Stop


def run(kd: str, folder: Path, stop: StopAt | None = None) -> dict[str, Tensor]:
    """Train both stages as a run does, resuming from files in `folder`; return the state that a checkpoint saves."""
    task, data = make(kd), small.images()
    callbacks: list[pl.Callback] = [stop] if stop else []
    last = folder / "last.ckpt"
    if not last.exists():
        how = {"accelerator": "cpu", "devices": 1}
        file = folder / "pretrain.ckpt"
        resume = Resume(file, start=find_start(file, run=""))
        epochs = 2 if kd in STAGED else 0
        pretrain(task, data, how, epochs=epochs, images=small.batch(2), resume=resume, callbacks=callbacks)
    trainer = small.make_small_trainer(task, folder, [*callbacks, Resume(last)])
    trainer.fit(task, datamodule=data, ckpt_path=last if last.exists() else None, weights_only=True)
    return task.state_dict()


@pytest.mark.parametrize("kd", KDS)
def test_resumed_training_ends_in_the_same_bits(kd: str, tmp_path: Path) -> None:
    expected = run(kd, tmp_path / "whole")
    stops = [(False, 1, 1), *([(True, 1, 1), (False, 0, 1)] if kd in STAGED else [])]
    for number, (before, epoch, step) in enumerate(stops):
        folder = tmp_path / str(number)
        with pytest.raises(Stop):
            run(kd, folder, StopAt(before_training=before, epoch=epoch, step=step))
        assert (folder / ("last.ckpt" if (before, epoch) == (False, 1) else "pretrain.ckpt")).exists()
        assert command.same_bits(run(kd, folder), expected), (before, epoch, step)

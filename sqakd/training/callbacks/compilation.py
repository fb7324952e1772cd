"""Compilation of the training step and of the evaluation: at once, never, or when the rest makes up for it.

A training with `compile=auto` begins eagerly. At step 20, the measured time of a step and the time of a compilation
decide about the rest. The evaluation is compiled apart from the step, if enough images are left to evaluate. The
decision is kept in a file and in the checkpoint, so that an interrupted training takes the same decision at the same
step, and ends in the same bits. The stage before the training, which some feature losses have, has a callback, a
decision and a file of its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from torch import nn
from tqdm import tqdm

from sqakd.dataset.loader import Loader
from sqakd.errors import SqakdError
from sqakd.training.callbacks.bits_schedule import BitsSchedule
from sqakd.training.code_cache import CodeCache
from sqakd.training.compiled_step import CompiledStep
from sqakd.training.decision import Decision, read_decision, write_decision
from sqakd.training.payback import Payback, payback
from sqakd.training.pretrain import Pretraining
from sqakd.training.task import Task
from sqakd.training.trainer import max_epochs

Mode = bool | Literal["auto"]
WARM_UP = 5  # steps that are not measured, because the first ones are slower
MEASURED = 15  # steps whose fastest counts
DECIDES_AT = WARM_UP + MEASURED  # step before which the decision is taken


class Compilation(Checkpoint):
    """Compiles the training step and the evaluation. The class is a Checkpoint only because Lightning calls those last.

    Args:
        mode: whether to compile; "auto" decides by time.
        cache: folder of compiled code.
        file: where the decision is kept from the moment it is taken.
        say: prints a line.
    """

    def __init__(self, mode: Mode, *, cache: CodeCache, file: Path, say: Callable[[str], None]) -> None:
        self.mode, self.cache, self.file, self.say = mode, cache, file, say
        self.decision = None if mode == "auto" else Decision(mode, 0, evaluation=mode)
        self.eager = float("inf")  # seconds of the fastest eager step
        self.compiled = float("inf")
        self.step: CompiledStep | None = None
        self.step_name = ""
        self.evaluates = False  # whether evaluations run compiled code
        self.kind, self.is_first = "", True
        self.restored = False
        self.started = 0.0
        self.measured = 0  # steps since the start or since the compilation

    def state_dict(self) -> dict[str, Any]:
        return {"decision": None if self.decision is None else asdict(self.decision), "eager": self.eager}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.restored = True
        if self.mode == "auto":
            self.eager, found = state_dict["eager"], state_dict["decision"]
            self.decision = None if found is None else Decision(**found)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.decision is None:
            self.decision = trainer.strategy.broadcast(read_decision(self.file))
        assert isinstance(pl_module, Task | Pretraining)
        if isinstance(pl_module, Pretraining) and trainer.global_step and not self.restored:
            self.decision = Decision(False, 0)  # an earlier version, which never compiled this stage, has begun it
        self.kind, self.is_first = kind(pl_module, trainer), trainer.is_global_zero

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, Task | Pretraining)
        position = trainer.current_epoch * int(trainer.num_training_batches) + batch_idx
        if self.decision is None and position == DECIDES_AT:
            self._decide(trainer, pl_module, position)
        elif self.decision is None and position > DECIDES_AT:  # a checkpoint without the decision: stay as it was
            self.decision = Decision(False, position)
        if self.step is None and self.decision is not None and self.decision.compile and position >= self.decision.step:
            self._compile(trainer, pl_module)
        if self._measures:
            self.started = _now(pl_module.device)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: object, batch: Any, batch_idx: int
    ) -> None:
        if not self._measures:
            return
        loader = trainer.train_dataloader
        assert isinstance(loader, Loader)
        if len(batch.image) != loader.part_size:  # a smaller last batch is faster, and is never compiled
            return
        seconds, self.measured = _now(pl_module.device) - self.started, self.measured + 1
        if self.step is None:
            if self.measured > WARM_UP:
                self.eager = min(self.eager, seconds)
            return
        if self.measured > WARM_UP:
            self.compiled = min(self.compiled, seconds)
        if trainer.is_global_zero and self.measured in (1, DECIDES_AT):
            self._remember()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.evaluates or self.decision is None or not self.decision.evaluation:
            return
        # A resumed training may know a decision that the uninterrupted one took only after this evaluation.
        if (trainer.current_epoch + 1) * int(trainer.num_training_batches) <= self.decision.step:
            return
        assert isinstance(pl_module, Task)
        loader = trainer.val_dataloaders
        assert isinstance(loader, Loader)
        pl_module.compile_evaluation(
            size=loader.part_size,
            on_failure=lambda reason: self._say(f"the evaluation cannot be compiled and stays eager: {reason}"),
        )
        self.evaluates = True

    @property
    def _measures(self) -> bool:
        """Whether the running step is measured: the first steps of an automatic training, eager and compiled."""
        undecided = self.decision is None
        return undecided or (self.step is not None and self.measured < DECIDES_AT)

    def _decide(self, trainer: pl.Trainer, module: Task | Pretraining, position: int) -> None:
        """Decide about the rest of the training; rank 0 decides for all."""
        estimate = self._estimate(trainer, module, position)
        measured = self.eager < float("inf")  # not if the run was interrupted again and again in its first steps
        compiles = measured and estimate.pays
        share = evaluated_share(trainer, position)
        self.decision = trainer.strategy.broadcast(Decision(compiles, position, compiles and estimate.pays_for(share)))
        if trainer.is_global_zero:
            write_decision(self.file, self.decision)
        if self.decision.compile:
            self._say(f"compiling the {module.step_name}: {estimate}")

    def _estimate(self, trainer: pl.Trainer, module: Task | Pretraining, position: int) -> Payback:
        return payback(
            self.cache.times(self.kind),
            eager=self.eager,
            steps=max_epochs(trainer) * int(trainer.num_training_batches) - position,
            networks=networks_of(module),
            graphs=_graphs(trainer),
        )

    def _compile(self, trainer: pl.Trainer, module: Task | Pretraining) -> None:
        """Let the module compile its next step."""
        self.step_name = module.step_name
        if self.mode != "auto":
            self._say(f"compiling the {self.step_name}: {self._estimate(trainer, module, 0).price}")
        if problem := self.cache.open():
            self._say(problem)
        self.measured = 0
        loader = trainer.train_dataloader
        assert isinstance(loader, Loader)
        self.step = module.compile_losses(size=loader.part_size, on_failure=self._fail)

    def _fail(self, reason: str) -> None:
        """Continue eagerly if the training may, and keep this decision.

        Raises:
            SqakdError: if the user asked for compilation.
        """
        if self.mode != "auto":
            raise SqakdError(f"the {self.step_name} cannot be compiled: {reason}", topic="trainer.compile")
        assert self.decision is not None
        self.decision, self.measured = Decision(False, self.decision.step), DECIDES_AT  # nothing is left to measure
        if self.is_first:
            with contextlib.suppress(SqakdError):
                write_decision(self.file, self.decision)
        self._say(f"the {self.step_name} cannot be compiled and stays eager: {reason}")

    def _remember(self) -> None:
        """Store what was measured for later runs of the same kind."""
        assert self.step is not None
        if self.measured == 1 and self.step.seconds:
            self.cache.remember(self.kind, **{"cold" if self.step.cold else "warm": self.step.seconds})
        elif self.eager < float("inf") and self.compiled < float("inf"):
            self.cache.remember(self.kind, eager=self.eager, compiled=self.compiled)

    def _say(self, text: str) -> None:
        with tqdm.external_write_mode():  # moves a progress bar out of the way
            self.say(text)


def task_of(module: Task | Pretraining) -> Task:
    """Return the task of a run, of its training or of the stage before."""
    return module.task if isinstance(module, Pretraining) else module


def networks_of(module: Task | Pretraining) -> list[nn.Module]:
    """Return the networks that run in a step."""
    task, runs_student = task_of(module), not isinstance(module, Pretraining) or module.trains_student
    return ([task.student] if runs_student else []) + ([] if task.teacher is None else [task.teacher])


def kind(module: Task | Pretraining, trainer: pl.Trainer) -> str:
    """Return a digest of what the compiled code and its speed depend on."""
    task = task_of(module)
    loader = trainer.train_dataloader
    assert isinstance(loader, Loader)
    facts = (
        *(repr(part) for part in (task.student, task.teacher, task.objective)),
        *(loader.part_size, tuple(loader.images.shape[1:]), trainer.precision, task.format, task.device.type),
        torch.get_num_threads(),
        # Another graph of the same networks, with a gradient for these parameters.
        *([module.step_name, len(module.trained)] if isinstance(module, Pretraining) else []),
    )
    return hashlib.sha256("\n".join(map(str, facts)).encode()).hexdigest()[:16]


def compiled_from(trainer: pl.Trainer) -> int | None:
    """Return the step from which on a training ran compiled code; None if it ran none."""
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    decisions = [callback.decision for callback in callbacks if isinstance(callback, Compilation)]
    return next((found.step for found in decisions if found is not None and found.compile), None)


def evaluated_share(trainer: pl.Trainer, position: int) -> float:
    """Return the number of images left to evaluate, relative to those left to train on.

    Args:
        trainer: of a training that has begun.
        position: number of batches that were trained on.
    """
    train, val = trainer.train_dataloader, trainer.val_dataloaders
    if not isinstance(train, Loader) or not isinstance(val, Loader):
        return 0.0
    batches, epochs = int(trainer.num_training_batches), max_epochs(trainer)
    evaluations = (epochs - position // batches) / (trainer.check_val_every_n_epoch or 1)
    return evaluations * len(val.images) / ((epochs * batches - position) * train.batch_size)


def _graphs(trainer: pl.Trainer) -> int:
    """Return how often the step is compiled until the end: again at each change of the bits."""
    last = max_epochs(trainer)
    schedules = [callback for callback in trainer.callbacks if isinstance(callback, BitsSchedule)]  # type: ignore[attr-defined]
    return 1 + sum(
        schedule.stage(last - 1, last) - schedule.stage(trainer.current_epoch, last) for schedule in schedules
    )


def _now(device: torch.device) -> float:
    """Return the time when the device has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()

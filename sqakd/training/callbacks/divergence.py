"""Stop a run whose loss, weights or scores are not finite, and report the layer where that begins."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sqakd.errors import SqakdError
from sqakd.quantization.probe import buffers_restored, hooks_removed, own_statistics
from sqakd.training.task import Task

CHECK_INTERVAL = 50  # steps; a check makes the CPU wait for a GPU


class DivergenceError(SqakdError):
    """Raised when a loss, a weight or a score is infinite or not a number. The last good checkpoint is kept."""


class Divergence(pl.Callback):
    """Checks the loss before the optimizer uses its gradient, and what an epoch leaves behind.

    The check of the loss reads one number, for which the CPU has to wait for a GPU. On a GPU it therefore runs every
    `every_n_steps` steps and at the end of an epoch. On the CPU it runs at each step. No loss shows what the last step
    did, so weights and scores are checked at the end of an epoch, before a checkpoint is written.

    If one of several processes finds a fault, all of them stop, because the others would wait for its next message.

    Args:
        every_n_steps: distance of the checks on devices that work asynchronously.
        keeps_checkpoint: whether the training writes checkpoints, which the message then mentions.
    """

    def __init__(self, *, every_n_steps: int = CHECK_INTERVAL, keeps_checkpoint: bool = True) -> None:
        self.every_n_steps, self.keeps_checkpoint = every_n_steps, keeps_checkpoint
        self.last_batch: Any = None

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.last_batch = batch

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        interval = 1 if loss.device.type == "cpu" else self.every_n_steps
        if trainer.global_step % interval == 0:
            self.check(trainer, pl_module, loss)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Task)
        mean = pl_module.train_means["loss"]
        self.check(trainer, pl_module, mean.mean_value)  # type: ignore[arg-type]
        self.check_epoch(trainer, pl_module)

    def check(self, trainer: pl.Trainer, task: pl.LightningModule, loss: Tensor) -> None:
        """Stop the run if the loss is not finite.

        Raises:
            DivergenceError: naming the epoch, the step and the layer.
        """
        finite = bool(torch.isfinite(loss))
        if trainer.strategy.reduce_boolean_decision(finite):
            return
        assert isinstance(task, Task)
        step = f"in epoch {trainer.current_epoch}, step {trainer.global_step}"
        if finite:
            raise self._error(f"the loss of another process is not finite {step}; that process names the layer", task)
        place = first_non_finite(task.student, self.last_batch.image) or self._part(task)
        raise self._error(f"the loss is {float(loss.detach())} {step}: {place}", task)

    def check_epoch(self, trainer: pl.Trainer, task: Task) -> None:
        """Stop the run if the epoch's last step left weights, or the validation a score, that are not finite.

        Raises:
            DivergenceError: naming the epoch, and the layer or the score.
        """
        scores = {name: value for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        state = [tensor for module in task.student.modules() for _, tensor in _trained(module)]
        finite = all_finite([*state, *(value.to(task.device) for value in scores.values())])
        if trainer.strategy.reduce_boolean_decision(finite):
            return
        bad = [f"{name} is {float(value)}" for name, value in scores.items() if not bool(torch.isfinite(value))]
        if finite:  # only the first process has the scores
            bad = ["another process found a score or a weight that is not finite, and names it"]
        place = first_non_finite(task.student, self.last_batch.image)
        raise self._error("; ".join([f"after epoch {trainer.current_epoch}", *bad, *([place] if place else [])]), task)

    def _error(self, found: str, task: Task) -> DivergenceError:
        kept = ". The checkpoint of the last whole epoch is kept" if self.keeps_checkpoint else ""
        return DivergenceError(found + kept, topic="divergence.training", lr=task.recipe.lr / 2)

    def _part(self, task: Task) -> str:
        """Describe the part of the loss that is not finite although all outputs of the student are."""
        for tap, term in task.feature_terms(self.last_batch).items():
            if not bool(torch.isfinite(term)):
                kind = type(task.objective.feature_loss).__name__
                return f"the feature loss {kind} is {float(term)} at layer {tap}"
        return "every layer's output is finite, so the loss itself overflowed"


@torch.no_grad()
def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Return whether all values of tensors on one device are finite; the CPU waits once for the device."""
    return bool(torch.stack([tensor.isfinite().all() for tensor in tensors]).all())


@torch.no_grad()
def first_non_finite(model: nn.Module, images: Tensor) -> str | None:
    """Describe the first layer, in the order of running, with non-finite weights or output; None if there is none.

    Args:
        model: the student; it runs once in its present mode, and its buffers are restored.
        images: normalised batch [N, C, H, W] to run it on.
    """
    if not bool(torch.isfinite(images).all()):
        return "the images themselves are not finite"
    found: list[str] = []
    names = {module: name for name, module in model.named_modules() if name}

    def before(module: nn.Module, args: Any) -> None:  # a layer's own weights are checked before its children run
        bad = [key for key, value in _trained(module) if not bool(torch.isfinite(value).all())]
        if bad and not found:
            found.append(f"layer {names[module]} has non-finite {', '.join(bad)}")

    def after(module: nn.Module, args: Any, output: Any) -> None:
        if not found and isinstance(output, Tensor) and not bool(torch.isfinite(output).all()):
            found.append(f"layer {names[module]} is the first with a non-finite output")

    hooks = [module.register_forward_pre_hook(before) for module in names]
    hooks += [module.register_forward_hook(after) for module in names]
    with buffers_restored(model), own_statistics(model), hooks_removed(hooks):
        model(images)
    return found[0] if found else None


def _trained(module: nn.Module) -> list[tuple[str, Tensor]]:
    """Return a module's own tensors that a training changes; other buffers may be infinite, such as masks."""
    statistics = module.named_buffers(recurse=False) if isinstance(module, _BatchNorm) else ()
    return [*module.named_parameters(recurse=False), *statistics]

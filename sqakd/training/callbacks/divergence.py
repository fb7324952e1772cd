"""Stop a run whose loss is not finite, and report the layer where that begins."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from sqakd.errors import SqakdError
from sqakd.quantization.probe import buffers_restored, hooks_removed
from sqakd.training.task import Task


class DivergenceError(SqakdError):
    """Raised when the loss is infinite or not a number. The last good checkpoint is kept."""


class Divergence(pl.Callback):
    """Checks the loss before the optimizer uses its gradient.

    The check reads one number, for which the CPU has to wait for a GPU. On a GPU it therefore runs every
    `every_n_steps` steps and at the end of an epoch, before a checkpoint is written. On the CPU it runs at each step.

    Args:
        every_n_steps: distance of the checks on devices that work asynchronously.
        keeps_checkpoint: whether the training writes checkpoints, which the message then mentions.
    """

    def __init__(self, *, every_n_steps: int, keeps_checkpoint: bool = True) -> None:
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

    def check(self, trainer: pl.Trainer, task: pl.LightningModule, loss: Tensor) -> None:
        """Stop the run if the loss is not finite.

        Raises:
            DivergenceError: naming the epoch, the step and the layer.
        """
        if bool(torch.isfinite(loss)):
            return
        assert isinstance(task, Task)
        place = first_non_finite(task.student, self.last_batch.image) or self._part(task)
        raise DivergenceError(
            f"the loss is {float(loss.detach())} in epoch {trainer.current_epoch}, step {trainer.global_step}: {place}"
            + (". The checkpoint of the last whole epoch is kept" if self.keeps_checkpoint else ""),
            topic="divergence.training",
            lr=task.recipe.lr / 2,
        )

    def _part(self, task: Task) -> str:
        """Describe the part of the loss that is not finite although all outputs of the student are."""
        for tap, term in task.feature_terms(self.last_batch).items():
            if not bool(torch.isfinite(term)):
                kind = type(task.objective.feature_loss).__name__
                return f"the feature loss {kind} is {float(term)} at layer {tap}"
        return "every layer's output is finite, so the loss itself overflowed"


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
        bad = [key for key, value in module.named_parameters(recurse=False) if not bool(torch.isfinite(value).all())]
        if bad and not found:
            found.append(f"layer {names[module]} has non-finite {', '.join(bad)}")

    def after(module: nn.Module, args: Any, output: Any) -> None:
        if not found and isinstance(output, Tensor) and not bool(torch.isfinite(output).all()):
            found.append(f"layer {names[module]} is the first with a non-finite output")

    hooks = [module.register_forward_pre_hook(before) for module in names]
    hooks += [module.register_forward_hook(after) for module in names]
    with buffers_restored(model), hooks_removed(hooks):
        model(images)
    return found[0] if found else None

r"""Dampening: a penalty that pulls each weight towards the grid point that it is rounded to.

Paper: Nagel, Fournarakis, Bondarenko, Blankevoort 2022, "Overcoming Oscillations in Quantization-Aware Training", ICML
2022 (https://arxiv.org/abs/2203.11086). For the weights w of a layer and their grid points w_q, counted as constants,
with n of N steps done:

    loss += lambda_n sum (w_q - clip(w, lowest grid point, highest))^2
    lambda_n = lambda (1 - cos(pi n / N)) / 2

The range gets no gradient, and neither do clipped weights. The sum is a function of the weights alone, so its gradient
is added once per step, outside the compiled loss. Distances are measured in the quantity that a method rounds: the
weight itself, or tanh(w) / max|tanh(w)| (DoReFa, where the largest weight is the range and therefore gets a gradient
through the maximum).
"""

from __future__ import annotations

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim import Optimizer

from sqakd.numbers import check_positive
from sqakd.quantization.layers import QuantLayer, quant_layers
from sqakd.quantization.quantizers.base import Quantizer
from sqakd.quantization.quantizers.clip_round import Mask
from sqakd.quantization.quantizers.rounding import Rounding
from sqakd.training.schedule import cosine
from sqakd.training.task import Task
from sqakd.training.trainer import max_epochs, steps_per_epoch


class Dampening(pl.Callback):
    """Adds the gradient of the squared distance between weights and their grid points.

    Args:
        weight: lambda, the factor at the end of the training; 0.1 is a typical value.

    Raises:
        SqakdError: if `weight` is not a number above 0.
    """

    needs_quantizer = True

    def __init__(self, *, weight: float) -> None:
        check_positive("weight", weight)
        self.weight = weight

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        assert isinstance(pl_module, Task)
        factor = self.factor(trainer)
        for _, layer in quant_layers(pl_module.student):
            gradient = pull(layer)
            if layer.weight.grad is not None:
                layer.weight.grad.add_(gradient, alpha=factor)

    def factor(self, trainer: pl.Trainer) -> float:
        """Return lambda_n, the factor of the coming step."""
        steps = steps_per_epoch(trainer) * max_epochs(trainer)
        return self.weight * (1 - cosine(trainer.global_step, steps))

    @torch.no_grad()
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the sum without its factor, which shows the distance of the weights from their grids."""
        assert isinstance(pl_module, Task)
        distances = [distance(layer.weight_quantizer, layer.weight) for _, layer in quant_layers(pl_module.student)]
        total = torch.stack([d.square().sum() for d in distances]).sum()
        pl_module.log("train/distance_to_grid", total, rank_zero_only=True)


@torch.enable_grad()
def pull(layer: QuantLayer) -> Tensor:
    """Return the gradient of a layer's sum of squared distances with respect to its weight."""
    total = distance(layer.weight_quantizer, layer.weight).square().sum()
    (gradient,) = torch.autograd.grad(total, layer.weight)
    return gradient


def distance(quantizer: Quantizer, x: Tensor) -> Tensor:
    """Return the distance of each element of `x`, clipped to the range, from its grid point; [shape of x].

    The unit is that of the quantity that the method rounds. The method's own `encode` runs with a rounding rule that
    records the distance, so that each method's transformation (tanh, bounds) is included with its gradient.
    """
    recorder, own = _DistanceRecorder(), quantizer.rounding
    quantizer.rounding = recorder
    try:
        quantizer.encode(x)
    finally:
        quantizer.rounding = own
    return recorder.distance


class _DistanceRecorder(Rounding):
    """A rounding rule that records the distance to the nearest code, differentiable with respect to `x` alone."""

    distance: Tensor

    def forward(
        self, x: Tensor, origin: Tensor | None, density: Tensor, low: int, high: int, mask: Mask = "value"
    ) -> Tensor:
        # The range (origin and density) counts as a constant, so that the penalty does not move it.
        density = density.detach()
        start = 0.0 if origin is None else origin.detach()
        position = ((x - start) * density).clamp(low, high)  # the gradient of clipped elements is 0
        codes = position.detach().round()
        self.distance = (position - codes) / density  # from units of one code back to those of `x`
        return codes

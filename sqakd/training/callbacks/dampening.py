r"""Dampening: a pull on each weight towards the grid point that it is rounded to.

Paper: Nagel, Fournarakis, Bondarenko, Blankevoort 2022, "Overcoming Oscillations in Quantization-Aware Training", ICML
2022 (https://arxiv.org/abs/2203.11086). For the weights w of a layer and their grid points w_q, counted as constants,
with n of N steps done:

    loss += lambda_n sum (w_q - clip(w, lowest grid point, highest))^2
    lambda_n = lambda (1 - cos(pi n / N)) / 2

The range gets no gradient, clipped weights get none either. The sum is a function of the weights alone, so its gradient
is added once per step, beside the loss that is compiled. Distances are measured in what a method rounds: the weight
itself, or its tanh over the largest one (DoReFa, where that weight is the range and so has a pull of its own).
"""

from __future__ import annotations

import math

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim import Optimizer

from sqakd.numbers import is_number
from sqakd.quantization.layers import QuantLayer, quant_layers
from sqakd.quantization.quantizers.base import Quantizer
from sqakd.quantization.quantizers.rounding import Mask, Rounding
from sqakd.training.schedule import cosine
from sqakd.training.task import Task


class Dampening(pl.Callback):
    """Adds the gradient of the distance between weights and their grid points.

    Args:
        weight: lambda, at the end of the training.
    """

    needs_quantizer = True

    def __init__(self, *, weight: float) -> None:
        if not is_number(weight) or not 0 < weight < math.inf:
            raise ValueError(f"plus.dampen.weight={weight!r}: expected a number above 0, e.g. plus.dampen.weight=0.1")
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
        """Lambda of the coming step."""
        steps = math.ceil(int(trainer.num_training_batches) / trainer.accumulate_grad_batches)
        return self.weight * (1 - cosine(trainer.global_step, steps * (trainer.max_epochs or 1)))

    @torch.no_grad()
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the sum without its factor: how far the weights are from their grids."""
        assert isinstance(pl_module, Task)
        distances = [distance(layer.weight_quantizer, layer.weight) for _, layer in quant_layers(pl_module.student)]
        total = torch.stack([d.square().sum() for d in distances]).sum()
        pl_module.log("train/distance_to_grid", total, rank_zero_only=True)


@torch.enable_grad()
def pull(layer: QuantLayer) -> Tensor:
    """Gradient of a layer's sum of squared distances with respect to its weight."""
    total = distance(layer.weight_quantizer, layer.weight).square().sum()
    (gradient,) = torch.autograd.grad(total, layer.weight)
    return gradient


def distance(quantizer: Quantizer, x: Tensor) -> Tensor:
    """How far each element of `x`, clipped, is from its grid point, in the units of what is rounded; [shape of x]."""
    measuring, own = _Measuring(), quantizer.rounding
    quantizer.rounding = measuring
    try:
        quantizer.encode(x)
    finally:
        quantizer.rounding = own
    return measuring.distance


class _Measuring(Rounding):
    """Rounds, and keeps the distance with its gradient to `x`."""

    distance: Tensor

    def forward(
        self, x: Tensor, origin: Tensor | None, density: Tensor, low: int, high: int, mask: Mask = "value"
    ) -> Tensor:
        density = density.detach()
        start = 0.0 if origin is None else origin.detach()
        position = ((x - start) * density).clamp(low, high)
        codes = position.detach().round()
        self.distance = (position - codes) / density
        return codes

r"""Rounding rules: how a clipped value becomes an integer, and what its gradient is.

A rule maps a real tensor and a range [lower, upper] to the integers 0 .. steps:

    h    = steps * (x - lower) / (upper - lower)              position in units of one code
    code = round(clip(h, 0, steps))                           half to even

Rounding has no useful derivative, so each rule states the gradient G that stands in for it. The gradient through the
clip is ordinary calculus with an *inclusive* mask m = (0 <= h <= steps), because inputs that follow a ReLU sit on the
lower edge by the thousand and must still be able to move it:

    dx = m G steps / (u - l),   dl = sum m G (h - steps) / (u - l),   du = -sum m G h / (u - l)

Forward and backward are written out by hand, so that only `x` is kept for the backward pass and `torch.compile`
fuses each direction into its neighbours. The backward is differentiable again (curvature estimates need that), with
residuals and masks counted as constants.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Literal

import torch
from torch import Tensor, nn


class Rounding(nn.Module, ABC):
    """Base of all rules; see the module's text for the equations."""

    @abstractmethod
    def forward(self, x: Tensor, lower: Tensor, upper: Tensor, steps: int) -> Tensor:
        """Codes 0 .. steps of `x`.

        Args:
            x: real values, any shape.
            lower: value of code 0; one number, or one per channel [C, 1, ...].
            upper: value of code `steps`, shaped like `lower`.
            steps: the highest code.

        Returns:
            Integers as a real tensor, in the shape and dtype of `x`.
        """


class StraightThrough(Rounding):
    """The gradient passes unchanged: G = g.

    Source: Bengio et al. 2013, "Estimating or Propagating Gradients Through Stochastic Neurons"
    (https://arxiv.org/abs/1308.3432).
    """

    def forward(self, x: Tensor, lower: Tensor, upper: Tensor, steps: int) -> Tensor:
        return clip_round(x, lower, upper, steps, None)


class ElementWiseGradientScaling(Rounding):
    r"""Each element's gradient grows or shrinks with its rounding error: G = g (1 + delta sign(g) (h - code) / steps).

    The error is measured in the unit interval, as in the paper. `delta = 0` is the straight-through rule, bit for bit.

    Args:
        delta: a number >= 0 kept for the whole run, or "hessian": starts at 0 and is re-estimated from the curvature
            of the loss by `sqakd.callbacks.hessian_scaling`.

    Source: Lee, Kim, Ham 2021, "Network Quantization with Element-wise Gradient Scaling", equations 4 and 8
    (https://arxiv.org/abs/2104.00903).
    """

    delta: Tensor

    def __init__(self, *, delta: float | Literal["hessian"]) -> None:
        super().__init__()
        self.from_hessian = delta == "hessian"
        if not self.from_hessian and (not isinstance(delta, int | float) or not 0 <= delta < float("inf")):
            raise ValueError(f"delta={delta!r}: expected 'hessian' or a number >= 0, for instance delta=0.001")
        self.register_buffer("delta", torch.tensor(0.0 if self.from_hessian else float(delta)))

    def forward(self, x: Tensor, lower: Tensor, upper: Tensor, steps: int) -> Tensor:
        return clip_round(x, lower, upper, steps, self.delta)


def clip_round(x: Tensor, lower: Tensor, upper: Tensor, steps: int, delta: Tensor | None) -> Tensor:
    """Codes 0 .. steps with the gradient scaled by `delta` (None: straight-through); see the module's text."""
    codes: Tensor = _ClipRound.apply(x, lower, upper, steps, delta)
    return codes


class _ClipRound(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, lower: Tensor, upper: Tensor, steps: int, delta: Tensor | None) -> Tensor:
        return _position(x, lower, upper, steps).clamp_(0, steps).round_().to(x.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, lower, upper, ctx.steps, delta = inputs
        ctx.save_for_backward(x, lower, upper, delta)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, lower, upper, delta = ctx.saved_tensors
        steps, grad = ctx.steps, _at_least_float(grads[0])
        with torch.no_grad():
            h = _position(x, lower, upper, steps)
            clipped = h.clamp(0, steps)
            inside = clipped == h
        if delta is not None:
            with torch.no_grad():
                residual = (clipped - clipped.round()) * (delta / steps)
            grad = grad + grad.abs() * residual
        grad = torch.where(inside, grad, 0.0)
        width = upper - lower
        moment = _sum_to(grad * h, lower)
        d_lower = (moment - steps * _sum_to(grad, lower)) / width
        d_upper = -moment / width
        return (grad * (steps / width)).to(x.dtype), d_lower, d_upper, None, None


def _position(x: Tensor, lower: Tensor, upper: Tensor, steps: int) -> Tensor:
    return (_at_least_float(x) - lower).mul_(steps / (upper - lower))


def _at_least_float(x: Tensor) -> Tensor:
    """Half precision is too coarse to tell a value's nearest code; float64 stays what it is."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def _sum_to(values: Tensor, like: Tensor) -> Tensor:
    """Sum `values` down to the shape of `like` (one number, or one per channel [C, 1, ...])."""
    if like.ndim:
        return values.sum_to_size(like.shape)
    # Per channel first: the compiler then shares one pass with the reductions of a neighbouring batch norm.
    return values.sum(dim=(0, *range(2, values.ndim))).sum()

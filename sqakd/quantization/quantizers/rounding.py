r"""Rounding rules: how a clipped value becomes an integer, and what its gradient is.

A rule maps a real tensor to the integers low .. high, given the value of code 0 (origin o) and the codes per unit
(density d, the reciprocal of the step):

    h    = (x - o) d                                          position in units of one code
    code = clip(round(h), low, high)                          half to even

Rounding has no useful derivative, so each rule states the gradient G that stands in for it. The rest is ordinary
calculus, with a mask m of the elements that are not clipped:

    dx = m G d,   do = -sum m G d,   dd = sum m G (x - o)

The mask is *inclusive*, m = (low <= h <= high), because inputs that follow a ReLU sit on the lower edge by the
thousand and must still be able to move it. torch's own fake-quantize asks the same of round(h), so that half a step
beyond the outermost code still passes: `mask="code"`.

Forward and backward are written out by hand, so that only `x` is kept for the backward pass and `torch.compile`
fuses each direction into its neighbours. The backward is differentiable again (curvature estimates need that), with
residuals and masks counted as constants.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Literal

import torch
from torch import Tensor, nn

Mask = Literal["value", "code"]


class Rounding(nn.Module, ABC):
    """Base of all rules; see the module's text for the equations."""

    @abstractmethod
    def forward(
        self, x: Tensor, origin: Tensor | None, density: Tensor, low: int, high: int, mask: Mask = "value"
    ) -> Tensor:
        """Codes low .. high of `x`.

        Args:
            x: real values, any shape.
            origin: value of code 0; one number, or one per channel [C, 1, ...]; None for 0.
            density: codes per unit, shaped like `origin`.
            low: the lowest code.
            high: the highest code.
            mask: what has to lie in the range for the gradient to pass: the "value" or the rounded "code".

        Returns:
            Integers as a real tensor, in the shape and dtype of `x`.
        """


class StraightThrough(Rounding):
    """The gradient passes unchanged: G = g.

    Source: Bengio et al. 2013, "Estimating or Propagating Gradients Through Stochastic Neurons"
    (https://arxiv.org/abs/1308.3432).
    """

    def forward(
        self, x: Tensor, origin: Tensor | None, density: Tensor, low: int, high: int, mask: Mask = "value"
    ) -> Tensor:
        return clip_round(x, origin, density, low, high, mask, None)


class ElementWiseGradientScaling(Rounding):
    r"""Each element's gradient grows or shrinks with its rounding error.

    G = g (1 + delta sign(g) (h - code) / (high - low)).

    The error is measured in the unit interval, as in the paper. `delta = 0` is the straight-through rule, bit for bit.

    Args:
        delta: a number >= 0 kept for the whole run, or "hessian": starts at 0 and is re-estimated from the curvature
            of the loss by `sqakd.training.callbacks.hessian_scaling`.

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

    def forward(
        self, x: Tensor, origin: Tensor | None, density: Tensor, low: int, high: int, mask: Mask = "value"
    ) -> Tensor:
        return clip_round(x, origin, density, low, high, mask, self.delta)


def clip_round(
    x: Tensor, origin: Tensor | None, density: Tensor, low: int, high: int, mask: Mask, delta: Tensor | None
) -> Tensor:
    """Codes low .. high, the gradient scaled by `delta` (None: straight-through); see the module's text."""
    codes: Tensor = _ClipRound.apply(x, origin, density, low, high, mask, delta)
    return codes


class _ClipRound(torch.autograd.Function):
    @staticmethod
    def forward(
        x: Tensor, origin: Tensor | None, density: Tensor, low: int, high: int, mask: Mask, delta: Tensor | None
    ) -> Tensor:
        return (_from_origin(x, origin) * density).round_().clamp_(low, high).to(x.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, origin, density, ctx.low, ctx.high, ctx.mask, delta = inputs
        ctx.save_for_backward(x, origin, density, delta)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, origin, density, delta = ctx.saved_tensors
        low, high, grad = ctx.low, ctx.high, _at_least_float(grads[0])
        with torch.no_grad():
            distance = _from_origin(x, origin)
            h = distance * density
            rounded = h.round()
            # At the upper edge h may come out one rounding error above `high`; the mask is to include it.
            judged, top = (h, high * (1 + torch.finfo(h.dtype).eps)) if ctx.mask == "value" else (rounded, high)
            inside = judged.clamp(low, top) == judged
            residual = None if delta is None else (h - rounded) * (delta / (high - low))
        if residual is not None:
            grad = grad + grad.abs() * residual
        grad = torch.where(inside, grad, 0.0)
        d_density = _sum_to(grad * distance, density) if ctx.needs_input_grad[2] else None
        d_origin = -_sum_to(grad, density) * density if ctx.needs_input_grad[1] else None
        return (grad * density).to(x.dtype), d_origin, d_density, None, None, None, None


def _from_origin(x: Tensor, origin: Tensor | None) -> Tensor:
    return _at_least_float(x) if origin is None else _at_least_float(x) - origin


def _at_least_float(x: Tensor) -> Tensor:
    """Half precision is too coarse to tell a value's nearest code; float64 stays what it is."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def _sum_to(values: Tensor, like: Tensor) -> Tensor:
    """Sum `values` down to the shape of `like` (one number, or one per channel [C, 1, ...])."""
    if like.ndim:
        return values.sum_to_size(like.shape)
    # Per channel first: the compiler then shares one pass with the reductions of a neighbouring batch norm.
    return values.sum(dim=(0, *range(2, values.ndim))).sum()

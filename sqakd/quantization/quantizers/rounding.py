r"""Rounding rules: the map from a clipped value to an integer, and the gradient of that map.

A rule maps a real tensor to the integers low .. high, given the value of code 0 (origin o) and the codes per unit
(density d, the reciprocal of the step):

    h    = (x - o) d                                          position in units of one code
    code = clip(round(h), low, high)                          half to even

Rounding has no useful derivative, so each rule defines a gradient G in its place, as a function of the incoming
gradient g. The rest is ordinary calculus, with a mask m that is 1 for elements inside the range and 0 for clipped ones:

    dx = m G d,   do = -sum m G d,   dd = sum m G (x - o)

The mask is *inclusive*, m = (low <= h <= high): thousands of inputs that follow a ReLU sit on the lower edge and must
still be able to move it. torch's own fake-quantize applies the condition to round(h) instead, so that half a step
beyond the outermost code still passes; `mask="code"` does the same.

Forward and backward are written out by hand, so that only `x` is kept for the backward pass and `torch.compile`
fuses each direction into its neighbours. The backward pass can be differentiated again, which estimates of the
curvature need; rounding errors and masks count as constants there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sqakd.errors import SqakdError

Mask = Literal["value", "code"]


class Rounding(nn.Module, ABC):
    """Base of all rounding rules; the equations are in the docstring of this module."""

    @abstractmethod
    def forward(
        self, x: Tensor, origin: Tensor | None, density: Tensor, low: int, high: int, mask: Mask = "value"
    ) -> Tensor:
        """Return codes low .. high of `x`.

        Args:
            x: real values, any shape.
            origin: value of code 0; one number, or one per channel [C, 1, ...]; None for 0.
            density: codes per unit, shaped like `origin`.
            low: the lowest code.
            high: the highest code.
            mask: the quantity that has to lie in the range for the gradient to pass: "value" h or "code" round(h).

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
    r"""The gradient of each element grows or shrinks with the element's rounding error.

    G = g (1 + delta sign(g) (h - code) / (high - low)).

    The error is measured in the unit interval, as in the paper. `delta = 0` is the straight-through rule, bit for bit.

    Args:
        delta: a number >= 0 that stays constant for the whole run, or "hessian": `delta` starts at 0 and
            `sqakd.training.callbacks.hessian_scaling` estimates it from the curvature of the loss.

    Raises:
        SqakdError: if `delta` is neither.

    Source: Lee, Kim, Ham 2021, "Network Quantization with Element-wise Gradient Scaling", equations 4 and 8
    (https://arxiv.org/abs/2104.00903).
    """

    delta: Tensor

    def __init__(self, *, delta: float | Literal["hessian"]) -> None:
        super().__init__()
        self.from_hessian = delta == "hessian"
        if not self.from_hessian and (not isinstance(delta, int | float) or not 0 <= delta < float("inf")):
            raise SqakdError(f"delta={delta!r}: expected 'hessian' or a number >= 0, for instance delta=0.001")
        self.register_buffer("delta", torch.tensor(0.0 if self.from_hessian else float(delta)))

    def forward(
        self, x: Tensor, origin: Tensor | None, density: Tensor, low: int, high: int, mask: Mask = "value"
    ) -> Tensor:
        return clip_round(x, origin, density, low, high, mask, self.delta)


def clip_round(
    x: Tensor, origin: Tensor | None, density: Tensor, low: int, high: int, mask: Mask, delta: Tensor | None
) -> Tensor:
    """Return codes low .. high of `x`, with the gradient scaled by `delta` (None: straight-through).

    The equations are in the docstring of this module; the arguments are those of `Rounding.forward`.
    """
    codes: Tensor = _ClipRound.apply(x, origin, density, low, high, mask, delta)
    return codes


class _ClipRound(torch.autograd.Function):
    @staticmethod
    def forward(
        x: Tensor, origin: Tensor | None, density: Tensor, low: int, high: int, mask: Mask, delta: Tensor | None
    ) -> Tensor:
        # In place on the fresh product: eager execution then allocates one tensor instead of three.
        return (_from_origin(x, origin) * density).round_().clamp_(low, high).to(x.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, origin, density, ctx.low, ctx.high, ctx.mask, delta = inputs
        ctx.save_for_backward(x, origin, density, delta)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, origin, density, delta = ctx.saved_tensors
        low, high, grad = ctx.low, ctx.high, _at_least_float(grads[0])
        # Position, mask and rounding error are computed again from `x`, which costs less than to keep them in memory.
        # Without a graph they are constants for a second derivative.
        with torch.no_grad():
            distance = _from_origin(x, origin)
            h = distance * density
            rounded = h.round()
            # A value on the upper edge can give an h one rounding error above `high`; the mask has to include it.
            judged, top = (h, high * (1 + torch.finfo(h.dtype).eps)) if ctx.mask == "value" else (rounded, high)
            inside = judged.clamp(low, top) == judged  # low <= judged <= top
            # Inside the range `rounded` is the code, and outside the mask is 0, so that it needs no clipping here.
            residual = None if delta is None else (h - rounded) * (delta / (high - low))
        if residual is not None:
            # G = g (1 + delta sign(g) e) = g + |g| delta e, with the rounding error e in the unit interval.
            grad = grad + grad.abs() * residual
        grad = torch.where(inside, grad, 0.0)  # m G; not a product, because an infinite G times 0 would be NaN
        d_density = _sum_to(grad * distance, density) if ctx.needs_input_grad[2] else None
        d_origin = -_sum_to(grad, density) * density if ctx.needs_input_grad[1] else None
        return (grad * density).to(x.dtype), d_origin, d_density, None, None, None, None


def _from_origin(x: Tensor, origin: Tensor | None) -> Tensor:
    """Return x - o, at least in single precision."""
    return _at_least_float(x) if origin is None else _at_least_float(x) - origin


def _at_least_float(x: Tensor) -> Tensor:
    """Return half-precision values in single precision, because half is too coarse to find the nearest code."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def _sum_to(values: Tensor, like: Tensor) -> Tensor:
    """Sum `values` down to the shape of `like`: one number, or one per channel [C, 1, ...]."""
    if like.ndim:
        return values.sum_to_size(like.shape)
    # Per channel first: the compiler then shares one pass with the reductions of a neighbouring batch norm.
    return values.sum(dim=(0, *range(2, values.ndim))).sum()

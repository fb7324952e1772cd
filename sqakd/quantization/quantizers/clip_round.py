"""Clip and round with a gradient: the function behind every rounding rule.

The equations are in the docstring of `sqakd.quantization.quantizers.rounding`. Forward and backward are written out by
hand, so that only `x` is kept for the backward pass: position, mask and rounding error are computed again, which costs
less than to keep them in memory.

Each direction has two implementations. The formula serves compilers, which fuse it into its neighbours; GPUs; and the
curvature estimate, which differentiates the gradient again (rounding errors and masks count as constants there). Eager
execution on a CPU uses `sqakd.quantization.quantizers.pieces`.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from sqakd.quantization.quantizers.pieces import pieces, splits

Mask = Literal["value", "code"]
# A compiler puts all sums and the gradient of a small tensor, such as a weight, in one loop if the sums have one stage.
SMALL = 2**18
_clip_gradient = torch.ops.aten.hardtanh_backward.grad_input  # without this name, torch looks it up at each call


class Reach(NamedTuple):
    """The lowest code, the highest code, and the quantity that the mask judges."""

    low: int
    high: int
    mask: Mask

    def limits(self, dtype: torch.dtype) -> tuple[float, float]:
        """Return the open interval in which the judged quantity passes the gradient.

        A value on the upper edge can give an h one rounding error above `high`; the mask has to include it.
        """
        if self.mask == "code":
            return self.low - 0.5, self.high + 0.5
        precision = torch.finfo(dtype)
        below = self.low * (1 + precision.eps) if self.low else -precision.tiny
        return below, self.high * (1 + 2 * precision.eps)


def clip_round(
    x: Tensor, origin: Tensor | None, density: Tensor, low: int, high: int, mask: Mask, delta: Tensor | None
) -> Tensor:
    """Return codes low .. high of `x`, with the gradient scaled by `delta` (None: straight-through).

    `delta` is one number. The other arguments are those of `sqakd.quantization.quantizers.rounding.Rounding.forward`.
    """
    codes: Tensor = _ClipRound.apply(x, origin, density, Reach(low, high, mask), delta)
    return codes


class _ClipRound(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, origin: Tensor | None, density: Tensor, reach: Reach, delta: Tensor | None) -> Tensor:
        if splits(x, density):
            return _codes_in_pieces(x, origin, density, reach)
        # In place on the fresh product: eager execution then allocates one tensor instead of three.
        return _position(x, origin, density).round_().clamp_(reach.low, reach.high).to(x.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, origin, density, ctx.reach, delta = inputs
        ctx.save_for_backward(x, origin, density, delta)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, origin, density, delta = ctx.saved_tensors
        trains = any(ctx.needs_input_grad[1:3])  # not where ranges are frozen
        gradient = _gradient_in_pieces if splits(x, density) else _gradient
        dx, total, moment = gradient(x, grads[0], origin, density, ctx.reach, delta, trains)
        d_origin = None if total is None else -total * density
        d_density = None if moment is None else moment / density
        return dx, d_origin, d_density, None, None


def _gradient(
    x: Tensor, grad: Tensor, origin: Tensor | None, density: Tensor, reach: Reach, delta: Tensor | None, trains: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return m G d, and the sums of m G (None without an origin) and of m G h in the shape of the range.

    `trains`: whether the range is trained; else its sums are None.
    """
    with torch.no_grad():  # constants for a second derivative
        h = _position(x, origin, density)
        rounded = h.round()
        # Inside the range `rounded` is the code, and outside the mask is 0, so that it needs no clipping here.
        residual = None if delta is None else (h - rounded) * _weight(delta, reach)
    # The gradient of a clip applies the mask in one pass. A product with 0 would turn an infinite gradient into NaN.
    judged = h if reach.mask == "value" else rounded
    passed = torch.ops.aten.hardtanh_backward(_at_least_float(grad), judged, *reach.limits(h.dtype))
    if residual is not None:
        passed = passed + passed.abs() * residual
    total = _sum_to(passed, density) if trains and origin is not None else None
    moment = _sum_to(passed * h, density) if trains else None
    return (passed * density).to(x.dtype), total, moment


def _codes_in_pieces(x: Tensor, origin: Tensor | None, density: Tensor, reach: Reach) -> Tensor:
    codes = torch.empty_like(x)
    for part, code, (h,) in pieces(x, codes, buffers=1, dtype=density.dtype):
        rounded = _position(part, origin, density, out=h).round_()
        if code.dtype == h.dtype:
            torch.clamp(rounded, reach.low, reach.high, out=code)
        else:  # torch writes no clipped values in another precision
            code.copy_(rounded.clamp_(reach.low, reach.high))
    return codes


def _gradient_in_pieces(
    x: Tensor, grad: Tensor, origin: Tensor | None, density: Tensor, reach: Reach, delta: Tensor | None, trains: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return what `_gradient` returns, for one range, without the passes over a piece that change nothing.

    With a delta of 0, rounding errors have no part in the result, also where they are not finite.
    """
    dx, totals, moments, limits = torch.empty_like(x), [], [], reach.limits(density.dtype)
    # On a CPU, reading a number takes no synchronisation. A delta of 0, as before the first curvature estimate, is the
    # straight-through rule.
    weight = None if delta is None else float(_weight(delta, reach))
    for part, g, d_part, (h, rounded, passed, size) in pieces(x, grad, dx, buffers=4, dtype=density.dtype):
        _position(part, origin, density, out=h)
        if weight or reach.mask == "code":
            torch.round(h, out=rounded)
        _clip_gradient(_at_least_float(g), h if reach.mask == "value" else rounded, *limits, grad_input=passed)
        if weight:
            error = torch.sub(h, rounded, out=rounded)
            passed.addcmul_(torch.abs(passed, out=size), error, value=weight)
        if trains and origin is not None:
            totals.append(passed.sum())
        if trains:
            moments.append(torch.dot(passed, h))
        torch.mul(passed, density, out=d_part)
    total, moment = (torch.stack(sums).sum() if sums else None for sums in (totals, moments))
    return dx, total, moment


def _weight(delta: Tensor, reach: Reach) -> Tensor:
    """Return the factor of a rounding error in codes: G = g + |g| delta e, with the error e in the unit interval."""
    return delta / (reach.high - reach.low)


def _position(x: Tensor, origin: Tensor | None, density: Tensor, out: Tensor | None = None) -> Tensor:
    """Return h = (x - o) d in a tensor of its own, or in `out`, at least in single precision."""
    x = _at_least_float(x)
    if origin is None:
        return torch.mul(x, density, out=out)
    return torch.sub(x, origin, out=out).mul_(density)


def _at_least_float(x: Tensor) -> Tensor:
    """Return half-precision values in single precision, because half is too coarse to find the nearest code."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def _sum_to(values: Tensor, like: Tensor) -> Tensor:
    """Sum `values` down to the shape of `like`: one number, or one per channel [C, 1, ...]."""
    if like.ndim:
        return values.sum_to_size(like.shape)
    if torch.compiler.is_compiling() and values.numel() <= SMALL:
        return values.sum()
    # Per channel first: the compiler then shares one pass with the reductions of a neighbouring batch norm.
    return values.sum(dim=(0, *range(2, values.ndim))).sum()

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
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn

from sqakd.errors import SqakdError
from sqakd.quantization.quantizers.clip_round import Mask, clip_round


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

    def __init__(self, *, delta: float | Literal["hessian"] = "hessian") -> None:
        super().__init__()
        self.from_hessian = delta == "hessian"
        if not self.from_hessian and (not isinstance(delta, int | float) or not 0 <= delta < float("inf")):
            raise SqakdError(f"delta={delta!r}: expected 'hessian' or a number >= 0, for instance delta=0.001")
        self.register_buffer("delta", torch.tensor(0.0 if self.from_hessian else float(delta)))

    def forward(
        self, x: Tensor, origin: Tensor | None, density: Tensor, low: int, high: int, mask: Mask = "value"
    ) -> Tensor:
        return clip_round(x, origin, density, low, high, mask, self.delta)

r"""Residual sums on integers: `residual_bits`.

With b bits, a learned step s > 0 and rounding to the nearest whole number:

    branch   p = clip(round(branch / s), -2**(b-1), 2**(b-1) - 1)
    shortcut r = clip(round(shortcut / s), 0, 2**b - 1), or as p if the shortcut has negative values
    output     = s clip(p + r, 0, 2**b - 1)

All sums of a network have the same step, so that p, r and the output are whole multiples of one number. A sum of codes
is then exact in integers, and hardware needs no multiplication for it. The step is an LSQ step (Esser et al. 2020,
https://arxiv.org/abs/1902.08153), with LSQ's gradient for the number of elements of a branch; N differs from sum to
sum. It starts where no value of the calibration batch is clipped. As in a ReLU, the ends of the output's range, 0 and
2**b - 1, pass no gradient.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from sqakd.errors import SqakdError
from sqakd.numbers import is_whole
from sqakd.quantization.layers import twin
from sqakd.quantization.quantizers.base import MAX_BITS
from sqakd.quantization.quantizers.lsq import LearnedStep
from sqakd.sums import ResidualSum

MIN_BITS = 4  # fewer codes, spread over the largest values, would make nearly all sums 0


class QuantResidualSum(ResidualSum):
    """A residual sum on integers; made from a `ResidualSum` by `quantize_sums`.

    Attributes:
        branch: quantizer of the first operand, with signed codes.
        shortcut: quantizer of the second operand; its codes are signed if the operand has negative values when the
            network is calibrated.
        covering_step: while the network is calibrated, the step that covers all values so far; None otherwise. Nothing
            is rounded while there is one.
    """

    branch: LearnedStep
    shortcut: LearnedStep
    covering_step: Tensor | None = None

    @property
    def step(self) -> Tensor:
        """The step that all sums of the network share."""
        return self.branch.step

    @property
    def quantizers(self) -> tuple[LearnedStep, LearnedStep]:
        """Quantizer of the branch and quantizer of the shortcut, always in this order."""
        return self.branch, self.shortcut

    @property
    def high(self) -> int:
        """The highest code of the output; the lowest is 0."""
        return self.branch.steps

    def forward(self, branch: Tensor, shortcut: Tensor) -> Tensor:
        if self.covering_step is not None:
            return self._measured(branch, shortcut)
        # One step for both operands: their parts of its gradient cancel unless they have the same factor.
        step = self.branch.scaled_step(branch.numel())
        codes = self.branch.integers(branch, 1 / step) + self.shortcut.integers(shortcut, 1 / step)
        total = codes.clamp(0, self.high)
        # Codes of 8 bits times a step need more digits than bfloat16 has, so the output is float32 under autocast too.
        return total.to(torch.promote_types(total.dtype, step.dtype)) * step

    def _measured(self, branch: Tensor, shortcut: Tensor) -> Tensor:
        """Return the real sum, and remember the step that clips no value."""
        assert self.covering_step is not None
        total = super().forward(branch, shortcut)
        if not self.shortcut.signed and bool((shortcut < 0).any()):
            self.shortcut.signed = True
            # Values of an earlier call were measured for unsigned codes, whose range is twice as large.
            self.covering_step = self.covering_step * self.high / self.shortcut.high
        ends = ((branch, self.branch.high), (shortcut, self.shortcut.high), (total, self.high))
        self.covering_step = torch.stack(
            [self.covering_step, *(x.abs().max().float() / high for x, high in ends)]
        ).max()
        return total


def residual_sums(model: nn.Module) -> list[tuple[str, QuantResidualSum]]:
    """Return name and module of each residual sum on integers, in network order."""
    return [(name, module) for name, module in model.named_modules() if isinstance(module, QuantResidualSum)]


def checked_residual_bits(bits: int | None) -> int | None:
    """Return the bits of residual sums if they are allowed; None: the sums stay real.

    Raises:
        SqakdError: if they are no whole number from 4 to 8.
    """
    if bits is not None and not (is_whole(bits) and MIN_BITS <= bits <= MAX_BITS):
        raise SqakdError(
            f"residual_bits={bits!r}: expected a whole number from {MIN_BITS} to {MAX_BITS}, or null, which leaves"
            f" residual sums real"
        )
    return bits


def quantize_sums(model: nn.Module, bits: int, *, power_of_two: bool = False) -> None:
    """Quantize each residual sum of a network, in place.

    Args:
        model: network with `sqakd.sums.ResidualSum` modules.
        bits: bits of each operand and of the result.
        power_of_two: whether the step is the nearest power of two.

    Raises:
        SqakdError: if the network has no such module.
    """
    step = nn.Parameter(torch.ones(()))
    twins: dict[nn.Module, QuantResidualSum] = {}
    for name, module in list(model.named_modules(remove_duplicate=False)):  # blocks may share one module
        if type(module) is not ResidualSum:  # a subclass may compute something else
            continue
        if module not in twins:
            made = twins[module] = twin(module, QuantResidualSum)
            made.branch = LearnedStep(bits=bits, signed=True, power_of_two=power_of_two)
            made.shortcut = LearnedStep(bits=bits, signed=False, power_of_two=power_of_two)
            made.branch.step = made.shortcut.step = step
        model.set_submodule(name, twins[module])
    if not twins:
        raise SqakdError(
            f"residual_bits={bits}: {type(model).__name__} has no module ResidualSum, the class whose sums are rounded;"
            f" expected residual_bits=null, or a network with such modules",
            topic="quantization.no_sum",
        )


def to_real_sums(model: nn.Module) -> None:
    """Undo `quantize_sums`, in place."""
    twins: dict[nn.Module, ResidualSum] = {}
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if isinstance(module, QuantResidualSum):
            if module not in twins:
                made = twins[module] = twin(module, ResidualSum)
                del made.branch, made.shortcut
            model.set_submodule(name, twins[module])


@contextmanager
def calibrating_sums(model: nn.Module) -> Iterator[None]:
    """Let the sums that have no step yet stay real in the block, measure their values, and set their step at its end.

    Raises:
        SqakdError: if the sums have no values but zero, or values that are not finite.
    """
    sums = [module for _, module in residual_sums(model) if not module.branch.calibrated]
    for module in sums:
        module.covering_step, module.shortcut.signed = torch.zeros((), device=module.step.device), False
    try:
        yield
        if sums:
            _set_step(sums)
    finally:
        for module in sums:
            module.covering_step = None


@torch.no_grad()
def _set_step(sums: Sequence[QuantResidualSum]) -> None:
    """Set the shared step of sums that were measured."""
    step = torch.stack([module.covering_step for module in sums if module.covering_step is not None]).max()
    if not 0 < step < torch.inf:
        raise SqakdError(
            f"the values of the residual sums need a step of {float(step):g}; expected finite values other than zero"
        )
    if sums[0].branch.power_of_two:
        step = torch.exp2(torch.log2(step).ceil())
    sums[0].step.copy_(step)
    for module in sums:
        for quantizer in module.quantizers:
            quantizer.calibrated.fill_(True)

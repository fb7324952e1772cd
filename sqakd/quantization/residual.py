r"""Residual sums on integers: `residual_bits`.

With b bits, a learned step s > 0 and rounding to the nearest whole number:

    branch   p = clip(round(branch / s), -2**(b-1), 2**(b-1) - 1)
    shortcut r = clip(round(shortcut / s), 0, 2**b - 1), or as p if the shortcut has negative values
    output   = s clip(p + r, 0, 2**b - 1), or with the range of p if no ReLU ends the sum (`ResidualSum(relu=False)`)

All sums of a network have the same step, so that p, r and the output are whole multiples of one number. A sum of codes
is then exact in integers, and hardware needs no multiplication for it. The step is an LSQ step (Esser et al. 2020,
https://arxiv.org/abs/1902.08153), with LSQ's gradient for the number of elements of a branch; N differs from sum to
sum. It starts where no value of the calibration batch is clipped. As in a ReLU, the ends of the output's range
pass no gradient.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from sqakd.errors import SqakdError
from sqakd.numbers import MAX_BITS, is_whole
from sqakd.quantization.layers import twin
from sqakd.quantization.quantizers.lsq import LearnedStep
from sqakd.sums import ResidualSum

MIN_BITS = 4  # fewer codes, spread over the largest values, would make nearly all sums 0


class QuantResidualSum(ResidualSum):
    """A residual sum on integers; made from a `ResidualSum` by `quantize_sums`.

    Attributes:
        quantizer: quantizer of the branch, with signed codes; one module for all sums of a network. A shared parameter
            would become several parameters where a network moves to a device of another kind.
        signed_shortcut: whether the codes of the shortcut are signed too: whether the shortcut has negative values when
            the network is calibrated.
        covering_step: while the network is calibrated, the step that covers all values so far; None otherwise. Nothing
            is rounded while there is one.
    """

    quantizer: LearnedStep
    signed_shortcut: bool = False
    covering_step: Tensor | None = None

    @property
    def output_range(self) -> tuple[int, int]:
        """The lowest and the highest code of the output."""
        return (0, self.quantizer.steps) if self.relu else (self.quantizer.low, self.quantizer.high)

    @property
    def shortcut_range(self) -> tuple[int, int]:
        """The lowest and the highest code of the shortcut."""
        return (self.quantizer.low, self.quantizer.high) if self.signed_shortcut else (0, self.quantizer.steps)

    @property
    def operands(self) -> tuple[LearnedStep, LearnedStep]:
        """Quantizers of branch and shortcut, each by itself: copies, for those who read codes."""
        branch, shortcut = copy.deepcopy(self.quantizer), copy.deepcopy(self.quantizer)
        shortcut.signed = self.signed_shortcut
        return branch, shortcut

    def forward(self, branch: Tensor, shortcut: Tensor) -> Tensor:
        if self.covering_step is not None:
            return self._measured(branch, shortcut)
        # One step for both operands: their parts of its gradient cancel unless they have the same factor.
        step = self.quantizer.scaled_step(branch.numel())
        codes: Tensor = self.quantizer.integers(branch, 1 / step)
        codes = codes + self.quantizer.rounding(shortcut, None, 1 / step, *self.shortcut_range)
        total = codes.clamp(*self.output_range)
        # Codes of 8 bits times a step need more digits than bfloat16 has, so the output is float32 under autocast too.
        return total.to(torch.promote_types(total.dtype, step.dtype)) * step

    def _measured(self, branch: Tensor, shortcut: Tensor) -> Tensor:
        """Return the real sum, and remember the step that clips no value."""
        assert self.covering_step is not None
        total = super().forward(branch, shortcut)
        if not self.signed_shortcut and bool((shortcut < 0).any()):
            self.signed_shortcut = True
            # Values of an earlier call were measured for unsigned codes, whose range is twice as large.
            self.covering_step = self.covering_step * self.quantizer.steps / self.quantizer.high
        ends = ((branch, self.quantizer.high), (shortcut, self.shortcut_range[1]), (total, self.output_range[1]))
        steps = [x.abs().max().float() / high for x, high in ends]
        self.covering_step = torch.stack([self.covering_step, *steps]).max()
        return total

    def get_extra_state(self) -> Tensor:
        """Return whether the shortcut has signed codes, as a tensor, because checkpoints hold plain data only."""
        return torch.tensor(self.signed_shortcut)

    def set_extra_state(self, state: Tensor) -> None:
        self.signed_shortcut = bool(state)


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
    quantizer = LearnedStep(bits=bits, signed=True, power_of_two=power_of_two)
    twins: dict[nn.Module, QuantResidualSum] = {}
    for name, module in list(model.named_modules(remove_duplicate=False)):  # blocks may share one module
        if type(module) is not ResidualSum:  # a subclass may compute something else
            continue
        if module not in twins:
            twins[module] = twin(module, QuantResidualSum)
            twins[module].quantizer = quantizer
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
                del made.quantizer
                made.__dict__.pop("signed_shortcut", None)
            model.set_submodule(name, twins[module])


@contextmanager
def calibrating_sums(model: nn.Module) -> Iterator[None]:
    """Let the sums that have no step yet stay real in the block, measure their values, and set their step at its end.

    Raises:
        SqakdError: if the sums have no values but zero, or values that are not finite.
    """
    sums = [module for _, module in residual_sums(model) if not module.quantizer.calibrated]
    for module in sums:
        module.covering_step, module.signed_shortcut = torch.zeros((), device=module.quantizer.step.device), False
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
    quantizer = sums[0].quantizer  # that of all
    if quantizer.power_of_two:
        step = torch.exp2(torch.log2(step).ceil())
    quantizer.step.copy_(step)
    quantizer.calibrated.fill_(True)

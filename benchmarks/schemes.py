"""Quantizers for the benchmarks of exports."""

from __future__ import annotations

from functools import partial

from sqakd.quantization.convert import Scheme
from sqakd.quantization.quantizers.lsq import LearnedStep
from sqakd.quantization.quantizers.rounding import StraightThrough


def lsq(bits: int) -> Scheme:
    """Return LSQ as its paper describes it, with float first and last layers."""
    step = partial(LearnedStep, bits=bits, mask="value", decay=0.0, start="paper")
    return Scheme(
        weight=partial(step, signed=True),
        input=partial(step, signed="auto"),
        rounding=StraightThrough,
        per_channel=False,
        output_scale=False,
        first_last="float",
        start=None,
        outer="float",
    )

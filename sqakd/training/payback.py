"""Estimate of the time that compiling the training step saves and costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from sqakd.quantization.layers import QuantLayer
from sqakd.terminal import duration
from sqakd.training.code_cache import Times

# For steps that were never compiled: cautious guesses of the order of the times in benchmarks/README.md.
SECONDS_PER_LAYER = 1.0
SECONDS_PER_QUANTIZED_LAYER = 4.0
WARM = 0.15  # share of the time of compilation that loading compiled code takes
FASTER = 0.9  # time of a compiled step relative to an eager one
FASTER_QUANTIZED = 0.7
MARGIN = 1.5  # both sides are estimates, and a long wait for a small gain helps nobody


@dataclass(frozen=True)
class Payback:
    """Seconds that compilation saves and costs in the rest of a training.

    Attributes:
        steps: steps that are left.
        saves: seconds.
        costs: seconds.
        cached: whether the code was compiled before.
    """

    steps: int
    saves: float
    costs: float
    cached: bool

    @property
    def pays(self) -> bool:
        return self.saves > MARGIN * self.costs

    def pays_for(self, share: float) -> bool:
        """Return whether compiling the evaluation pays as well.

        An evaluation is a forward pass of the student, about a quarter of a step. Its compilation costs about a quarter
        too, so that the two quarters cancel out.

        Args:
            share: images that are left to evaluate, relative to those that are left to train on.
        """
        return share * self.saves > MARGIN * self.costs

    @property
    def price(self) -> str:
        return f"costs about {duration(self.costs)}{' (cached)' if self.cached else ''}"

    def __str__(self) -> str:
        """Return one line.

        Example:
            >>> print(Payback(4300, 180, 70, True))
            4,300 steps left, saves about 3 min, costs about 70 s (cached)
        """
        return f"{self.steps:,} steps left, saves about {duration(self.saves)}, {self.price}"


def payback(known: Times, *, eager: float, steps: int, networks: Sequence[nn.Module], graphs: int) -> Payback:
    """Estimate what compilation brings.

    Args:
        known: times of earlier runs of the same kind.
        eager: seconds of an eager step of this run.
        steps: steps that are left.
        networks: student and teacher.
        graphs: number of different graphs until the end, e.g. 3 if the bits change twice.
    """
    quantized, layers = count_layers(networks)
    if known.eager is not None and known.compiled is not None:
        share = known.compiled / known.eager
    else:
        share = FASTER_QUANTIZED if quantized else FASTER
    cold = known.cold or SECONDS_PER_LAYER * layers + SECONDS_PER_QUANTIZED_LAYER * quantized
    cached = known.cold is not None or known.warm is not None
    costs = (known.warm or WARM * cold) if cached else cold
    return Payback(steps, max(0.0, steps * eager * (1 - share)), costs * graphs, cached)


def count_layers(networks: Sequence[nn.Module]) -> tuple[int, int]:
    """Return the numbers of quantized layers and of other convolutions and linear layers."""
    layers = [m for network in networks for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    quantized = sum(isinstance(layer, QuantLayer) for layer in layers)
    return quantized, len(layers) - quantized

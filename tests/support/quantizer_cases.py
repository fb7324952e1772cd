"""Test cases for every method of conf/quantizer: weights, inputs after a ReLU, and signed inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import command
import small
import torch
from torch import Tensor

from sqakd.quantization.convert import Scheme
from sqakd.quantization.quantizers.base import Quantizer

FOLDER = command.ROOT / "conf" / "quantizer"
METHODS = sorted(file.stem for file in FOLDER.glob("*.yaml") if file.stem != "none")
ROUNDINGS = sorted(file.stem for file in (FOLDER / "rounding").glob("*.yaml"))
BITS = (1, 2, 3, 4, 8)
KINDS = ("weight", "channels", "input", "signed")
CHANNELS = 6


def scheme_of(method: str, rounding: str | None = None) -> Scheme:
    overrides = [] if rounding is None else [f"quantizer/rounding={rounding}"]
    return small.scheme(f"quantizer={method}", "w_bits=3", "a_bits=5", *overrides)


@dataclass(frozen=True)
class Case:
    """One method for one kind of tensor."""

    method: str
    kind: str
    bits: int
    rounding: str | None = None

    def __str__(self) -> str:
        rounding = "" if self.rounding is None else f"-{self.rounding}"
        return f"{self.method}{rounding}-{self.kind}-{self.bits}"

    def make(self, **changes: Any) -> Quantizer:
        scheme = scheme_of(self.method, self.rounding)
        factory = scheme.weight if self.kind in ("weight", "channels") else scheme.input
        shape = (CHANNELS, 1, 1, 1) if self.kind == "channels" else ()
        return factory(**{"rounding": scheme.rounding(), "shape": shape, "bits": self.bits} | changes)

    def calibrated(self) -> Quantizer:
        quantizer = self.make()
        quantizer.calibrate(self.typical())
        return quantizer

    def typical(self) -> Tensor:
        """Return the tensor for the calibration: [6, 5, 4, 4], standard deviation 1."""
        x = torch.randn(CHANNELS, 5, 4, 4, generator=torch.Generator().manual_seed(0))
        return x.relu() if self.kind == "input" else x

    def wide(self) -> Tensor:
        """Return a tensor that also has values far outside any range, and far inside."""
        x = self.typical()
        return x * torch.logspace(-1, 1.5, x[0].numel()).view_as(x[0])

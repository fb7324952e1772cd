"""A comparison of a calibrated network with its float network: values that grow or shrink from layer to layer.

Batch norm absorbs a wrong scale of a layer's output. A network without batch norm hands the wrong scale on, so that
the error of each layer multiplies that of the layers before. DoReFa and PACT scale each weight to [-1, 1], whatever its
size was, so their outputs are several times too large.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sqakd.quantization.calibrate import visit
from sqakd.quantization.layers import QuantLayer, quant_layers
from sqakd.quantization.probe import buffers_restored

LOGITS = "the logits"
# The networks of table 6 and of the digits have at most 1.5 and 0.57, except for those that break: docs/tables.md.
MOST_FACTOR = 3.0
MOST_AT_TOP = 2 / 3


@dataclass(frozen=True)
class Balance:
    """The scale of one tensor in the quantized network.

    Attributes:
        place: name of the layer whose input it is, or `LOGITS`.
        ratio: its standard deviation divided by that in the float network.
        at_top: share of its values at the highest code; 0 for the logits, and for one bit, where that is half of the
            codes.
    """

    place: str
    ratio: float
    at_top: float

    @property
    def factor(self) -> float:
        """The factor by which the scale is wrong, in either direction; at least 1, infinite for a ratio of 0."""
        return max(self.ratio, 1 / self.ratio) if self.ratio > 0 and math.isfinite(self.ratio) else math.inf


def describe_imbalance(found: list[Balance]) -> str | None:
    """Describe the worst tensors whose scale is wrong by more than `MOST_FACTOR`, or saturated beyond `MOST_AT_TOP`.

    Args:
        found: result of `balances`.

    Returns:
        One line, or None if no tensor is out of balance.

    Example:
        >>> describe_imbalance([Balance("a", 1.2, 0.1), Balance("b", 30.0, 0.2), Balance("c", 0.9, 0.8)])
        'inputs of b spread 30 times as widely as in the float network; 80% of the inputs of c have the highest code'
        >>> describe_imbalance([Balance("a", 1.2, 0.1)])
    """
    parts = []
    wide, full = max(found, key=lambda one: one.factor), max(found, key=lambda one: one.at_top)
    if wide.factor > MOST_FACTOR:
        place = wide.place if wide.place == LOGITS else f"inputs of {wide.place}"
        parts.append(f"{place} spread {wide.ratio:.2g} times as widely as in the float network")
    if full.at_top > MOST_AT_TOP:
        parts.append(f"{100 * full.at_top:.0f}% of the inputs of {full.place} have the highest code")
    return "; ".join(parts) or None


@torch.no_grad()
def balances(model: nn.Module, images: Tensor) -> list[Balance]:
    """Return the scales of the inputs of all quantized layers, in the order of running, and of the logits.

    The network runs twice in training mode, because batch norm then uses the statistics of the batch, as in the first
    training step. Buffers and random numbers are as before afterwards.

    Args:
        model: calibrated network.
        images: normalised batch [N, C, H, W], at best that of the calibration.
    """
    with _as_float(model):
        floats = _run(model, images)
    quantized = _run(model, images)
    found = []
    for place, (spread, at_top) in quantized.items():
        reference = floats[place][0]
        found.append(Balance(place, spread / reference if reference > 0 else math.inf, at_top))
    return found


def _run(model: nn.Module, images: Tensor) -> dict[str, tuple[float, float]]:
    """Return standard deviation and share at the highest code of each layer's input; a layer's last run counts."""
    found: dict[str, tuple[float, float]] = {}

    def look(name: str, layer: QuantLayer, x: Tensor) -> None:
        quantizer = layer.input_quantizer
        at_top = (quantizer.encode(x)[0] == quantizer.grid()[-1]).float().mean() if quantizer.bits > 1 else 0.0
        found[name] = float(x.float().std()), float(at_top)

    def note(module: nn.Module, args: object, output: Tensor) -> None:
        found[LOGITS] = float(output.float().std()), 0.0

    devices = [images.device] if images.device.type == "cuda" else []
    with buffers_restored(model), torch.random.fork_rng(devices=devices):
        torch.manual_seed(0)  # both passes drop the same activations
        handle = model.register_forward_hook(note)
        try:
            visit(model, images, look, training=True)
        finally:
            handle.remove()
    return found


@contextmanager
def _as_float(model: nn.Module) -> Iterator[None]:
    """Let the quantized layers compute without any rounding during the block."""
    layers = [layer for _, layer in quant_layers(model)]
    for layer in layers:
        layer.__dict__["forward"] = lambda x, layer=layer: layer.apply_op(x, layer.weight, layer.bias)
    try:
        yield
    finally:
        for layer in layers:
            del layer.__dict__["forward"]

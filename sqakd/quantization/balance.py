"""A comparison of a calibrated network with its float network: values that grow or shrink from layer to layer.

Batch norm absorbs a wrong scale of a layer's output. A network without batch norm hands the wrong scale on, so that
the error of each layer multiplies that of the layers before. DoReFa and PACT scale each weight to [-1, 1], whatever its
size was, so their outputs are several times too large.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sqakd.quantization.calibrate import visit
from sqakd.quantization.convert import dequantize
from sqakd.quantization.layers import QuantLayer, quant_layers
from sqakd.quantization.probe import buffers_restored, hooks_removed

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

    The quantized network and a float copy of it run once each in training mode, because batch norm then uses the
    statistics of the batch, as in the first training step. The network and the random numbers are as before afterwards.

    Args:
        model: calibrated network.
        images: normalised batch [N, C, H, W], at best that of the calibration.
    """
    names = [name for name, _ in quant_layers(model)]
    spreads: dict[str, float] = {}
    at_top: dict[str, float] = {LOGITS: 0.0}

    def look(name: str, layer: QuantLayer, x: Tensor) -> None:
        quantizer = layer.input_quantizer
        spreads[name] = float(x.float().std())
        top = quantizer.grid()[-1]
        at_top[name] = float((quantizer.encode(x)[0] == top).float().mean()) if quantizer.bits > 1 else 0.0

    with buffers_restored(model), _logits_noted(model, images, spreads):
        visit(model, images, look, training=True)
    reference = copy.deepcopy(model)
    dequantize(reference)
    floats = _float_spreads(reference, names, images)
    return [
        Balance(place, spread / floats[place] if floats[place] > 0 else math.inf, at_top[place])
        for place, spread in spreads.items()
    ]


def _float_spreads(model: nn.Module, names: Iterable[str], images: Tensor) -> dict[str, float]:
    """Return the standard deviation of the input of each named layer, and of the logits; a layer's last run counts."""
    spreads: dict[str, float] = {}

    def recorder(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def note(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            spreads[name] = float(args[0].float().std())

        return note

    hooks = hooks_removed(model.get_submodule(name).register_forward_pre_hook(recorder(name)) for name in names)
    with hooks, _logits_noted(model, images, spreads):
        model.train()(images)
    return spreads


@contextmanager
def _logits_noted(model: nn.Module, images: Tensor, spreads: dict[str, float]) -> Iterator[None]:
    """Run the block, which runs the network, and note the standard deviation of the logits; the same units drop out."""

    def note(module: nn.Module, args: object, output: Tensor) -> None:
        spreads[LOGITS] = float(output.float().std())

    devices = [images.device] if images.device.type == "cuda" else []
    with hooks_removed([model.register_forward_hook(note)]), torch.random.fork_rng(devices=devices):
        torch.manual_seed(0)
        yield

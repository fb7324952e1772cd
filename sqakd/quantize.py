"""Swap the layers of a float network for quantized ones and back; calibrate them; tell their parameters apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from sqakd.layers import QuantConv2d, QuantLayer, QuantLinear
from sqakd.quantizers.base import Quantizer
from sqakd.quantizers.rounding import Rounding

TWINS: dict[type[nn.Module], type[QuantLayer]] = {nn.Conv2d: QuantConv2d, nn.Linear: QuantLinear}
FirstLast = Literal["float", "8", "same"]


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """How a network is quantized: range x rounding for weights and for inputs, and what the outer layers get.

    Attributes:
        weight: makes a weight quantizer when called with `rounding=` (and `bits=` for 8-bit outer layers).
        input: the same for the layer's input activation.
        rounding: makes a rounding rule; each quantizer gets its own.
        output_scale: whether a layer has a learned factor on its output.
        first_last: the first and the last layer stay "float" (as in the papers), get "8" bits, or the "same" bits.
    """

    weight: Callable[..., Quantizer]
    input: Callable[..., Quantizer]
    rounding: Callable[[], Rounding]
    output_scale: bool
    first_last: FirstLast

    def __post_init__(self) -> None:
        if str(self.first_last) not in ("float", "8", "same"):
            raise ValueError(f"first_last={self.first_last!r}: expected float, 8 or same")

    def check(self) -> None:
        """Make one quantizer of each kind, so that wrong bits are refused before anything is trained."""
        for quantizer in (self.weight, self.input):
            quantizer(rounding=self.rounding())

    def convert(self, layer: nn.Module, **bits: int) -> QuantLayer:
        """The quantized twin of a Conv2d or Linear; `bits=8` overrides the scheme's own."""

        def make(quantizer: Callable[..., Quantizer]) -> Quantizer:
            return quantizer(rounding=self.rounding(), **bits)

        return TWINS[type(layer)].from_float(
            layer,
            weight=partial(make, self.weight),
            input=partial(make, self.input),
            output_scale=self.output_scale,
        )


def quantize(model: nn.Module, scheme: Scheme) -> list[str]:
    """Swap the convolutions and linear layers of a float network, in place.

    Args:
        model: any network; layers are taken in the order in which the modules are registered.
        scheme: what to swap them for.

    Returns:
        Names of the layers that are quantized now, in order.

    Raises:
        ValueError: if the network has no layer to quantize, or is quantized already.
    """
    if any(True for _ in quant_layers(model)):
        raise ValueError("the network is quantized already; quantize a float network")
    names = [name for name, module in model.named_modules() if type(module) in TWINS]
    outer = {names[0], names[-1]} if names else set()
    swapped = []
    for name in names:
        if name in outer and scheme.first_last == "float":
            continue
        bits = {"bits": 8} if name in outer and str(scheme.first_last) == "8" else {}
        model.set_submodule(name, scheme.convert(model.get_submodule(name), **bits))
        swapped.append(name)
    if not swapped:
        raise ValueError(
            f"found {len(names)} Conv2d and Linear layers and none to quantize with first_last={scheme.first_last};"
            f" the first and the last layer stay float, so a network needs three, or type quantizer.first_last=same"
        )
    return swapped


def dequantize(model: nn.Module) -> list[str]:
    """Put the float layers back, in place; undoes `quantize`, the trained weights stay. Returns their names."""
    names = [name for name, _ in quant_layers(model)]
    for name in names:
        layer = model.get_submodule(name)
        assert isinstance(layer, QuantLayer)
        model.set_submodule(name, layer.to_float())
    return names


def quant_layers(model: nn.Module) -> Iterator[tuple[str, QuantLayer]]:
    """Name and layer of each quantized layer, in network order."""
    return ((name, module) for name, module in model.named_modules() if isinstance(module, QuantLayer))


@torch.no_grad()
def visit(model: nn.Module, images: Tensor, look: Callable[[str, QuantLayer, Tensor], None], *, training: bool) -> None:
    """Run a quantized network once and call `look` before each quantized layer runs, in the order of running.

    Args:
        model: left in the mode in which it was.
        images: normalised batch [N, C, H, W].
        look: takes the layer's name, the layer and its input.
        training: whether to run in training mode (batch norm then uses and updates its batch statistics).
    """

    def before(layer: nn.Module, args: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, QuantLayer)
        look(names[layer], layer, args[0])

    names = {layer: name for name, layer in quant_layers(model)}
    hooks = [layer.register_forward_pre_hook(before) for layer in names]
    was_training = model.training
    try:
        model.train(training)(images)
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()


def calibrate(model: nn.Module, images: Tensor) -> None:
    """Set every quantizer from one batch, in the order in which the layers run.

    A later layer sees inputs made by already quantized earlier ones. Batch norm runs in training mode, so its
    statistics move by one momentum step, as in EWGS.

    Args:
        model: a quantized, not yet calibrated network.
        images: one normalised training batch [N, C, H, W].
    """

    def look(name: str, layer: QuantLayer, x: Tensor) -> None:
        try:
            layer.calibrate(x)
        except ValueError as error:
            raise ValueError(f"layer {name}: {error}") from error

    visit(model, images, look, training=True)
    unused = [name for name, layer in quant_layers(model) if not layer.input_quantizer.calibrated]
    if unused:
        raise ValueError(f"these layers take no part in the forward pass, so they have no range: {', '.join(unused)}")


def split_parameters(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """(network parameters, quantizer parameters), told apart by the module that owns them, not by name."""
    quantizer: dict[nn.Parameter, None] = {}
    for module in model.modules():
        if isinstance(module, Quantizer):
            quantizer.update(dict.fromkeys(module.parameters()))
        elif isinstance(module, QuantLayer) and module.output_scale is not None:
            quantizer[module.output_scale] = None
    network = [p for p in model.parameters() if p not in quantizer]
    return network, list(quantizer)

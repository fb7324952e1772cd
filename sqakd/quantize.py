"""Swap the layers of a float network for quantized ones and back; calibrate them; tell their parameters apart."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from sqakd.layers import QuantConv2d, QuantLayer, QuantLinear
from sqakd.quantizers.base import Quantizer
from sqakd.quantizers.rounding import ElementWiseGradientScaling, Rounding
from sqakd.selection import by_kind, select

TWINS: dict[type[nn.Module], type[QuantLayer]] = {nn.Conv2d: QuantConv2d, nn.Linear: QuantLinear}
FirstLast = Literal["float", "8", "same", "first"]


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """How a network is quantized: range x rounding for weights and for inputs, and what the outer layers get.

    Attributes:
        weight: makes a weight quantizer when called with `rounding=`, `shape=` (and `bits=` for 8-bit outer layers).
        input: the same for the layer's input activation.
        rounding: makes a rounding rule; each quantizer gets its own.
        per_channel: whether each output channel of a weight has its own range.
        output_scale: whether a layer has a learned factor on its output.
        first_last: the first and the last layer stay "float" (as in the papers), get "8" bits, or the "same" bits;
            "first": only the first layer stays float.
    """

    weight: Callable[..., Quantizer]
    input: Callable[..., Quantizer]
    rounding: Callable[[], Rounding]
    per_channel: bool
    output_scale: bool
    first_last: FirstLast

    def __post_init__(self) -> None:
        if str(self.first_last) not in ("float", "8", "same", "first"):
            raise ValueError(f"first_last={self.first_last!r}: expected float, 8, same or first")
        for key in ("per_channel", "output_scale"):
            if not isinstance(getattr(self, key), bool):  # any other word would count as true
                raise ValueError(f"quantizer.{key}={getattr(self, key)!r}: expected true or false")

    def check(self) -> None:
        """Make one quantizer of each kind, so that wrong bits are refused before anything is trained."""
        for quantizer in (self.weight, self.input):
            quantizer(rounding=self.rounding(), shape=())

    def convert(self, layer: nn.Module, **bits: int) -> QuantLayer:
        """The quantized twin of a Conv2d or Linear; `bits=8` overrides the scheme's own."""

        def make(quantizer: Callable[..., Quantizer], shape: tuple[int, ...]) -> Quantizer:
            return quantizer(rounding=self.rounding(), shape=shape, **bits)

        return TWINS[type(layer)].from_float(
            layer,
            weight=partial(make, self.weight),
            input=partial(make, self.input),
            output_scale=self.output_scale,
            per_channel=self.per_channel,
        )


def quantize(
    model: nn.Module,
    scheme: Scheme,
    *,
    first: Sequence[str] | None = None,
    image_shape: tuple[int, int, int] | None = None,
) -> list[str]:
    """Swap the convolutions and linear layers of a float network, in place.

    Whatever else has weights stays float, and one warning names it.

    Args:
        model: any network; layers are taken in the order in which the modules are registered.
        scheme: what to swap them for.
        first: modules whose layers all count as first; None: the first layer is the first.
        image_shape: channels, height, width. With it the network runs once, and layers that are never called (some
            networks read their weights instead) stay float too.

    Returns:
        Names of the layers that are quantized now, in order.

    Raises:
        ValueError: if the network has no layer to quantize, lacks a module of `first`, or is quantized already.
    """
    if any(True for _ in quant_layers(model)):
        raise ValueError("the network is quantized already; quantize a float network")
    found = select(model, types=TWINS, first=first, image_shape=image_shape)
    swapped = {}
    for layer in found.layers:
        if (layer in found.outer and scheme.first_last == "float") or (
            layer in found.first and scheme.first_last == "first"
        ):
            continue
        bits = {"bits": 8} if layer in found.outer and str(scheme.first_last) == "8" else {}
        swapped[layer] = scheme.convert(layer, **bits)
    if not swapped:
        raise ValueError(
            f"found {len(found.layers)} Conv2d and Linear layers and none to quantize with"
            f" first_last={scheme.first_last}; the first and the last layer stay float, so a network needs three, or"
            f" type quantizer.first_last=same"
        )
    if found.others:
        warnings.warn(f"these parts of the network stay float: {by_kind(found.others)}", stacklevel=2)
    _replace(model, swapped)
    return [found.layers[layer] for layer in swapped]


def dequantize(model: nn.Module) -> list[str]:
    """Put the float layers back, in place; undoes `quantize`, the trained weights stay. Returns their names."""
    layers = {layer: name for name, layer in quant_layers(model)}
    _replace(model, {layer: layer.to_float() for layer in layers})
    return list(layers.values())


def _replace(model: nn.Module, new: Mapping[nn.Module, nn.Module]) -> None:
    """Put new modules in place of old ones, under every name that an old one has."""
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if module in new:
            model.set_submodule(name, new[module])


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

    A later layer sees inputs made by already quantized earlier ones; a layer that runs several times is set at its
    first. Batch norm runs in training mode, so its statistics move by one momentum step, as in EWGS.

    Args:
        model: a quantized, not yet calibrated network.
        images: one normalised training batch [N, C, H, W].
    """

    done: set[QuantLayer] = set()

    def look(name: str, layer: QuantLayer, x: Tensor) -> None:
        if layer in done:
            return
        done.add(layer)
        try:
            layer.calibrate(x)
        except ValueError as error:
            raise ValueError(f"layer {name}: {error}") from error

    visit(model, images, look, training=True)
    unused = [name for name, layer in quant_layers(model) if not layer.input_quantizer.calibrated]
    if unused:
        raise ValueError(f"these layers take no part in the forward pass, so they have no range: {', '.join(unused)}")


def recalibrate(model: nn.Module, images: Tensor, changed: Collection[Quantizer]) -> None:
    """Calibrate some quantizers of a calibrated network anew, because their bits have changed.

    The others keep the ranges that they have learned. What was estimated for other bits (delta) starts again at 0.

    Args:
        model: as for `calibrate`.
        images: as for `calibrate`.
        changed: quantizers of the network.
    """
    for quantizer in changed:
        quantizer.calibrated.fill_(False)
        if isinstance(quantizer.rounding, ElementWiseGradientScaling) and quantizer.rounding.from_hessian:
            quantizer.rounding.delta.zero_()
    done: set[QuantLayer] = set()

    def look(name: str, layer: QuantLayer, x: Tensor) -> None:
        anew = [q in changed for q in (layer.weight_quantizer, layer.input_quantizer)]
        if layer in done or not any(anew):
            return
        done.add(layer)
        try:
            if anew[0]:
                layer.weight_quantizer.calibrate(layer.weight)
            if anew[1]:
                layer.input_quantizer.calibrate(x)
            layer.calibrate_output_scale(x)
        except ValueError as error:
            raise ValueError(f"layer {name}: {error}") from error

    visit(model, images, look, training=True)


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


def weight_decays(model: nn.Module) -> dict[nn.Parameter, float]:
    """Quantizer parameters that have a weight decay of their own, with it."""
    quantizers = [module for module in model.modules() if isinstance(module, Quantizer)]
    return {p: quantizer.decay for quantizer in quantizers if quantizer.decay for p in quantizer.parameters()}

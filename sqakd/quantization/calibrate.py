"""Calibration: set the range of each quantizer of a network from one batch of images."""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch
from torch import Tensor, nn

from sqakd.quantization.layers import QuantLayer, quant_layers
from sqakd.quantization.quantizers.base import Quantizer
from sqakd.quantization.quantizers.rounding import ElementWiseGradientScaling


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

"""Calibration: set the ranges of a network's quantizers from images of the training."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from sqakd.errors import SqakdError
from sqakd.quantization.layers import QuantLayer, quant_layers, quantizers
from sqakd.quantization.outer import observing, shared_inputs
from sqakd.quantization.probe import hooks_removed, in_mode
from sqakd.quantization.quantizers.base import Quantizer
from sqakd.quantization.quantizers.rounding import ElementWiseGradientScaling
from sqakd.quantization.residual import calibrating_sums


@torch.no_grad()
def visit(model: nn.Module, images: Tensor, look: Callable[[str, QuantLayer, Tensor], None], *, training: bool) -> None:
    """Run a quantized network once and call `look` before each quantized layer runs, in the order of running.

    Args:
        model: quantized network; its modes are restored.
        images: normalised batch [N, C, H, W].
        look: function of the layer's name, the layer and its input before any quantizer.
        training: whether to run in training mode. Batch norm then uses and updates its batch statistics.
    """

    def before(layer: nn.Module, args: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, QuantLayer)
        look(names[layer], layer, shared[layer.input_quantizer] if layer.shares_input else args[0])

    names = {layer: name for name, layer in quant_layers(model)}
    hooks = hooks_removed(layer.register_forward_pre_hook(before) for layer in names)
    with hooks, shared_inputs(model) as shared, in_mode(model, training=training):
        model(images)


def calibrate(model: nn.Module, images: Tensor) -> None:
    """Set every quantizer in one forward pass, in the order in which the layers run.

    The inputs of a layer come from the layers before it, which are quantized already; with `outer=released`, from float
    layers. Residual sums stay real in this pass, and get their step at its end. A layer that runs several times is
    calibrated at its first run. Batch norm runs in training mode, so its statistics move by one momentum step, as in
    EWGS.

    Args:
        model: quantized network that is not calibrated yet.
        images: normalised training images [N, C, H, W], of one batch or of several batches.

    Raises:
        SqakdError: if a layer finds no range, or never runs and therefore has none.
        RuntimeError: if the network is calibrated already.
    """
    _calibrate(model, images, set(quantizers(model)))
    unused = [name for name, layer in quant_layers(model) if not layer.input_quantizer.calibrated]
    if unused:
        raise SqakdError(f"these layers take no part in the forward pass, so they have no range: {', '.join(unused)}")


def recalibrate(model: nn.Module, images: Tensor, changed: Collection[Quantizer]) -> None:
    """Calibrate some quantizers of a calibrated network again, because their bits have changed.

    The other quantizers keep their learned ranges. A `delta` estimated for the former bits restarts at 0.

    Args:
        model: calibrated network.
        images: normalised training images [N, C, H, W], of one batch or of several batches.
        changed: the quantizers to calibrate.

    Raises:
        SqakdError: if a layer finds no range.
    """
    for quantizer in changed:
        quantizer.calibrated.fill_(False)
        if isinstance(quantizer.rounding, ElementWiseGradientScaling) and quantizer.rounding.from_hessian:
            quantizer.rounding.delta.zero_()
    _calibrate(model, images, changed)


def _calibrate(model: nn.Module, images: Tensor, targets: Collection[Quantizer]) -> None:
    """Calibrate the quantizers in `targets` during one forward pass in training mode."""
    done: set[QuantLayer] = set()

    def look(name: str, layer: QuantLayer, x: Tensor) -> None:
        if layer not in done and any(quantizer in targets for quantizer in layer.quantizers):
            done.add(layer)
            with _naming(name):
                layer.calibrate(x, targets)

    with observing(model), calibrating_sums(model):
        visit(model, images, look, training=True)


@contextmanager
def _naming(layer: str) -> Iterator[None]:
    """Put the layer's name in front of an error's message."""
    try:
        yield
    except SqakdError as error:
        raise SqakdError(f"layer {layer}: {error}", topic=error.topic, **error.facts) from error

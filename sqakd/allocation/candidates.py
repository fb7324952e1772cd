"""The quantizers that are tried: for each layer and each number of bits, one of the weight and one of the input."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sqakd.errors import SqakdError
from sqakd.quantization.convert import TWINS, Scheme
from sqakd.quantization.layers import channels
from sqakd.quantization.probe import hooks_removed
from sqakd.quantization.quantizers.base import Quantizer
from sqakd.quantization.selection import select

WEIGHT, INPUT = "weight", "input"


@dataclass
class Candidate:
    """One quantizer of one tensor of one layer, calibrated.

    Attributes:
        quantizer: its rounded values are used in the unit of the tensor.
        output_scale: factor of the layer's output, 1 if the method has none.
    """

    quantizer: Quantizer
    output_scale: Tensor

    def rounded(self, x: Tensor) -> Tensor:
        """Return the rounded values of a tensor."""
        return self.quantizer.restore(x)


@dataclass
class Layer:
    """One layer of the float network, with its candidates and the counts that its cost depends on.

    Attributes:
        name: of the module.
        module: float.
        candidates: by tensor ("weight", "input") and bits.
        multiply_adds: of one image, over all calls of the layer.
        inputs: elements of the layer's input for one image.
    """

    name: str
    module: nn.Module
    candidates: dict[tuple[str, int], Candidate] = field(default_factory=dict)
    multiply_adds: int = 0
    inputs: int = 0

    @property
    def weight(self) -> Tensor:
        assert isinstance(self.module.weight, Tensor)
        return self.module.weight

    def apply(self, x: Tensor, weight: Tensor) -> Tensor:
        """Apply the layer's convolution or product to any input and weight."""
        bias = self.module.bias
        assert bias is None or isinstance(bias, Tensor)
        if isinstance(self.module, nn.Conv2d):
            y: Tensor = self.module._conv_forward(x, weight, bias)
            return y
        return F.linear(x, weight, bias)

    def forward_with(self, tensor: str, candidate: Candidate) -> Callable[[Tensor], Tensor]:
        """Return the layer's forward function with one of its two tensors quantized."""
        if tensor == WEIGHT:
            weight = candidate.rounded(self.weight)
            return lambda x: self.apply(x, weight) * candidate.output_scale
        return lambda x: self.apply(candidate.rounded(x), self.weight) * candidate.output_scale


@torch.no_grad()
def make_candidates(model: nn.Module, scheme: Scheme, images: Tensor, widths: Sequence[int]) -> list[Layer]:
    """Calibrate all candidates in one pass of the float network, so that each sees the inputs of float layers.

    Args:
        model: float network in evaluation mode.
        scheme: makes the quantizers.
        images: normalised images [N, C, H, W].
        widths: numbers of bits.

    Returns:
        The layers that run, in network order.

    Raises:
        SqakdError: if the network has no layer that runs, or a tensor has no range.
    """
    channels_, height, width = images.shape[1:]
    found = select(model, types=TWINS, first=None, image_shape=(channels_, height, width))
    layers = {module: Layer(name, module) for module, name in found.layers.items()}
    if not layers:
        raise SqakdError("the network has no Conv2d and no Linear layer that runs; expected at least one")

    def look(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        layer = layers[module]
        layer.multiply_adds += output.numel() // len(images) * layer.weight[0].numel()
        if not layer.candidates:
            layer.inputs = args[0].numel() // len(images)
            layer.candidates = {
                (tensor, bits): _calibrated(layer, scheme, tensor, bits, args[0], output)
                for tensor, bits in _pairs(widths)
            }

    with hooks_removed(module.register_forward_hook(look) for module in layers):
        model(images)
    return list(layers.values())


def _pairs(widths: Sequence[int]) -> Iterator[tuple[str, int]]:
    return ((tensor, bits) for tensor in (WEIGHT, INPUT) for bits in widths)


def _calibrated(layer: Layer, scheme: Scheme, tensor: str, bits: int, x: Tensor, output: Tensor) -> Candidate:
    """Return a calibrated candidate.

    Raises:
        SqakdError: naming the layer, if the tensor has no range.
    """
    is_weight = tensor == WEIGHT
    shape = channels(layer.module) if is_weight and scheme.per_channel else ()
    quantizer = (scheme.weight if is_weight else scheme.input)(rounding=scheme.rounding(), shape=shape, bits=bits)
    quantizer.to(x.device)
    try:
        quantizer.calibrate(layer.weight if is_weight else x)
    except SqakdError as error:
        raise SqakdError(f"layer {layer.name}, {tensor} at {bits} bits: {error}") from error
    candidate = Candidate(quantizer, x.new_ones(()))
    if scheme.output_scale:
        made = layer.forward_with(tensor, candidate)(x).abs().mean()
        if made > 0:  # a layer whose outputs are all zero has a large loss anyway
            candidate.output_scale = output.abs().mean() / made
    return candidate

"""Quantized layers: a convolution or linear layer that quantizes its own weight and its own input.

    y = (input_q * weight_q + bias) * |output_scale|          (* is the convolution or product)

`from_float` and `to_float` undo each other. The layers subclass torch's, so hooks, initialisers and parameter names
stay those of the float network. Nothing is traced, so any network can be converted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Self, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sqakd.errors import SqakdError
from sqakd.quantization.quantizers.base import Quantizer

# Makes a quantizer whose range has the given shape: () or [C, 1, ...].
QuantizerFactory = Callable[[tuple[int, ...]], Quantizer]
Layer = TypeVar("Layer", bound=nn.Module)


class QuantLayer(nn.Module):
    """Base of both quantized layers, mixed into a torch layer that has `weight` and `bias`."""

    float_type: type[nn.Module]
    weight: Tensor
    bias: Tensor | None
    weight_quantizer: Quantizer
    input_quantizer: Quantizer
    output_scale: nn.Parameter | None
    # Set by `sqakd.quantization.outer`: the input is quantized before it reaches the layer; nothing is rounded while
    # ranges are set; ranges are being set now.
    shares_input: bool = False
    calibrates_in_float: bool = False
    observing: bool = False

    @property
    def quantizers(self) -> tuple[Quantizer, Quantizer]:
        """Quantizer of the weight and quantizer of the input, always in this order."""
        return self.weight_quantizer, self.input_quantizer

    def apply_op(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Apply the layer's convolution or product to any input, weight and bias."""
        raise NotImplementedError

    @classmethod
    def from_float(
        cls,
        layer: nn.Module,
        *,
        weight: QuantizerFactory,
        input: QuantizerFactory,
        output_scale: bool,
        per_channel: bool,
    ) -> Self:
        """Return a quantized twin that shares the float layer's parameters.

        The twin's ranges exist from here on and wait for calibration.

        Args:
            layer: Conv2d or Linear.
            weight: makes the quantizer of the weight.
            input: makes the quantizer of the input, which always has one range for the whole tensor.
            output_scale: whether the output has a learned factor.
            per_channel: whether each output channel of the weight has its own range.
        """
        made = twin(layer, cls)
        made.weight_quantizer = weight(channels(made) if per_channel else ())
        made.input_quantizer = input(())
        made.register_parameter("output_scale", nn.Parameter(torch.tensor(1.0)) if output_scale else None)
        return made

    def to_float(self) -> nn.Module:
        """Return a float twin that shares this layer's parameters; undoes `from_float`."""
        made = twin(self, self.float_type)
        del made.weight_quantizer, made.input_quantizer
        made._parameters.pop("output_scale")
        for flag in ("shares_input", "calibrates_in_float", "observing"):
            made.__dict__.pop(flag, None)
        return made

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output for a real-valued input, computed from integer codes.

        With codes c and scales s, input = c_x s_x and weight = c_w s_w, so that

            y = (c_x * c_w) g + bias |output_scale|,          g = s_x s_w |output_scale|

        The codes are exact in bfloat16 as well; a sum of their products is rounded once, to the output's precision. One
        multiplication of the output applies all scales.
        """
        if self.observing:
            seen = x if self.shares_input else self.input_quantizer.observed(x)
            return self.apply_op(seen, self.weight_quantizer.observed(self.weight), self.bias)
        weight_codes, weight_scale = self.weight_quantizer.encode(self.weight)
        input_codes, input_scale = (x, x.new_ones(())) if self.shares_input else self.input_quantizer.encode(x)
        gain = weight_scale * input_scale  # g: one number, or one per output channel
        magnitude = None if self.output_scale is None else self.output_scale.abs()
        if magnitude is not None:
            gain = gain * magnitude
        gain = gain.flatten()
        # The gradient of g could be taken at the output, where it costs one more pass over the largest tensor. It is
        # taken at the weight instead: y = (c_x * (c_w g / k)) k with the constant k = g. The factor g / k is exactly 1
        # in the forward pass, and d(g / k) / dg = 1 / k gives g the same gradient as a sum over the weight's elements.
        constant = gain.detach()
        one = (gain / constant).reshape(-1, *[1] * (self.weight.ndim - 1))
        y = self.apply_op(input_codes, weight_codes * one, None)
        per_channel = (-1, *[1] * (self.weight.ndim - 2))  # channels stand before the spatial dimensions, if any
        if self.bias is None:
            return y.mul_(constant.reshape(per_channel))  # in place: no gradient needs the sums of codes
        bias = self.bias if magnitude is None else self.bias * magnitude
        # Under autocast `y` is bfloat16, and the float32 scales promote the sum.
        return (y * constant.reshape(per_channel) + bias.reshape(per_channel)).to(y.dtype)

    @torch.no_grad()
    def calibrate(self, x: Tensor, targets: Collection[Quantizer] | None = None) -> None:
        """Set the ranges and the output scale from one batch of this layer's inputs.

        Args:
            x: inputs of the layer.
            targets: calibrate only those of the layer's quantizers that are in this collection; None: both.

        Raises:
            SqakdError: if a tensor has no range, or every quantized output is zero.
            RuntimeError: if a quantizer is calibrated already.
        """
        own = self.quantizers[:1] if self.shares_input else self.quantizers
        for quantizer, tensor in zip(own, (self.weight, x), strict=False):
            if targets is None or quantizer in targets:
                quantizer.calibrate(tensor)
        if self.output_scale is not None:
            self.output_scale.copy_(self._output_ratio(x))

    def _output_ratio(self, x: Tensor) -> Tensor:
        """Return mean |float output| / mean |quantized output|, where EWGS starts its output scale (section 4.1)."""
        wanted = self.apply_op(x, self.weight, self.bias).abs().mean()
        got = self.apply_op(self.input_quantizer(x), self.weight_quantizer(self.weight), self.bias).abs().mean()
        if not got > 0:
            raise SqakdError(
                f"every quantized output is zero on the calibration batch (input range"
                f" {float(x.min()):.3g} .. {float(x.max()):.3g}); the batch may be constant"
            )
        return wanted / got


class QuantConv2d(QuantLayer, nn.Conv2d):
    """A quantized Conv2d, [N, in, H, W] -> [N, out, H', W']; depthwise and grouped convolutions included."""

    float_type = nn.Conv2d

    def apply_op(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        y: Tensor = self._conv_forward(x, weight, bias)
        return y


class QuantLinear(QuantLayer, nn.Linear):  # type: ignore[misc]  # torch declares bias without its None
    """A quantized Linear layer, [..., in] -> [..., out]."""

    float_type = nn.Linear

    def apply_op(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(x, weight, bias)


def channels(layer: nn.Module) -> tuple[int, ...]:
    """Return the shape of a range with one number for each output channel of a layer: [C, 1, ...]."""
    assert isinstance(layer.weight, Tensor)
    return (layer.weight.shape[0], *[1] * (layer.weight.ndim - 1))


def quant_layers(model: nn.Module) -> Iterator[tuple[str, QuantLayer]]:
    """Yield name and layer of each quantized layer, in network order."""
    return ((name, module) for name, module in model.named_modules() if isinstance(module, QuantLayer))


def quantizers(model: nn.Module) -> list[Quantizer]:
    """Return all quantizers of a network, each once: layer by layer in network order, weight before input."""
    return list(dict.fromkeys(quantizer for _, layer in quant_layers(model) for quantizer in layer.quantizers))


def layer_bits(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Return the bits of weight and input of each quantized layer, by name."""
    return {name: (layer.weight_quantizer.bits, layer.input_quantizer.bits) for name, layer in quant_layers(model)}


def twin(layer: nn.Module, to: type[Layer]) -> Layer:
    """Return a layer of another class with the same parameters, settings and hooks.

    The initialiser of that class does not run, because it would draw random weights.
    """
    twin = to.__new__(to)
    twin.__dict__.update(layer.__dict__)
    for registry in ("_parameters", "_buffers", "_modules"):
        twin.__dict__[registry] = dict(layer.__dict__[registry])
    return twin

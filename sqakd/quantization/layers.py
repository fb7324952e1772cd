"""Quantized layers: a convolution or linear layer that quantizes its own weight and its own input.

    y = (input_q * weight_q + bias) * |output_scale|          (* is the convolution or product)

`from_float` and `to_float` undo each other. The layers subclass torch's, so hooks, initialisers and parameter names
stay those of the float network; nothing is traced, so any network can be converted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Self, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sqakd.quantization.quantizers.base import Quantizer

# Makes a quantizer whose range has the given shape: () or [C, 1, ...].
QuantizerFactory = Callable[[tuple[int, ...]], Quantizer]
Layer = TypeVar("Layer", bound=nn.Module)


class QuantLayer(nn.Module):
    """What both layers share; mixed into a torch layer that has `weight` and `bias`."""

    float_type: type[nn.Module]
    weight: Tensor
    bias: Tensor | None
    weight_quantizer: Quantizer
    input_quantizer: Quantizer
    output_scale: nn.Parameter | None

    def apply_op(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The layer's convolution or product with another input, weight and bias."""
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
        """Quantized twin that shares the float layer's parameters; its scales exist from here on, uncalibrated.

        Args:
            layer: Conv2d or Linear.
            weight: makes the weight's quantizer.
            input: makes the input's; its range is always one for the whole tensor.
            output_scale: whether the output has a learned factor.
            per_channel: whether each output channel of the weight has its own range.
        """
        twin = _twin(layer, cls)
        channels = (twin.weight.shape[0], *[1] * (twin.weight.ndim - 1)) if per_channel else ()
        twin.weight_quantizer = weight(channels)
        twin.input_quantizer = input(())
        twin.register_parameter("output_scale", nn.Parameter(torch.tensor(1.0)) if output_scale else None)
        return twin

    def to_float(self) -> nn.Module:
        """Float twin that shares this layer's parameters; undoes `from_float`."""
        twin = _twin(self, self.float_type)
        del twin.weight_quantizer, twin.input_quantizer
        twin._parameters.pop("output_scale")
        return twin

    def forward(self, x: Tensor) -> Tensor:
        """Input of the float layer -> output of the float layer, through the grid."""
        weight_codes, weight_scale = self.weight_quantizer.encode(self.weight)
        input_codes, input_scale = self.input_quantizer.encode(x)
        gain = weight_scale * input_scale
        magnitude = None if self.output_scale is None else self.output_scale.abs()
        if magnitude is not None:
            gain = gain * magnitude
        gain = gain.flatten()
        # The output is multiplied by a constant and the gain's gradient is taken at the weight (gain / constant is
        # exactly 1): a sum over the weight's elements instead of one more pass over the whole output.
        constant = gain.detach()
        one = (gain / constant).reshape(-1, *[1] * (self.weight.ndim - 1))
        y = self.apply_op(input_codes, weight_codes * one, None)
        per_channel = (-1, *[1] * (self.weight.ndim - 2))
        scaled = y * constant.reshape(per_channel)
        if self.bias is not None:
            bias = self.bias if magnitude is None else self.bias * magnitude
            scaled = scaled + bias.reshape(per_channel)
        return scaled.to(y.dtype)

    @torch.no_grad()
    def calibrate(self, x: Tensor) -> None:
        """Set both ranges and the output scale from one batch of this layer's inputs."""
        self.weight_quantizer.calibrate(self.weight)
        self.input_quantizer.calibrate(x)
        self.calibrate_output_scale(x)

    def calibrate_output_scale(self, x: Tensor) -> None:
        """Start at mean |float output| / mean |quantized output| (EWGS, section 4.1) of inputs `x`."""
        if self.output_scale is not None:
            wanted = self.apply_op(x, self.weight, self.bias).abs().mean()
            got = self.apply_op(self.input_quantizer(x), self.weight_quantizer(self.weight), self.bias).abs().mean()
            if not got > 0:
                raise ValueError(
                    f"every quantized output is zero on the calibration batch (input range"
                    f" {float(x.min()):.3g} .. {float(x.max()):.3g}); the batch may be constant"
                )
            self.output_scale.copy_(wanted / got)


class QuantConv2d(QuantLayer, nn.Conv2d):
    """A Conv2d on the grid; [N, in, H, W] -> [N, out, H', W']. Depthwise and grouped convolutions included."""

    float_type = nn.Conv2d

    def apply_op(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        y: Tensor = self._conv_forward(x, weight, bias)
        return y


class QuantLinear(QuantLayer, nn.Linear):  # type: ignore[misc]  # torch declares bias without its None
    """A Linear layer on the grid; [..., in] -> [..., out]."""

    float_type = nn.Linear

    def apply_op(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(x, weight, bias)


def quant_layers(model: nn.Module) -> Iterator[tuple[str, QuantLayer]]:
    """Name and layer of each quantized layer, in network order."""
    return ((name, module) for name, module in model.named_modules() if isinstance(module, QuantLayer))


def _twin(layer: nn.Module, to: type[Layer]) -> Layer:
    """The same layer (parameters, settings, hooks) as another class, without running that class's initialiser."""
    twin = to.__new__(to)
    twin.__dict__.update(layer.__dict__)
    for registry in ("_parameters", "_buffers", "_modules"):
        twin.__dict__[registry] = dict(layer.__dict__[registry])
    return twin

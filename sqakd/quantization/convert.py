"""Conversion of a network: swap its float layers for quantized ones, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from torch import nn

from sqakd.errors import SqakdError
from sqakd.quantization.layers import QuantConv2d, QuantLayer, QuantLinear, channels, quant_layers, twin
from sqakd.quantization.outer import OUTER, OuterConv2d, OuterLinear, remove_entries, share_inputs, to_float
from sqakd.quantization.quantizers.base import Quantizer, Start, checked_start
from sqakd.quantization.quantizers.rounding import Rounding, StraightThrough
from sqakd.quantization.residual import checked_residual_bits, quantize_sums, to_real_sums
from sqakd.quantization.selection import Selection, by_kind, select
from sqakd.quantization.widths import Bits, Patterns, bits_by_name, checked_patterns
from sqakd.warning import warn

TWINS: dict[type[nn.Module], type[QuantLayer]] = {nn.Conv2d: QuantConv2d, nn.Linear: QuantLinear}
FirstLast = Literal["float", "8", "same", "first"]
Outer = Literal["float", "released"]


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """The quantization of a network: range and rounding rule of weights and inputs, and treatment of the outer layers.

    Attributes:
        weight: makes a weight quantizer when called with `rounding=`, `shape=` (and `bits=` for layers of other bits).
        input: makes an input quantizer in the same way.
        rounding: makes a rounding rule; each quantizer gets its own.
        per_channel: whether each output channel of a weight has its own range.
        output_scale: whether a layer has a learned factor on its output.
        first_last: bits of the first and the last layer. "float" leaves both float (as in the papers), "8" gives both 8
            bits, "same" treats them like the others, and "first" leaves only the first layer float.
        start: start of all ranges ("paper", "mse" or "max"), which the configuration hands on to `weight` and `input`;
            each of them may have another one. None if no range of the method has a choice.
        outer: what surrounds the quantized layers. "float" leaves it as it is in the float network, "released" makes it
            as in SQAKD's published code (`sqakd.quantization.outer`).
        layer_bits: bits of weight and input of single layers, by pattern over their names, such as {"layer3.*": 4}. The
            last pattern that matches counts. The first and the last layer are quantized too if a pattern matches.
        layer_w_bits: bits of the weights in the same way; they precede `layer_bits`.
        layer_a_bits: bits of the inputs in the same way; they precede `layer_bits`.
        residual_bits: bits of residual sums and their operands, 4 to 8 (`sqakd.quantization.residual`); None leaves
            residual sums real, as in the papers.

    Raises:
        SqakdError: if an argument has another value, no range has the choice that `start` makes, or `outer` is
            "released" and layers have an output scale.

    Example:
        >>> from sqakd.quantization.quantizers.dorefa import TanhWeights
        >>> from sqakd.quantization.quantizers.lsq import LearnedStep
        >>> scheme = Scheme(weight=partial(TanhWeights, bits=1), input=partial(LearnedStep, bits=4), per_channel=True)
        >>> scheme.first_last
        'float'
    """

    weight: Callable[..., Quantizer]
    input: Callable[..., Quantizer]
    rounding: Callable[[], Rounding] = StraightThrough
    per_channel: bool = False
    output_scale: bool = False
    first_last: FirstLast = "float"
    start: Start | None = None
    outer: Outer = "float"
    layer_bits: Patterns | None = field(default=None, hash=False)
    layer_w_bits: Patterns | None = field(default=None, hash=False)
    layer_a_bits: Patterns | None = field(default=None, hash=False)
    residual_bits: int | None = None

    def __post_init__(self) -> None:
        for key in ("layer_bits", "layer_w_bits", "layer_a_bits"):
            object.__setattr__(self, key, checked_patterns(key, getattr(self, key)))
        if str(self.first_last) not in ("float", "8", "same", "first"):
            raise SqakdError(f"first_last={self.first_last!r}: expected float, 8, same or first")
        if self.outer not in ("float", "released"):
            raise SqakdError(f"outer={self.outer!r}: expected float or released")
        for key in ("per_channel", "output_scale"):
            if not isinstance(getattr(self, key), bool):  # any other string would count as true
                raise SqakdError(f"{key}={getattr(self, key)!r}: expected true or false")
        if self.start is not None:
            checked_start(self.start)
            if not any(_has_range(make) for make in (self.weight, self.input)):
                raise SqakdError(
                    f"start={self.start}: expected null, because this method has no range whose start can be chosen",
                    topic="quantizer.start",
                )
        if checked_residual_bits(self.residual_bits) is not None and self.outer == "released":
            raise SqakdError(
                f"residual_bits={self.residual_bits} is not compatible with outer=released, where residual sums get the"
                f" quantizer of the layers that read them; expected residual_bits=null or outer=float"
            )
        if self.outer == "released" and self.output_scale:
            raise SqakdError(
                "outer=released is the published code of PACT, LSQ and DoReFa, whose layers have no output scale;"
                " expected outer=float with output_scale=true, as in the published EWGS"
            )

    @property
    def power_of_two(self) -> bool:
        """Whether the steps of inputs are powers of two, and so the step of residual sums too."""
        return bool(isinstance(self.input, partial) and self.input.keywords.get("power_of_two", False))

    def check(self) -> None:
        """Make one weight quantizer and one input quantizer, so that wrong arguments are refused before training.

        Raises:
            SqakdError: if a quantizer refuses its arguments.
        """
        for quantizer in (self.weight, self.input):
            quantizer(rounding=self.rounding(), shape=())

    def convert_outer(self, layer: nn.Module) -> nn.Module:
        """Return an outer layer that stays float: the layer itself, or with `outer=released` its transforming twin."""
        if self.outer == "float":
            return layer
        weight, input = (
            make(rounding=self.rounding(), shape=shape)
            for make, shape in ((self.weight, channels(layer) if self.per_channel else ()), (self.input, ()))
        )
        if all(type(q).unrounded is Quantizer.unrounded for q in (weight, input)):
            return layer
        made = twin(layer, OUTER[type(layer)])
        made.map_weight, made.map_input = weight.unrounded, input.unrounded
        return made

    def convert(
        self, layer: nn.Module, *, bits: int | None = None, w_bits: int | None = None, a_bits: int | None = None
    ) -> QuantLayer:
        """Return the quantized twin of a Conv2d or Linear.

        Args:
            layer: float.
            bits: of weight and input, where they are not those of the scheme.
            w_bits: of the weight, where they differ from `bits`.
            a_bits: of the input, where they differ from `bits`.
        """

        def factory(quantizer: Callable[..., Quantizer], own: int | None) -> Callable[[tuple[int, ...]], Quantizer]:
            given = {} if own is None else {"bits": own}
            return lambda shape: quantizer(rounding=self.rounding(), shape=shape, **given)

        return TWINS[type(layer)].from_float(
            layer,
            weight=factory(self.weight, bits if w_bits is None else w_bits),
            input=factory(self.input, bits if a_bits is None else a_bits),
            output_scale=self.output_scale,
            per_channel=self.per_channel,
        )

    def bits_of_layers(self, found: Selection) -> dict[nn.Module, Bits | None]:
        """Return the bits of each layer that can be quantized, in network order; None for a layer that stays float.

        Raises:
            SqakdError: if a pattern matches no layer, or gives a float layer bits for its weight or its input alone.
        """
        by_name = bits_by_name(
            found.layers.values(),
            found.others,
            both=self.layer_bits or {},
            weights=self.layer_w_bits or {},
            inputs=self.layer_a_bits or {},
        )
        bits: dict[nn.Module, Bits | None] = {}
        for layer, name in found.layers.items():
            usual, own = self._usual_bits(found, layer), by_name.get(name)
            if own is None:
                bits[layer] = usual
            elif usual is None and None in own:
                raise SqakdError(
                    f"layer {name} stays float with first_last={self.first_last}, and its"
                    f" {'weight' if own.weight is None else 'input'} has no bits of its own; expected a pattern of"
                    f" layer_bits, or of both layer_w_bits and layer_a_bits, that matches the layer"
                )
            else:
                bits[layer] = Bits(*(mine or other for mine, other in zip(own, usual or Bits(), strict=True)))
        return bits

    def _usual_bits(self, found: Selection, layer: nn.Module) -> Bits | None:
        """Return the bits that a layer has without any pattern, as `first_last` says; None if it stays float."""
        policy = str(self.first_last)  # YAML may give the number 8 instead of the string
        if (layer in found.outer and policy == "float") or (layer in found.first and policy == "first"):
            return None
        return Bits(8, 8) if layer in found.outer and policy == "8" else Bits()


def _has_range(make: Callable[..., Quantizer]) -> bool:
    """Return whether a class of quantizers, or a partial of one, has a range whose start is chosen.

    Another function is trusted, because it does not tell what it makes.
    """
    while isinstance(make, partial):
        make = make.func
    return not isinstance(make, type) or bool(getattr(make, "range_names", ()))


def quantize(
    model: nn.Module,
    scheme: Scheme,
    *,
    first: Sequence[str] | None = None,
    image_shape: tuple[int, int, int] | None = None,
) -> list[str]:
    """Swap the convolutions and linear layers of a float network for quantized ones, in place.

    All other modules with weights stay float, and one warning names them.

    Args:
        model: any network; its layers are taken in the order in which the modules are registered.
        scheme: the quantization to apply.
        first: modules whose layers all count as first; None: only the first layer counts as first.
        image_shape: channels, height, width. If given, the network runs once, and layers that are never called stay
            float too (some networks read the weights of a layer instead of calling it).

    Returns:
        Names of the layers that are quantized now, in order.

    Raises:
        SqakdError: if the network has no layer to quantize, lacks a module of `first`, a layer that a pattern of the
            scheme matches or a residual sum that it rounds, or is quantized already.
    """
    if any(True for _ in quant_layers(model)):
        raise SqakdError("the network is quantized already; expected a float network")
    found = select(model, types=TWINS, first=first, image_shape=image_shape)
    swapped, outer = {}, {}
    for layer, bits in scheme.bits_of_layers(found).items():
        if bits is None:
            outer[layer] = scheme.convert_outer(layer)
        else:
            swapped[layer] = scheme.convert(layer, w_bits=bits.weight, a_bits=bits.input)
    if not swapped:
        raise SqakdError(
            f"found {len(found.layers)} Conv2d and Linear layers and none to quantize with"
            f" first_last={scheme.first_last}; the first and the last layer stay float, so a network needs three",
            topic="quantization.no_layer",
        )
    if found.others:
        warn(f"these parts of the network stay float: {by_kind(found.others)}")
    _replace(model, swapped | outer)
    if scheme.residual_bits is not None:
        quantize_sums(model, scheme.residual_bits, power_of_two=scheme.power_of_two)
    if scheme.outer == "released":
        assert image_shape is not None, "outer=released runs the network, which needs the shape of an image"
        share_inputs(model, image_shape)
    return [found.layers[layer] for layer in swapped]


def dequantize(model: nn.Module) -> list[str]:
    """Put the float layers back, in place, and return their names.

    This undoes `quantize`, except that trained weights keep their values.
    """
    layers = {layer: name for name, layer in quant_layers(model)}
    outer = [module for module in model.modules() if isinstance(module, OuterConv2d | OuterLinear)]
    remove_entries(model)
    to_real_sums(model)
    _replace(model, {layer: layer.to_float() for layer in layers} | {layer: to_float(layer) for layer in outer})
    return list(layers.values())


def _replace(model: nn.Module, new: Mapping[nn.Module, nn.Module]) -> None:
    """Replace modules by others, under every name that a module has."""
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if module in new:
            model.set_submodule(name, new[module])

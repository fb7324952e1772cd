r"""What surrounds the quantized layers, as SQAKD's published code for Tiny-ImageNet (MQBench) has it: `outer=released`.

In that code a quantizer belongs to a tensor, not to a layer. That differs from our layers in three points:

- Shared inputs. All readers of a tensor get its quantized values, residual sums too, and one learned step serves all
  convolutions that read the tensor. `share_inputs` puts the quantizer at the entry of the outermost readers.
- First and last layer. Their quantizers have 32 bits, so they hardly round, but they still transform: DoReFa's tanh is
  applied to the weights (PACT and DoReFa) and to the inputs (DoReFa). `OuterConv2d` and `OuterLinear` do so without
  rounding. LSQ transforms nothing, so its outer layers are plain float layers here; the step that is omitted is smaller
  than 1e-4 mean|x|.
- Calibration. While ranges are set, nothing is rounded, but the transformations apply: DoReFa's tanh, and PACT's clip
  (`Quantizer.observed`).

A reader that is a function and not a module, outside every module that reads the same tensor, keeps float values. The
networks of the tables have none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.dropout import _DropoutNd

from sqakd.errors import SqakdError
from sqakd.quantization.layers import QuantLayer, quant_layers, twin
from sqakd.quantization.probe import hooks_removed, in_mode
from sqakd.quantization.quantizers.base import Quantizer


class OuterConv2d(nn.Conv2d):
    """A float Conv2d that transforms its weight and its input; made from a Conv2d by `twin`."""

    map_weight: Callable[[Tensor], Tensor]
    map_input: Callable[[Tensor], Tensor]

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self._conv_forward(self.map_input(x), self.map_weight(self.weight), self.bias)
        return y


class OuterLinear(nn.Linear):
    """A float Linear layer that transforms its weight and its input; made from a Linear layer by `twin`."""

    map_weight: Callable[[Tensor], Tensor]
    map_input: Callable[[Tensor], Tensor]

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.map_input(x), self.map_weight(self.weight), self.bias)


OUTER: dict[type[nn.Module], type[OuterConv2d | OuterLinear]] = {nn.Conv2d: OuterConv2d, nn.Linear: OuterLinear}


def to_float(layer: OuterConv2d | OuterLinear) -> nn.Module:
    """Return the plain float layer with the same parameters."""
    made = twin(layer, nn.Conv2d if isinstance(layer, OuterConv2d) else nn.Linear)
    del made.map_weight, made.map_input
    return made


class Entry:
    """A forward pre-hook of a module: it quantizes the module's input with the quantizer of a layer inside.

    The hook is an object and no closure, so a copy of the network gets hooks that read the copied layers.
    """

    def __init__(self, layer: QuantLayer) -> None:
        self.layer = layer

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        x, *others = args
        quantizer = self.layer.input_quantizer
        if not self.layer.observing:
            return quantizer(x), *others
        if not quantizer.calibrated:
            quantizer.calibrate(x)
        return quantizer.observed(x), *others


def share_inputs(model: nn.Module, image_shape: tuple[int, int, int]) -> None:
    """Give each tensor that several modules read one quantizer, in place, and let all of these modules read its values.

    The network runs once on a black image to find out which modules read which tensor. A layer that runs several times
    keeps a quantizer of its own.

    Args:
        model: quantized network, not calibrated yet.
        image_shape: channels, height, width.

    Raises:
        SqakdError: if layers that read the same tensor have inputs of different bits.
    """
    names = {layer: name for name, layer in quant_layers(model)}
    for _, layer in quant_layers(model):
        layer.calibrates_in_float = True
    readers = _readers(model, image_shape)
    calls = Counter(module for modules in readers for module in modules)
    for modules in readers:
        layers = [module for module in modules if isinstance(module, QuantLayer)]
        entries = [module for module in modules if not any(module in _inside(other) for other in modules)]
        if not layers or entries == layers[:1] or any(calls[layer] > 1 for layer in layers):
            continue
        for layer in layers[1:]:
            bits, others = layers[0].input_quantizer.bits, layer.input_quantizer.bits
            if bits != others:
                raise SqakdError(
                    f"layers {names[layers[0]]} and {names[layer]} read the same tensor, which has one quantizer with"
                    f" outer=released, but their inputs have {bits} and {others} bits; expected the same"
                )
        for layer in layers:
            layer.input_quantizer, layer.shares_input = layers[0].input_quantizer, True
        for entry in entries:
            if calls[entry] == 1:
                own = next((layer for layer in layers if layer in set(entry.modules())), layers[0])
                entry.register_forward_pre_hook(Entry(own))


def keeps_own_inputs(model: nn.Module) -> bool:
    """Return whether no input is shared and no outer layer transforms, so that all layers are independent."""
    shared = any(layer.shares_input for _, layer in quant_layers(model))
    return not shared and not any(isinstance(module, OuterConv2d | OuterLinear) for module in model.modules())


def remove_entries(model: nn.Module) -> None:
    """Remove the hooks that `share_inputs` registered."""
    for module, key, _ in _entries(model):
        del module._forward_pre_hooks[key]


@contextmanager
def shared_inputs(model: nn.Module) -> Iterator[dict[Quantizer, Tensor]]:
    """Yield a dictionary that each forward pass in the block fills with the float input of each shared quantizer."""
    inputs: dict[Quantizer, Tensor] = {}

    def recorder(entry: Entry) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def record(module: nn.Module, args: tuple[Any, ...]) -> None:
            inputs[entry.layer.input_quantizer] = args[0]

        return record

    with hooks_removed(
        module.register_forward_pre_hook(recorder(entry), prepend=True) for module, _, entry in _entries(model)
    ):
        yield inputs


@contextmanager
def observing(model: nn.Module) -> Iterator[None]:
    """Run the block while the layers that calibrate in float round nothing."""
    layers = [layer for _, layer in quant_layers(model) if layer.calibrates_in_float]
    for layer in layers:
        layer.observing = True
    try:
        yield
    finally:
        for layer in layers:
            layer.observing = False


def _entries(model: nn.Module) -> list[tuple[nn.Module, int, Entry]]:
    """Return each entry with its module and the key of its hook."""
    hooks = ((module, key, hook) for module in model.modules() for key, hook in module._forward_pre_hooks.items())
    return [(module, key, hook) for module, key, hook in hooks if isinstance(hook, Entry)]


def _inside(module: nn.Module) -> set[nn.Module]:
    """Return all modules inside a module, without the module itself."""
    return set(module.modules()) - {module}


@torch.no_grad()
def _readers(model: nn.Module, image_shape: tuple[int, int, int]) -> list[list[nn.Module]]:
    """Return, for each tensor that is the first argument of a module, all modules that read the tensor.

    A module that changes its input in place, such as a ReLU, returns the same tensor with another version. Dropout runs
    in training mode, because in evaluation mode its output is its input.
    """
    found: dict[tuple[int, int], list[nn.Module]] = {}
    alive: list[Tensor] = []  # the number of a tensor is unique only while the tensor exists

    def look(module: nn.Module, args: tuple[Any, ...]) -> None:
        if args and isinstance(args[0], Tensor):
            alive.append(args[0])
            found.setdefault((id(args[0]), args[0]._version), []).append(module)

    inner = [module for module in model.modules() if module is not model]
    device = next(model.parameters()).device
    devices = [device] if device.type == "cuda" else []
    hooks = hooks_removed(module.register_forward_pre_hook(look) for module in inner)
    with hooks, in_mode(model, training=False), torch.random.fork_rng(devices):  # the dropout draws numbers
        for module in inner:
            module.training = isinstance(module, _DropoutNd)
        model(torch.zeros(1, *image_shape, device=device))
    return list(found.values())

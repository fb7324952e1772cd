"""The files beside the model, for those who write their own code: integers, scales and thresholds.

weights_int.npz   LAYER.weight      trained integers
                  LAYER.scale       real value of one accumulator unit, batch norm and all factors included    [C]
                  LAYER.offset      real value of accumulator 0                                                [C]
                  LAYER.thresholds  only where the layer writes the next layer's integers: smallest
                                    sign * accumulator that reaches level low + 1, low + 2 .. high     [C, levels]
                  LAYER.sign        -1 where the real value falls as the accumulator rises, otherwise 1        [C]
layers.json       geometry, bits, and how each layer's input becomes integers; then the residual sums on integers, of
                  kind "sum"

level = low + number of thresholds <= sign * accumulator     where a layer writes the next layer's integers
level = clip(round((x - origin) / step) + shift, 0, levels)  where integers are made from real values x
code  = gap * level - zero_point
sum   = clip(code of the branch + code of the shortcut, lowest, highest);   real value = step * sum
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import fx, nn

from sqakd.export.integer_input import integer_input
from sqakd.export.levels import CountedOutput, IntegerOutput, LevelOutput
from sqakd.export.modules import IntegerLayer, integer_layers
from sqakd.export.qonnx.lower import qonnx_layers
from sqakd.export.qonnx.thresholds import data_type
from sqakd.quantization.residual import residual_sums

# The two forms of a layer between integers.
REQUANTIZED, COUNTED = "requantized", "counted"
SUM = "sum"  # the kind of a residual sum; layers are convolutions or linear
UNCOUNTED = "uncounted"  # a file without counted layers, whose speed shows what counting costs


def integer_arrays(lowered: fx.GraphModule) -> dict[str, NDArray[Any]]:
    """Return the contents of weights_int.npz."""
    arrays: dict[str, NDArray[Any]] = {}
    for name, layer in named_layers(lowered).items():
        integers = layer.integer_weight.integers.numpy()
        narrow = np.abs(integers).max() <= 127
        arrays[f"{name}.weight"] = integers.astype(np.int8 if narrow else np.int16)
        arrays[f"{name}.scale"] = layer.scale.numpy()
        arrays[f"{name}.offset"] = layer.offset.numpy()
        if isinstance(layer, LevelOutput):
            arrays[f"{name}.thresholds"] = layer.solution.stairs.numpy().astype(np.int32)
            arrays[f"{name}.sign"] = np.where(layer.scale.numpy() < 0, -1, 1).astype(np.int8)
    return arrays


def named_layers(lowered: fx.GraphModule) -> dict[str, IntegerLayer]:
    """Return the integer layers by the name of their trained layer.

    A layer that is computed once for each of several readers occurs several times; the copies get numbers.
    """
    layers: dict[str, IntegerLayer] = {}
    for layer in integer_layers(lowered):
        name, number = layer.name, 2
        while name in layers:
            name, number = f"{layer.name}_{number}", number + 1
        layers[name] = layer
    return layers


def trained_name(lowered: fx.GraphModule, name: str) -> str:
    """Return the trained layer's name of a layer in layers.json, whose copies have numbers."""
    return named_layers(lowered)[name].name


def describe_layers(lowered: fx.GraphModule) -> list[dict[str, Any]]:
    """Return the layers in layers.json: plain data, one entry per integer layer."""
    return [_describe(name, layer) for name, layer in named_layers(lowered).items()]


def _describe(name: str, layer: IntegerLayer) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": name,
        "kind": "linear" if layer.geometry is None else "convolution",
        "shape": list(layer.integer_weight.integers.shape),
        "w_bits": layer.integer_weight.bits,
        "a_bits": layer.stored.input.bits,
        "geometry": None if layer.geometry is None else asdict(layer.geometry),
        "input": asdict(layer.stored.input),
        "head_room": layer.head_room,
        "regrid_error": layer.integer_weight.error,
        "output": "real",
    }
    if isinstance(layer, LevelOutput):
        solution = layer.solution
        entry |= {
            "output": "integers",
            "next_input": asdict(layer.next.input) | {"low": layer.low, "high": layer.high},
            "form": COUNTED if isinstance(layer, CountedOutput) else REQUANTIZED,
            "wrong_sums": layer.wrong_sums,
            "wrong_sums_requantized": int(solution.wrong.sum()),
            "reachable_sums": int(solution.reachable.sum()),
        }
        if isinstance(layer, IntegerOutput):
            entry["constant_channels"] = int((solution.sign == 0).sum())
    return entry


def describe_qonnx(lowered: fx.GraphModule) -> list[dict[str, Any]]:
    """Return the layers in layers.json for a network with QONNX's quantizers."""
    layers = {layer.name: layer for layer in qonnx_layers(lowered)}
    return [
        {
            "name": name,
            "kind": "convolution" if layer.weight.ndim > 2 else "linear",
            "shape": list(layer.integers.integers.shape),
            "w_bits": layer.integers.bits,
            "a_bits": layer.input.bits,
            "input": asdict(layer.input),
            "node_bits": 1 if layer.bipolar else layer.bits,
            "input_node": f"MultiThreshold {data_type(layer.input)}" if layer.has_thresholds else "Quant",
            "output": "real",
        }
        for name, layer in layers.items()
    ]


def describe_sums(network: nn.Module) -> list[dict[str, Any]]:
    """Return the residual sums in layers.json: plain data, one entry per module whose sums the network rounds.

    Blocks that share a module have one entry together.
    """
    entries = []
    for name, total in residual_sums(network):
        branch, shortcut = (integer_input(quantizer) for quantizer in total.operands)
        entries.append(
            {
                "name": name,
                "kind": SUM,
                "bits": branch.bits,
                "step": branch.scale,
                "branch": asdict(branch),
                "shortcut": asdict(shortcut),
                "lowest": total.output_range[0],
                "highest": total.output_range[1],
            }
        )
    return entries


def float_parts(lowered: fx.GraphModule) -> list[dict[str, Any]]:
    """Return the modules that stay float and have parameters, each with the number of its parameters."""
    return [
        {"name": name, "kind": type(module).__name__, "parameters": sum(p.numel() for p in module.parameters(False))}
        for name, module in lowered.named_modules()
        if not isinstance(module, IntegerLayer) and any(True for _ in module.parameters(False))
    ]

"""What the export leaves behind besides the model: integers, scales and thresholds for those who write their own code.

weights_int.npz   LAYER.weight      the trained whole numbers
                  LAYER.scale       value of one accumulator unit, batch norm and all factors included   [C]
                  LAYER.offset      value of accumulator 0                                               [C]
                  LAYER.thresholds  where the next layer's input is made of this one's sums: smallest
                                    sign * accumulator with at least level low + 1, low + 2 .. high      [C, levels]
                  LAYER.sign        -1 where the value falls as the accumulator rises                    [C]
layers.json       geometry, bits, and how each layer's input becomes integers

level = low + number of thresholds <= sign * accumulator;   code = gap * level - zero_point
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import fx

from sqakd.export.modules import IntegerLayer, IntegerOutput
from sqakd.export.streams import integer_layers


def arrays(lowered: fx.GraphModule) -> dict[str, NDArray[Any]]:
    """Contents of weights_int.npz."""
    found: dict[str, NDArray[Any]] = {}
    for name, layer in named_layers(lowered).items():
        integers = layer.weight_spec.integers.numpy()
        narrow = np.abs(integers).max() <= 127
        found[f"{name}.weight"] = integers.astype(np.int8 if narrow else np.int16)
        found[f"{name}.scale"] = layer.scale.numpy()
        found[f"{name}.offset"] = layer.offset.numpy()
        if isinstance(layer, IntegerOutput):
            found[f"{name}.thresholds"] = layer.certificate.stairs.numpy().astype(np.int32)
            found[f"{name}.sign"] = np.where(layer.scale.numpy() < 0, -1, 1).astype(np.int8)
    return found


def named_layers(lowered: fx.GraphModule) -> dict[str, IntegerLayer]:
    """Integer layers by their trained layer's name; one that is computed for several readers gets a number."""
    found: dict[str, IntegerLayer] = {}
    for layer in integer_layers(lowered):
        name, number = layer.name, 2
        while name in found:
            name, number = f"{layer.name}_{number}", number + 1
        found[name] = layer
    return found


def describe(lowered: fx.GraphModule) -> list[dict[str, Any]]:
    """Contents of layers.json; plain data, one entry for each integer layer."""
    return [_describe(name, layer) for name, layer in named_layers(lowered).items()]


def _describe(name: str, layer: IntegerLayer) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": name,
        "kind": "linear" if layer.geometry is None else "convolution",
        "shape": list(layer.weight_spec.integers.shape),
        "w_bits": layer.weight_spec.bits,
        "a_bits": layer.stored.spec.bits,
        "geometry": None if layer.geometry is None else asdict(layer.geometry),
        "input": asdict(layer.stored.spec),
        "head_room": layer.head_room,
        "regrid_error": layer.weight_spec.error,
        "output": "real",
    }
    if isinstance(layer, IntegerOutput):
        certificate = layer.certificate
        entry |= {
            "output": "integers",
            "next_input": asdict(layer.next.spec) | {"low": layer.low, "high": layer.high},
            "wrong_sums": int(certificate.wrong.sum()),
            "reachable_sums": int(certificate.reachable.sum()),
            "constant_channels": int((certificate.sign == 0).sum()),
        }
    return entry


def float_parts(lowered: fx.GraphModule) -> list[dict[str, Any]]:
    """Modules with parameters that stay float, with how many."""
    return [
        {"name": name, "kind": type(module).__name__, "parameters": sum(p.numel() for p in module.parameters(False))}
        for name, module in lowered.named_modules()
        if not isinstance(module, IntegerLayer) and any(True for _ in module.parameters(False))
    ]

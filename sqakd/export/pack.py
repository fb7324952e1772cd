r"""Weights at their own bits inside a standard ONNX file.

No runtime convolves 1, 2 or 4-bit weights, but every runtime computes what depends on constants alone when it loads a
file. So the file holds each weight's place on its grid, in b bits, and three or four nodes that make the int8 tensor:

    table   bytes -> Gather in a table of 256 rows of 8/b weights -> Reshape             1, 2 and 4 bits
    uint4   4-bit integers q -> Cast int32 -> q * distance + lowest -> Cast int8         up to 4 bits

Three bits are stored in four. Where the sign of some channels was flipped, one more product with -1, 0 or 1 follows.
The arithmetic is in int32, because int8 products that overflow on the way are cut off by some runtimes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from sqakd.export.modules import IntegerLayer

Pack = Literal["auto", "uint4", "table", "none"]
PACKS = ("auto", "uint4", "table", "none")


@dataclass(frozen=True)
class Grid:
    """Where a layer's stored weights come from: weight = sign * head_room * values[place].

    Attributes:
        places: of each weight on its grid, uint8, the weight's shape.
        values: the grid, ascending.
        sign: of each output channel.
    """

    places: NDArray[np.uint8]
    values: NDArray[np.int64]
    sign: NDArray[np.int64]

    @classmethod
    def of(cls, layer: IntegerLayer) -> Grid:
        spec = layer.weight_spec
        values = spec.grid.numpy().astype(np.int64)
        places = np.searchsorted(values, spec.integers.numpy()).astype(np.uint8)
        return cls(places, layer.head_room * values, layer.sign.numpy())


def pack(model: onnx.ModelProto, layers: Mapping[str, IntegerLayer], how: Pack) -> onnx.ModelProto:
    """Replace int8 weights by packed ones, in a copy.

    Args:
        model: with int8 initializers.
        layers: by the name of their weight in the model.
        how: "auto" is table for 1 and 2 bits and uint4 for 3 and 4; weights of more bits stay int8.
    """
    packed = onnx.ModelProto()
    packed.CopyFrom(model)
    if how == "none":
        return packed
    kept: list[onnx.TensorProto] = []
    nodes: list[onnx.NodeProto] = []
    tables: dict[str, onnx.TensorProto] = {}
    for tensor in packed.graph.initializer:
        layer = layers.get(tensor.name)
        method = None if layer is None else _method(layer, how)
        if layer is None or method is None or tensor.data_type != TensorProto.INT8:
            kept.append(tensor)
            continue
        grid, name = Grid.of(layer), tensor.name
        new = _table(name, grid, layer.weight_spec.bits, tables) if method == "table" else _uint4(name, grid)
        kept += new[0]
        nodes += new[1]
        _check(numpy_helper.to_array(tensor), grid)
    kept += tables.values()
    rest = list(packed.graph.node)
    for field, values in ((packed.graph.initializer, kept), (packed.graph.node, nodes + rest)):
        del field[:]
        field.extend(values)
    onnx.checker.check_model(packed, full_check=True)
    return packed


def _method(layer: IntegerLayer, how: Pack) -> str | None:
    if layer.weight_spec.bits > 4:
        return None
    if how != "auto":
        return how
    # OpenVINO keeps a product behind a table for the run; the one behind 4-bit integers it computes when it loads.
    return "table" if layer.weight_spec.bits <= 2 and bool((layer.sign == 1).all()) else "uint4"


def _check(weight: NDArray[np.int8], grid: Grid) -> None:
    per_channel = grid.sign.reshape(-1, *[1] * (weight.ndim - 1))
    assert np.array_equal(weight, per_channel * grid.values[grid.places])


def _table(
    name: str, grid: Grid, bits: int, tables: dict[str, onnx.TensorProto]
) -> tuple[list[onnx.TensorProto], list[onnx.NodeProto]]:
    width = 4 if bits == 3 else bits
    per_byte = 8 // width
    flat = grid.places.flatten()
    padded = np.concatenate([flat, np.zeros(-len(flat) % per_byte, np.uint8)]).reshape(-1, per_byte)
    shifts = np.arange(per_byte) * width
    packed = (padded.astype(np.int64) << shifts).sum(axis=1).astype(np.uint8)
    table = f"table{width}_{'_'.join(str(v) for v in grid.values[[0, -1]])}"
    if table not in tables:
        places = (np.arange(256)[:, None] >> shifts) & (2**width - 1)
        values = grid.values[np.minimum(places, len(grid.values) - 1)].astype(np.int8)
        tables[table] = numpy_helper.from_array(values, table)
    shape = np.array(grid.places.shape, np.int64)
    tensors = [numpy_helper.from_array(packed, f"{name}.packed"), numpy_helper.from_array(shape, f"{name}.shape")]
    nodes = [
        helper.make_node("Cast", [f"{name}.packed"], [f"{name}.rows"], to=TensorProto.INT32),
        helper.make_node("Gather", [table, f"{name}.rows"], [f"{name}.wide"]),
    ]
    last = f"{name}.wide"
    if len(flat) % per_byte:
        ends = {"flat": [-1], "from": [0], "to": [len(flat)]}
        tensors += [numpy_helper.from_array(np.array(v, np.int64), f"{name}.{k}") for k, v in ends.items()]
        nodes += [
            helper.make_node("Reshape", [last, f"{name}.flat"], [f"{name}.row"]),
            helper.make_node("Slice", [f"{name}.row", f"{name}.from", f"{name}.to"], [f"{name}.cut"]),
        ]
        last = f"{name}.cut"
    plain = bool((grid.sign == 1).all())
    nodes.append(helper.make_node("Reshape", [last, f"{name}.shape"], [name if plain else f"{name}.grid"]))
    if not plain:
        sign = grid.sign.astype(np.int32).reshape(-1, *[1] * (grid.places.ndim - 1))
        tensors.append(numpy_helper.from_array(sign, f"{name}.sign"))
        nodes += [
            helper.make_node("Cast", [f"{name}.grid"], [f"{name}.grid32"], to=TensorProto.INT32),
            helper.make_node("Mul", [f"{name}.grid32", f"{name}.sign"], [f"{name}.product"]),
            helper.make_node("Cast", [f"{name}.product"], [name], to=TensorProto.INT8),
        ]
    return tensors, nodes


def _uint4(name: str, grid: Grid) -> tuple[list[onnx.TensorProto], list[onnx.NodeProto]]:
    plain = bool((grid.sign == 1).all())
    sign = np.ones((), np.int64) if plain else grid.sign.reshape(-1, *[1] * (grid.places.ndim - 1))
    distance = int(grid.values[1] - grid.values[0])
    flat = grid.places.flatten()
    pairs = np.concatenate([flat, np.zeros(len(flat) % 2, np.uint8)]).reshape(-1, 2)
    raw = (pairs[:, 0] | (pairs[:, 1] << 4)).astype(np.uint8).tobytes()
    tensors = [
        helper.make_tensor(f"{name}.packed", TensorProto.UINT4, grid.places.shape, raw, raw=True),
        numpy_helper.from_array((distance * sign).astype(np.int32), f"{name}.distance"),
        numpy_helper.from_array((int(grid.values[0]) * sign).astype(np.int32), f"{name}.lowest"),
    ]
    nodes = [
        helper.make_node("Cast", [f"{name}.packed"], [f"{name}.places"], to=TensorProto.INT32),
        helper.make_node("Mul", [f"{name}.places", f"{name}.distance"], [f"{name}.scaled"]),
        helper.make_node("Add", [f"{name}.scaled", f"{name}.lowest"], [f"{name}.sum"]),
        helper.make_node("Cast", [f"{name}.sum"], [name], to=TensorProto.INT8),
    ]
    return tensors, nodes

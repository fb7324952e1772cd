r"""Weights of few bits, packed inside a standard ONNX file.

No runtime convolves weights of 1, 2 or 4 bits. But every runtime computes, once and while it loads a file, whatever
depends on constants alone. So the file holds each weight's position on its grid, in b bits, and three or four nodes
that compute the int8 weight:

    table   bytes -> Gather in a table of 256 rows of 8/b weights -> Reshape             1, 2 and 4 bits
    uint4   4-bit integers q -> Cast int32 -> q * distance + lowest -> Cast int8         up to 4 bits

Weights of three bits are stored in four. Where some channels are stored with the opposite sign, a product with -1, 0 or
1 follows. The arithmetic uses int32, because some runtimes clip products of int8 that overflow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from sqakd.export.integer_weight import per_channel
from sqakd.export.modules import IntegerLayer
from sqakd.export.options import Pack

Parts = tuple[list[onnx.TensorProto], list[onnx.NodeProto]]


@dataclass(frozen=True)
class PackedWeight:
    """A layer's stored weight as positions on a grid: weight = sign * values[positions].

    Attributes:
        positions: position of each weight on the grid, uint8, the weight's shape.
        values: the grid times the head-room, ascending.
        sign: sign of each output channel, [C, 1, ...].
    """

    positions: NDArray[np.uint8]
    values: NDArray[np.int64]
    sign: NDArray[np.int64]

    @classmethod
    def of(cls, layer: IntegerLayer) -> PackedWeight:
        """Return the positions of a layer's weight."""
        weight = layer.integer_weight
        grid = weight.grid.numpy().astype(np.int64)
        positions = np.searchsorted(grid, weight.integers.numpy()).astype(np.uint8)
        sign = layer.sign.view(per_channel(weight.integers)).numpy()
        return cls(positions, layer.head_room * grid, sign)

    @property
    def unsigned(self) -> bool:
        """Whether all channels keep their sign."""
        return bool((self.sign == 1).all())

    def weight(self) -> NDArray[np.int64]:
        """Return the weight that the positions stand for."""
        weight: NDArray[np.int64] = self.sign * self.values[self.positions]
        return weight


def pack(model: onnx.ModelProto, layers: Mapping[str, IntegerLayer], method: Pack) -> onnx.ModelProto:
    """Return a copy of a model in which int8 weights of up to 4 bits are packed.

    Args:
        model: with int8 initializers.
        layers: layers by the name of their weight in the model.
        method: "auto" is table for 1 and 2 bits and uint4 for 3 and 4. Weights of more bits always stay int8.
    """
    packed = onnx.ModelProto()
    packed.CopyFrom(model)
    if method == "none":
        return packed
    tensors: list[onnx.TensorProto] = []
    nodes: list[onnx.NodeProto] = []
    tables: dict[str, onnx.TensorProto] = {}
    for tensor in packed.graph.initializer:
        layer = layers.get(tensor.name)
        if layer is None or layer.integer_weight.bits > 4 or tensor.data_type != TensorProto.INT8:
            tensors.append(tensor)
            continue
        weight = PackedWeight.of(layer)
        assert np.array_equal(numpy_helper.to_array(tensor), weight.weight())
        if method == "table" or (method == "auto" and _prefers_table(layer)):
            parts = _table(tensor.name, weight, layer.integer_weight.bits, tables)
        else:
            parts = _uint4(tensor.name, weight)
        tensors += parts[0]
        nodes += parts[1]
    tensors += tables.values()
    # Nodes of an ONNX graph are sorted: those that make a weight come before those that read it.
    nodes += list(packed.graph.node)
    for field, values in ((packed.graph.initializer, tensors), (packed.graph.node, nodes)):
        del field[:]
        field.extend(values)
    onnx.checker.check_model(packed, full_check=True)
    return packed


def _prefers_table(layer: IntegerLayer) -> bool:
    # OpenVINO keeps a product behind a table for each run; a product behind 4-bit integers it computes while loading.
    return layer.integer_weight.bits <= 2 and bool((layer.sign == 1).all())


def _table(name: str, weight: PackedWeight, bits: int, tables: dict[str, onnx.TensorProto]) -> Parts:
    """Pack a weight as bytes that select rows of a table.

    Args:
        name: name of the weight in the model.
        weight: positions on its grid.
        bits: 1 to 4.
        tables: tables by name, shared by all weights with the same grid; gets new ones.
    """
    width = 4 if bits == 3 else bits
    per_byte = 8 // width
    shifts = np.arange(per_byte) * width  # the first weight of a byte lies in its lowest bits
    flat = weight.positions.flatten()
    padded = np.concatenate([flat, np.zeros(-len(flat) % per_byte, np.uint8)]).reshape(-1, per_byte)
    packed = (padded.astype(np.int64) << shifts).sum(axis=1).astype(np.uint8)
    table = f"table{width}_{'_'.join(str(v) for v in weight.values[[0, -1]])}"
    if table not in tables:
        # Row number r holds the weights of byte r. Bytes that do not occur may point beyond the grid.
        positions = (np.arange(256)[:, None] >> shifts) & (2**width - 1)
        values = weight.values[np.minimum(positions, len(weight.values) - 1)].astype(np.int8)
        tables[table] = numpy_helper.from_array(values, table)
    shape = np.array(weight.positions.shape, np.int64)
    tensors = [numpy_helper.from_array(packed, f"{name}.packed"), numpy_helper.from_array(shape, f"{name}.shape")]
    nodes = [
        helper.make_node("Cast", [f"{name}.packed"], [f"{name}.rows"], to=TensorProto.INT32),
        helper.make_node("Gather", [table, f"{name}.rows"], [f"{name}.wide"]),
    ]
    last = f"{name}.wide"
    if len(flat) % per_byte:  # the last byte was padded
        ends = {"flat": [-1], "from": [0], "to": [len(flat)]}
        tensors += [numpy_helper.from_array(np.array(v, np.int64), f"{name}.{k}") for k, v in ends.items()]
        nodes += [
            helper.make_node("Reshape", [last, f"{name}.flat"], [f"{name}.row"]),
            helper.make_node("Slice", [f"{name}.row", f"{name}.from", f"{name}.to"], [f"{name}.cut"]),
        ]
        last = f"{name}.cut"
    if weight.unsigned:
        return tensors, [*nodes, helper.make_node("Reshape", [last, f"{name}.shape"], [name])]
    tensors.append(numpy_helper.from_array(weight.sign.astype(np.int32), f"{name}.sign"))
    return tensors, [
        *nodes,
        helper.make_node("Reshape", [last, f"{name}.shape"], [f"{name}.grid"]),
        helper.make_node("Cast", [f"{name}.grid"], [f"{name}.grid32"], to=TensorProto.INT32),
        helper.make_node("Mul", [f"{name}.grid32", f"{name}.sign"], [f"{name}.product"]),
        helper.make_node("Cast", [f"{name}.product"], [name], to=TensorProto.INT8),
    ]


def _uint4(name: str, weight: PackedWeight) -> Parts:
    """Pack a weight as 4-bit integers that are scaled and shifted to its grid."""
    # The sign is part of distance and lowest value, so it costs no node.
    sign = np.ones((), np.int64) if weight.unsigned else weight.sign
    distance = int(weight.values[1] - weight.values[0])
    flat = weight.positions.flatten()
    pairs = np.concatenate([flat, np.zeros(len(flat) % 2, np.uint8)]).reshape(-1, 2)
    raw = (pairs[:, 0] | (pairs[:, 1] << 4)).astype(np.uint8).tobytes()
    tensors = [
        helper.make_tensor(f"{name}.packed", TensorProto.UINT4, weight.positions.shape, raw, raw=True),
        numpy_helper.from_array((distance * sign).astype(np.int32), f"{name}.distance"),
        numpy_helper.from_array((int(weight.values[0]) * sign).astype(np.int32), f"{name}.lowest"),
    ]
    nodes = [
        helper.make_node("Cast", [f"{name}.packed"], [f"{name}.places"], to=TensorProto.INT32),
        helper.make_node("Mul", [f"{name}.places", f"{name}.distance"], [f"{name}.scaled"]),
        helper.make_node("Add", [f"{name}.scaled", f"{name}.lowest"], [f"{name}.sum"]),
        helper.make_node("Cast", [f"{name}.sum"], [name], to=TensorProto.INT8),
    ]
    return tensors, nodes

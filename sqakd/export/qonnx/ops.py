"""The quantizer nodes of QONNX as torch operators; values stay real, as in training.

    quant            scale * clip(round(x / scale))     `Quant`, the older name of `IntQuant`, zero point 0
    bipolar_quant    scale where x >= 0, else -scale    `BipolarQuant`
    multi_threshold  scale * count(thresholds <= x) + bias   `MultiThreshold`, which FINN builds

The nodes are described in the QONNX package (https://github.com/fastmachinelearning/qonnx). Its own transformations
look for the name `Quant`, so the file uses that one.
"""

from __future__ import annotations

from typing import Any

import onnx
import torch
from onnxscript import ir, opset21, values
from torch import Tensor

from sqakd.export.declaration import flattened, operator

DOMAIN = "qonnx.custom_op.general"
_opset = values.Opset(DOMAIN, 1)


@operator
def quant(x: Tensor, scale: Tensor, bits: int, signed: bool) -> Tensor:
    """Round `x` of any shape to multiples of `scale`, a number or [C, 1, ...], clipped to a range of whole numbers."""
    low, high = whole_range(bits, signed=signed)
    return (x / scale).round().clamp(low, high) * scale


@operator
def bipolar_quant(x: Tensor, scale: Tensor) -> Tensor:
    """Return `scale` with the sign of `x`; 0 has the sign +."""
    return torch.where(x >= 0, scale, -scale)


@operator
def multi_threshold(x: Tensor, thresholds: Tensor, scale: float, bias: float, data_type: str, layout: str) -> Tensor:
    """Count the ascending thresholds [1, K] that each element of `x` reaches, times `scale` plus `bias`.

    `data_type` is QONNX's name for the codes, and `layout` that of the dimensions; neither changes the result.
    """
    return torch.bucketize(x, thresholds[0], right=True).to(x.dtype) * scale + bias


def whole_range(bits: int, *, signed: bool) -> tuple[int, int]:
    """Return the lowest and the highest whole number of a width."""
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def translations() -> dict[Any, Any]:
    """Return the translation of each operator, as torch's exporter takes them."""
    names = torch.ops.sqakd
    return {
        names.quant.default: flattened(_quant),
        names.bipolar_quant.default: flattened(_bipolar_quant),
        names.multi_threshold.default: flattened(_multi_threshold),
    }


def _node(name: str, inputs: list[str], attributes: dict[str, Any]) -> Any:
    """Return a node type that torch's exporter can call; QONNX registers no schema of its own."""
    schema = onnx.defs.OpSchema
    return values.Op(
        _opset,
        name,
        schema(
            name,
            DOMAIN,
            1,
            inputs=[schema.FormalParameter(each, "tensor(float)") for each in inputs],
            outputs=[schema.FormalParameter("y", "tensor(float)")],
            attributes=[schema.Attribute(key, kind, required=True) for key, kind in attributes.items()],
        ),
    )


_KINDS = onnx.defs.OpSchema.AttrType
_QUANT = _node(
    "Quant",
    ["x", "scale", "zeropt", "bitwidth"],
    {"signed": _KINDS.INT, "narrow": _KINDS.INT, "rounding_mode": _KINDS.STRING},
)
_BIPOLAR_QUANT = _node("BipolarQuant", ["x", "scale"], {})
_MULTI_THRESHOLD = _node(
    "MultiThreshold",
    ["x", "thresholds"],
    {"out_dtype": _KINDS.STRING, "out_scale": _KINDS.FLOAT, "out_bias": _KINDS.FLOAT, "data_layout": _KINDS.STRING},
)


def _quant(x: Any, scale: Any, bits: int, signed: bool) -> Any:
    zero, width = (_real(value) for value in (0.0, float(bits)))
    return _QUANT(x, scale, zero, width, signed=int(signed), narrow=0, rounding_mode="ROUND")


def _bipolar_quant(x: Any, scale: Any) -> Any:
    return _BIPOLAR_QUANT(x, scale)


def _multi_threshold(x: Any, thresholds: Any, scale: float, bias: float, data_type: str, layout: str) -> Any:
    return _MULTI_THRESHOLD(x, thresholds, out_dtype=data_type, out_scale=scale, out_bias=bias, data_layout=layout)


def _real(value: float) -> Any:
    tensor = onnx.helper.make_tensor("value", ir.DataType.FLOAT.value, [], [value])
    return opset21.Constant(value=tensor)

"""A network with QONNX's quantizers as a model: shapes inferred and cleaned by the `qonnx` package."""

from __future__ import annotations

from typing import Any

import onnx
from torch import fx

from sqakd.export.errors import ExportError
from sqakd.export.to_onnx import INPUT, OUTPUT, Deployed, to_onnx


def qonnx_model(lowered: fx.GraphModule, image_shape: tuple[int, int, int]) -> onnx.ModelProto:
    """Return a network as a QONNX model for one normalised image at a time.

    Tools that build hardware need fixed shapes, so the batch size is 1.

    Args:
        lowered: made by `sqakd.export.qonnx.lower.lower_to_qonnx`.
        image_shape: channels, height, width.

    Raises:
        ExportError: if QONNX cannot express a part of the network.
    """
    model = to_onnx(Deployed(lowered, None, None), image_shape, weights="cast")
    try:
        cleaned = _cleaned(model, image_shape)
    except Exception as error:  # the package raises plain exceptions and failed assertions
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ExportError(f"the package qonnx cannot clean the model: {reason}") from error
    known = {value.name for value in (*cleaned.graph.value_info, *cleaned.graph.output)}
    for node in cleaned.graph.node:
        if not known.issuperset(node.output):
            raise ExportError(f"the package qonnx does not know the shape of what {node.op_type} returns")
    return cleaned


def _cleaned(model: onnx.ModelProto, image_shape: tuple[int, int, int]) -> onnx.ModelProto:
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.util.cleanup import cleanup_model

    wrapped = ModelWrapper(model)
    wrapped.set_tensor_shape(INPUT, [1, *image_shape])
    wrapped.set_tensor_shape(OUTPUT, [1, *_shape(model, OUTPUT)[1:]])
    cleaned: Any = cleanup_model(wrapped)
    cleaned.rename_tensor(cleaned.graph.input[0].name, INPUT)
    cleaned.rename_tensor(cleaned.graph.output[0].name, OUTPUT)
    found: onnx.ModelProto = cleaned.model
    return found


def _shape(model: onnx.ModelProto, output: str) -> list[int]:
    (value,) = (value for value in model.graph.output if value.name == output)
    return [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]

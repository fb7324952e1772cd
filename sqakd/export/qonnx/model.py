"""A network with QONNX's quantizers as a model: shapes inferred and cleaned by the `qonnx` package."""

from __future__ import annotations

from typing import Any

import onnx
from torch import nn

from sqakd.export.qonnx.lower import lower_to_qonnx
from sqakd.export.to_onnx import INPUT, OUTPUT, Deployed, to_onnx


def qonnx_model(network: nn.Module, image_shape: tuple[int, int, int]) -> onnx.ModelProto:
    """Return a trained network as a QONNX model for one normalised image at a time.

    Tools that build hardware need fixed shapes, so the batch size is 1.

    Args:
        network: quantized and calibrated, on the CPU.
        image_shape: channels, height, width.

    Raises:
        ExportError: if QONNX cannot express a part of the network.
    """
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.util.cleanup import cleanup_model

    model = to_onnx(Deployed(lower_to_qonnx(network), None, None), image_shape, weights="cast")
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

"""Running ONNX models in the export's tests."""

from __future__ import annotations

import collections
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
from numpy.typing import NDArray
from torch import Tensor, fx

from sqakd.export.modules import IntegerLayer


def session(proto: onnx.ModelProto, **options: Any) -> onnxruntime.InferenceSession:
    chosen = onnxruntime.SessionOptions()
    chosen.log_severity_level = 3
    chosen.intra_op_num_threads = 1
    for key, value in options.items():
        setattr(chosen, key, value)
    return onnxruntime.InferenceSession(proto.SerializeToString(), chosen, providers=["CPUExecutionProvider"])


def run(proto: onnx.ModelProto, x: Tensor) -> NDArray[Any]:
    """Return the logits of images `x`."""
    result: NDArray[Any] = session(proto).run(None, {"image": x.numpy()})[0]
    return result


def executed(proto: onnx.ModelProto, folder: Path) -> collections.Counter[str]:
    """Count the operators after ONNX Runtime's own optimisation, by type."""
    file = str(folder / "optimised.onnx")
    session(proto, optimized_model_filepath=file)
    return collections.Counter(node.op_type for node in onnx.load(file).graph.node)


def weights_by_name(lowered: fx.GraphModule) -> dict[str, IntegerLayer]:
    """Return the integer layers by the name of their weight in the model."""
    return {f"network.{name}.weight": m for name, m in lowered.named_modules() if isinstance(m, IntegerLayer)}

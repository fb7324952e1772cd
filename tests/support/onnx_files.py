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


def input_codes(proto: onnx.ModelProto, names: list[str]) -> tuple[onnx.ModelProto, list[str]]:
    """Return a model that also returns the stored integers of layers' inputs, and the names of these outputs.

    Args:
        proto: unpacked.
        names: names of the layers' modules in the lowered network.
    """
    probed = onnx.ModelProto()
    probed.CopyFrom(proto)
    producers = {output: node for node in probed.graph.node for output in node.output}
    readers = {name: node for node in probed.graph.node for name in node.input}
    found = []
    for name in names:
        node = readers[f"network.{name}.weight"]
        while node.op_type not in ("Conv", "MatMul"):
            node = readers[node.output[0]]
        found.append(producers[node.input[0]].input[0])  # in front of DequantizeLinear
    for output in dict.fromkeys(found):
        probed.graph.output.append(onnx.helper.make_tensor_value_info(output, onnx.TensorProto.UINT8, None))
    return probed, found

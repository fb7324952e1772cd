"""A lowered network as an ONNX model: our operators get nodes that runtimes know how to run on integers.

    requantize   DequantizeLinear, DequantizeLinear(weight) -> Conv -> QuantizeLinear -> Clip      one integer kernel
    convolve     the same up to Conv, its output real
    quantize     Sub -> QuantizeLinear -> Clip

The Clip is on integers and behind QuantizeLinear, because a Clip on real values in front of it keeps ONNX Runtime from
using its integer kernel; TensorRT has no Clip on integers, so `profile=trt` has it in front.

Everything else is torch's own exporter's: https://docs.pytorch.org/docs/stable/onnx_dynamo.html
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import onnx
import onnxscript
import torch
from onnx import TensorProto
from onnxscript import opset21
from torch import Tensor, nn

from sqakd.export import ops as _ops  # noqa: F401  # registers the operators under torch.ops.sqakd
from sqakd.export.errors import ExportError

OPSET = 21
IR_VERSION = 10
INPUT, OUTPUT = "image", "logits"
Weights = Literal["dequantize", "cast"]
op: Any = opset21  # its types know constants, not the values of a graph in the making


class Deployed(nn.Module):
    """A network as it is deployed: with its first step, normalisation, inside or outside.

    Args:
        network: normalised images -> logits.
        mean: of each channel; None if images come normalised.
        std: of each channel.
    """

    def __init__(self, network: nn.Module, mean: Sequence[float] | None, std: Sequence[float] | None) -> None:
        super().__init__()
        self.network = network
        self.inside = mean is not None and std is not None
        if mean is not None and std is not None:
            spread = torch.tensor(std)
            self.register_buffer("factor", (1 / (255 * spread))[:, None, None])
            self.register_buffer("shift", (-torch.tensor(mean) / spread)[:, None, None])

    def forward(self, image: Tensor) -> Tensor:
        """Pixels 0 .. 255, uint8 (or normalised images, float32) [N, 3, H, W] -> logits [N, classes]."""
        if self.inside:
            image = image.float() * self.get_buffer("factor") + self.get_buffer("shift")
        logits: Tensor = self.network(image)
        return logits


@torch.no_grad()
def to_onnx(network: Deployed, image_shape: tuple[int, int, int], *, weights: Weights) -> onnx.ModelProto:
    """Export; the batch is free, and nothing of the exporter's own notes is left in.

    Args:
        network: lowered or float.
        image_shape: channels, height, width.
        weights: how weights of layers with a real output become real: by DequantizeLinear (what OpenVINO and TensorRT
            look for), or by Cast and Mul, which ONNX Runtime does once, when it loads the file, instead of at each run.

    Raises:
        ExportError: if torch's exporter cannot express a part of the network.
    """
    example = torch.zeros(2, *image_shape, dtype=torch.uint8 if network.inside else torch.float32)
    try:
        with _quiet():
            program = torch.onnx.export(
                network.eval(),
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
                custom_translation_table=_table(weights),
                optimize=False,
                external_data=False,
            )
            assert program is not None
            onnxscript.optimizer.optimize_ir(program.model, should_fold=_may_fold)
            model = onnxscript.ir.to_proto(program.model)
    except Exception as error:  # the exporter wraps whatever went wrong in one of its stages
        raise ExportError(
            f"torch cannot write {type(network.network).__name__} as ONNX: {_cause(error)}; a layer of it has no"
            f" counterpart in ONNX opset {OPSET}, or fixes the batch"
        ) from error
    return _clean(model)


def _cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter tells its progress to the terminal, and others' libraries warn of each other."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _may_fold(node: Any) -> bool | None:
    """Integer weights are to stay integers."""
    small = (onnxscript.ir.DataType.INT8, onnxscript.ir.DataType.UINT8)
    return False if any(value is not None and value.dtype in small for value in node.inputs) else None


def _clean(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without stack traces, scopes and shapes of inner values: half of a small network's file."""
    for thing in (model, model.graph, *model.graph.node, *model.graph.input, *model.graph.output):
        thing.ClearField("doc_string")
        thing.ClearField("metadata_props")
    for tensor in model.graph.initializer:
        tensor.ClearField("metadata_props")
        tensor.ClearField("doc_string")
    model.graph.ClearField("value_info")
    model.graph.ClearField("metadata_props")
    model.ClearField("functions")
    model.ir_version = IR_VERSION
    model.graph.name = "sqakd"
    for entry in model.opset_import:
        if entry.domain:
            continue
        assert entry.version == OPSET
    _shorten(model)
    onnx.checker.check_model(model, full_check=True)
    model.graph.ClearField("value_info")
    return model


def _shorten(model: onnx.ModelProto) -> None:
    """Values and nodes get short names; inputs, outputs and weights keep theirs."""
    kept = {value.name for value in (*model.graph.input, *model.graph.output)}
    kept |= {tensor.name for tensor in model.graph.initializer}
    names: dict[str, str] = {"": ""}
    for number, node in enumerate(model.graph.node):
        node.name = f"n{number}"
        for name in node.output:
            names.setdefault(name, name if name in kept else f"v{len(names)}")
        for names_of, fields in ((names, node.input), (names, node.output)):
            for i, name in enumerate(fields):
                fields[i] = names_of.get(name, name)
    for domain in [entry for entry in model.opset_import if entry.domain]:
        if all(node.domain != domain.domain for node in model.graph.node):
            model.opset_import.remove(domain)


# translations


def _integer(value: int, signed: bool) -> Any:
    kind = TensorProto.INT8 if signed else TensorProto.UINT8
    return op.Constant(value=onnx.helper.make_tensor("value", kind, [], [value]))


def _real(value: float) -> Any:
    return op.Constant(value=onnx.helper.make_tensor("value", TensorProto.FLOAT, [], [value]))


def _to_stored(y: Any, step: float, shift: int, low: int, high: int, gap: int, signed: bool) -> Any:
    """Real values, the origin already taken off -> stored integers."""
    if signed:
        if (low, high) != (-128, 127):
            y = op.Clip(y, _real((low - shift) * step), _real((high - shift) * step))
        return op.QuantizeLinear(y, _real(step), _integer(shift, signed))
    stored = op.QuantizeLinear(y, _real(step), _integer(shift, signed))
    if (low, high) != (0, 255):
        stored = op.Clip(stored, _integer(low, signed), _integer(high, signed))
    if gap != 1:
        factor = op.Constant(value=onnx.helper.make_tensor("value", TensorProto.INT32, [], [gap]))
        wide = op.Mul(op.Cast(stored, to=TensorProto.INT32), factor)
        stored = op.Cast(wide, to=TensorProto.UINT8)
    return stored


def _quantize(x: Any, origin: float, step: float, shift: int, low: int, high: int, gap: int, signed: bool) -> Any:
    centred = op.Sub(x, _real(origin)) if origin else x
    return _to_stored(centred, step, shift, low, high, gap, signed)


def _values(x: Any, scale: float, zero_point: int) -> Any:
    return op.DequantizeLinear(x, _real(scale), _integer(zero_point, x.dtype == onnxscript.ir.DataType.INT8))


def _convolution(x: Any, weight: Any, bias: Any, stride: Any, pads: Any, dilation: Any, groups: int) -> Any:
    return op.Conv(x, weight, bias, strides=list(stride), pads=list(pads), dilations=list(dilation), group=int(groups))


def _requantize(
    x: Any,
    weight: Any,
    weight_scale: Any,
    bias: Any,
    input_scale: float,
    zero_point: int,
    stride: Any,
    pads: Any,
    dilation: Any,
    groups: int,
    step: float,
    shift: int,
    low: int,
    high: int,
    gap: int,
    signed: bool,
) -> Any:
    real_weight = op.DequantizeLinear(weight, weight_scale, axis=0)
    y = _convolution(_values(x, input_scale, zero_point), real_weight, bias, stride, pads, dilation, groups)
    return _to_stored(y, step, shift, low, high, gap, signed)


def _real_weight(weight: Any, weight_scale: Any, weights: Weights) -> Any:
    if weights == "dequantize":
        return op.DequantizeLinear(weight, weight_scale, axis=0)
    shape = op.Constant(value_ints=[-1, *[1] * (len(weight.shape) - 1)])
    return op.Mul(op.Cast(weight, to=TensorProto.FLOAT), op.Reshape(weight_scale, shape))


def _table(weights: Weights) -> dict[Callable[..., Any], Callable[..., Any]]:
    def convolve(
        x: Any,
        weight: Any,
        weight_scale: Any,
        bias: Any,
        input_scale: float,
        zero_point: int,
        stride: Any,
        pads: Any,
        dilation: Any,
        groups: int,
    ) -> Any:
        real = _real_weight(weight, weight_scale, weights)
        return _convolution(_values(x, input_scale, zero_point), real, bias, stride, pads, dilation, groups)

    def multiply(x: Any, weight: Any, weight_scale: Any, bias: Any, input_scale: float, zero_point: int) -> Any:
        real = op.Transpose(_real_weight(weight, weight_scale, weights), perm=[1, 0])
        return op.Add(op.MatMul(_values(x, input_scale, zero_point), real), bias)

    def eight(x: Any, scale: float, zero_point: int, signed: bool) -> Any:
        stored = op.QuantizeLinear(x, _real(scale), _integer(zero_point, signed))
        return op.DequantizeLinear(stored, _real(scale), _integer(zero_point, signed))

    names = torch.ops.sqakd
    return {
        names.quantize.default: _quantize,
        names.convolve.default: convolve,
        names.requantize.default: _requantize,
        names.multiply.default: multiply,
        names.eight.default: eight,
    }

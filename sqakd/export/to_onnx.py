"""A lowered or float network as an ONNX model.

torch's exporter writes the model (https://docs.pytorch.org/docs/stable/onnx_dynamo.html). The operators of a lowered
network are translated in `sqakd.export.translations`.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import onnx
import onnxscript
import torch
from torch import Tensor, nn

from sqakd.errors import raised_in
from sqakd.export.errors import ExportError
from sqakd.export.minimal_model import minimise
from sqakd.export.own_weights import separate_weights
from sqakd.export.translations import Weights, translations

OPSET = 21
INPUT, OUTPUT = "image", "logits"


class Deployed(nn.Module):
    """A network in the form in which it is deployed: with or without normalisation as its first step.

    Args:
        network: normalised images -> logits.
        mean: mean of each channel, of pixels scaled to 0 .. 1; None if the images come normalised.
        std: standard deviation of each channel.
    """

    def __init__(self, network: nn.Module, mean: Sequence[float] | None, std: Sequence[float] | None) -> None:
        super().__init__()
        self.network = network
        self.takes_pixels = mean is not None and std is not None
        if mean is not None and std is not None:
            # (pixel / 255 - mean) / std as one product and one sum.
            spread = torch.tensor(std)
            self.register_buffer("factor", (1 / (255 * spread))[:, None, None])
            self.register_buffer("shift", (-torch.tensor(mean) / spread)[:, None, None])

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits [N, classes] of pixels 0 .. 255, uint8 [N, 3, H, W], or of normalised images, float32."""
        if self.takes_pixels:
            image = image.float() * self.get_buffer("factor") + self.get_buffer("shift")
        logits: Tensor = self.network(image)
        return logits


@torch.no_grad()
def to_onnx(network: Deployed, image_shape: tuple[int, int, int], *, weights: Weights) -> onnx.ModelProto:
    """Return a network as an ONNX model with a free batch size.

    Args:
        network: lowered or float.
        image_shape: channels, height, width.
        weights: how weights of layers with a real output become real. "dequantize" uses DequantizeLinear, the pattern
            that OpenVINO and TensorRT look for. "cast" uses Cast and Mul, which ONNX Runtime computes once, when it
            loads the file, instead of in each run.

    Raises:
        ExportError: if torch's exporter cannot express a part of the network.
    """
    example = torch.zeros(2, *image_shape, dtype=torch.uint8 if network.takes_pixels else torch.float32)
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
                custom_translation_table=translations(weights),
                optimize=False,
                external_data=False,
            )
            assert program is not None
            onnxscript.optimizer.optimize_ir(program.model, should_fold=_may_fold)
            model = onnxscript.ir.to_proto(program.model)
    except Exception as error:  # the exporter wraps the errors of its stages in several classes
        cause = _first_cause(error)
        if raised_in(cause, "export"):  # a mistake in our own translations
            raise
        raise ExportError(
            f"torch cannot write {type(network.network).__name__} as ONNX: {_first_line(cause)}; one of its layers has"
            f" no counterpart in ONNX opset {OPSET}, or fixes the batch size"
        ) from error
    separate_weights(model)
    return minimise(model, OPSET)


def _first_cause(error: BaseException) -> BaseException:
    """Return the error at the end of the chain of causes."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the exporter's progress on the terminal, and the warnings of the libraries that it uses."""
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
    """Keep integer weights: folding would replace them by the real weights that are computed from them."""
    small = (onnxscript.ir.DataType.INT8, onnxscript.ir.DataType.UINT8)
    return False if any(value is not None and value.dtype in small for value in node.inputs) else None

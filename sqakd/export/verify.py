"""The proof: each runtime's predictions from the file, compared with the trained network on the validation images.

The file gets the images as its users read them, and the trained network gets the images of its data set.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sqakd.export.to_onnx import INPUT
from sqakd.export.trained import ValidationBatch
from sqakd.runs.export_record import Verdict

Logits = NDArray[np.float32]
Run = Callable[[NDArray[Any]], Logits]
# Opens a file and returns the runtime's name and version, and the function from a batch to logits.
Runtime = Callable[[Path], tuple[str, Run]]


def onnxruntime_session(file: Path) -> tuple[str, Run]:
    """Open a file in ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return f"ONNX Runtime {onnxruntime.__version__}", lambda batch: session.run(None, {INPUT: batch})[0]


def openvino_session(file: Path) -> tuple[str, Run]:
    """Open a file in OpenVINO; float parts in float32, because some machines would use bfloat16."""
    import openvino

    compiled = openvino.Core().compile_model(str(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    version = openvino.__version__.split("-", 1)[0]
    return f"OpenVINO {version}", lambda batch: np.asarray(compiled({INPUT: batch})[0])


def installed_runtimes() -> Sequence[Runtime]:
    """Return the runtimes that are installed."""
    found: list[Runtime] = [onnxruntime_session]
    if importlib.util.find_spec("openvino") is not None:
        found.append(openvino_session)
    return found


@torch.no_grad()
def verify(
    file: Path, network: nn.Module, batches: Iterable[ValidationBatch], *, pixels: bool, runtimes: Sequence[Runtime]
) -> list[Verdict]:
    """Compare a file with the network that it was made from, in each runtime.

    Args:
        file: ONNX.
        network: trained, in evaluation, on the CPU.
        batches: validation images.
        pixels: whether the file takes pixels instead of normalised images.
        runtimes: runtimes that run the file.
    """
    sessions = [open_in(file) for open_in in runtimes]
    trained: list[Logits] = []
    exported: list[list[Logits]] = [[] for _ in sessions]
    labels: list[Tensor] = []
    network.eval()
    for batch in batches:
        trained.append(network(batch.images).float().numpy())
        for logits, (_, run) in zip(exported, sessions, strict=True):
            logits.append(run((batch.pixels if pixels else batch.inputs).contiguous().numpy()))
        if batch.labels is not None:
            labels.append(batch.labels)
    truth = torch.cat(labels).numpy() if labels else None
    reference = np.concatenate(trained)
    return [
        _verdict(name, np.concatenate(logits), reference, truth)
        for (name, _), logits in zip(sessions, exported, strict=True)
    ]


def _verdict(name: str, got: Logits, wanted: Logits, truth: NDArray[Any] | None) -> Verdict:
    difference = np.abs(got - wanted).max(axis=1)
    predicted, trained_predicted = got.argmax(axis=1), wanted.argmax(axis=1)
    return Verdict(
        runtime=name,
        images=len(got),
        agreement=float((predicted == trained_predicted).mean()),
        largest_difference=float(difference.max()),
        median_difference=float(np.median(difference)),
        spread=float(wanted.std()),
        top1=None if truth is None else float((predicted == truth).mean()),
        trained_top1=None if truth is None else float((trained_predicted == truth).mean()),
    )

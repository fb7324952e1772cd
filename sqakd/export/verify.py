"""Does the file say what the trained network says? Asked of each runtime, on the run's own validation images."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sqakd.export.to_onnx import INPUT
from sqakd.runs.export_record import Verdict

Logits = NDArray[np.float32]
# Opens a file: its own name and version, and what turns a batch into logits.
Runtime = Callable[[Path], tuple[str, Callable[[NDArray[Any]], Logits]]]


class Examples(NamedTuple):
    """One batch.

    Attributes:
        pixels: 0 .. 255, uint8 [N, 3, H, W].
        images: the same, normalised, float32.
        labels: [N], or None.
    """

    pixels: Tensor
    images: Tensor
    labels: Tensor | None


def onnxruntime_session(file: Path) -> tuple[str, Callable[[NDArray[Any]], Logits]]:
    """Name of the runtime, and what turns a batch into logits."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return f"ONNX Runtime {onnxruntime.__version__}", lambda batch: session.run(None, {INPUT: batch})[0]


def openvino_session(file: Path) -> tuple[str, Callable[[NDArray[Any]], Logits]]:
    """The same for OpenVINO; float parts in float32, where it would choose bfloat16 on some machines."""
    import openvino

    compiled = openvino.Core().compile_model(str(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    version = openvino.__version__.split("-", 1)[0]
    return f"OpenVINO {version}", lambda batch: np.asarray(compiled({INPUT: batch})[0])


def runtimes() -> Sequence[Runtime]:
    """Those that are installed."""
    found: list[Runtime] = [onnxruntime_session]
    if importlib.util.find_spec("openvino") is not None:
        found.append(openvino_session)
    return found


@torch.no_grad()
def verify(file: Path, network: nn.Module, batches: Iterable[Examples], *, pixels: bool) -> list[Verdict]:
    """Compare a file with the network it was made from.

    Args:
        file: ONNX.
        network: trained, in evaluation, on the CPU.
        batches: validation images.
        pixels: whether the file takes pixels rather than normalised images.
    """
    sessions = [make(file) for make in runtimes()]
    wanted: list[Logits] = []
    got: list[list[Logits]] = [[] for _ in sessions]
    labels: list[Tensor] = []
    network.eval()
    for batch in batches:
        wanted.append(network(batch.images).float().numpy())
        for found, (_, run) in zip(got, sessions, strict=True):
            found.append(run((batch.pixels if pixels else batch.images).contiguous().numpy()))
        if batch.labels is not None:
            labels.append(batch.labels)
    truth = torch.cat(labels).numpy() if labels else None
    reference = np.concatenate(wanted)
    return [
        _verdict(name, np.concatenate(found), reference, truth) for (name, _), found in zip(sessions, got, strict=True)
    ]


def _verdict(name: str, got: Logits, wanted: Logits, truth: NDArray[Any] | None) -> Verdict:
    difference = np.abs(got - wanted).max(axis=1)
    first, trained_first = got.argmax(axis=1), wanted.argmax(axis=1)
    return Verdict(
        runtime=name,
        images=len(got),
        agreement=float((first == trained_first).mean()),
        largest_difference=float(difference.max()),
        median_difference=float(np.median(difference)),
        spread=float(wanted.std()),
        top1=None if truth is None else float((first == truth).mean()),
        trained_top1=None if truth is None else float((trained_first == truth).mean()),
    )

"""Speed of the exported files on this machine, each runtime in a process of its own.

Each round measures all processes, one after the other, so that other load on the machine affects all of them alike.
Warm-up is not counted. Ratios compare medians with those of ONNX Runtime on the float file, at the same batch size and
number of threads.
"""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sqakd.export.machine import machine
from sqakd.export.measured_process import MeasuredProcess
from sqakd.export.options import Timing

BASELINE = "ONNX Runtime float"


@dataclass(frozen=True)
class Contender:
    """One runtime on one file."""

    name: str
    runtime: str
    file: Path


def contenders(program: Path, files: Mapping[str, Path]) -> list[Contender]:
    """Return what is compared: torch on its own file, and each installed runtime on each ONNX file.

    Args:
        program: the float network as torch.export saves it.
        files: ONNX files by the name that the results give them.
    """
    torch_contenders = [
        Contender("torch eager float", "torch", program),
        Contender("torch.compile float", "torch.compile", program),
    ]
    runtimes = {"ONNX Runtime": "onnxruntime"}
    if importlib.util.find_spec("openvino") is not None:
        runtimes["OpenVINO"] = "openvino"
    return torch_contenders + [
        Contender(f"{title} {name}", runtime, file)
        for title, runtime in runtimes.items()
        for name, file in files.items()
    ]


def benchmark(
    files: Mapping[str, Path],
    float_network: nn.Module,
    image_shape: tuple[int, int, int],
    *,
    pixels: bool,
    timing: Timing,
) -> dict[str, Any]:
    """Measure ONNX files side by side.

    Args:
        files: ONNX files by the name that the results give them; "float" is what the others are compared with.
        float_network: takes what the files take.
        image_shape: channels, height, width.
        pixels: whether the files take uint8.
        timing: how much is measured.

    Returns:
        The machine, one row for each runtime, batch size and number of threads, the operators that the runtimes
        executed, and the runtimes that could not be measured.
    """
    rows: list[dict[str, Any]] = []
    executed: dict[str, dict[str, int]] = {}
    missing: set[str] = set()
    program = files["float"].with_name(".float.pt2")
    _save_program(float_network, image_shape, program, pixels=pixels)
    try:
        for threads in timing.threads:
            measured, failed = _measure(contenders(program, files), threads, image_shape, pixels=pixels, timing=timing)
            missing |= failed
            for process in measured:
                rows += process.results()
                executed[process.name] = process.facts["executed"]
    finally:
        program.unlink(missing_ok=True)
    _add_ratios(rows)
    return {
        "machine": machine(),
        "rows": rows,
        "executed": {name: operators for name, operators in executed.items() if operators},
        "missing": sorted(missing),
    }


def _measure(
    contenders: list[Contender], threads: int, image_shape: tuple[int, int, int], *, pixels: bool, timing: Timing
) -> tuple[list[MeasuredProcess], set[str]]:
    """Measure all contenders with a number of threads; return their processes, and the names of those that failed."""
    running: list[MeasuredProcess] = []
    failed: set[str] = set()
    dtype = "uint8" if pixels else "float32"
    with ExitStack() as stack:
        for contender in contenders:
            process = MeasuredProcess(
                contender.name, contender.runtime, contender.file, threads, image_shape, dtype, timing.batches
            )
            stack.callback(process.end)
            # Waiting here, before the next process starts, keeps the load times apart.
            if process.ready():
                running.append(process)
            else:
                failed.add(contender.name)
        for _ in range(timing.rounds):
            for batch in timing.batches:
                for process in running:
                    process.measure(batch, timing.seconds)
    return running, failed


def _save_program(network: nn.Module, image_shape: tuple[int, int, int], file: Path, *, pixels: bool) -> None:
    """Save the float network so that a process without its source code can run it in torch."""
    example = torch.zeros(2, *image_shape, dtype=torch.uint8 if pixels else torch.float32)
    shapes = ({0: torch.export.Dim("batch", min=1)},)
    buffer = io.BytesIO()  # torch itself would turn a full disk into an error without a reason
    torch.export.save(torch.export.export(network.eval(), (example,), dynamic_shapes=shapes), buffer)
    file.write_bytes(buffer.getbuffer())


def _add_ratios(rows: list[dict[str, Any]]) -> None:
    """Add to each row how many times faster it is than the baseline; None without a baseline."""
    base = {(row["batch"], row["threads"]): row["p50_ms"] for row in rows if row["name"] == BASELINE}
    for row in rows:
        known = base.get((row["batch"], row["threads"]))
        row["ratio"] = known / row["p50_ms"] if known else None

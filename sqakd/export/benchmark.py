"""How fast the files are here: each runtime in a process of its own, all of them in turn, round after round.

A round asks every process once, so that whatever else the machine does meanwhile is shared by all. Warm-up is not
counted. Ratios are of medians, over ONNX Runtime on the float file with the same batch and threads.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sqakd.export.errors import ExportError

BASELINE = "ONNX Runtime float"
ISAS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "amx_int8", "asimd", "asimddp", "i8mm")


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How much is measured.

    Attributes:
        rounds: how often each process is asked; 0: nothing is measured.
        seconds: that it runs each time, per batch.
        batches: numbers of images.
        threads: numbers of threads.
    """

    rounds: int
    seconds: float
    batches: list[int]
    threads: list[int]

    def __post_init__(self) -> None:
        if self.rounds < 0 or self.seconds <= 0:
            raise ExportError(
                f"benchmark.rounds={self.rounds} benchmark.seconds={self.seconds}: expected more than 0, or rounds=0"
            )
        for key in ("batches", "threads"):
            if not getattr(self, key) or min(getattr(self, key)) < 1:
                raise ExportError(f"benchmark.{key}={getattr(self, key)}: expected numbers from 1, e.g. [1,2]")


@dataclass(frozen=True)
class Contender:
    """One runtime on one file."""

    name: str
    runtime: str
    file: Path


def contenders(program: Path, files: Mapping[str, Path]) -> list[Contender]:
    """What is compared: torch on its own file, and each runtime on each ONNX file, called by its name here."""
    found = [
        Contender("torch eager float", "torch", program),
        Contender("torch.compile float", "torch.compile", program),
    ]
    runtimes = {"ONNX Runtime": "onnxruntime"}
    if importlib.util.find_spec("openvino") is not None:
        runtimes["OpenVINO"] = "openvino"
    return found + [
        Contender(f"{title} {name}", runtime, file)
        for title, runtime in runtimes.items()
        for name, file in files.items()
    ]


class _Process:
    """A stopwatch that waits."""

    def __init__(self, contender: Contender, threads: int, shape: tuple[int, ...], kind: str, timing: Timing) -> None:
        self.name, self.threads = contender.name, threads
        self.times: dict[int, list[float]] = {batch: [] for batch in timing.batches}
        self.peak = 0
        words = [contender.runtime, str(contender.file), str(threads), json.dumps(shape), kind]
        # Threads that spin while they wait would slow down whoever is measured next.
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}
        root = str(Path(__file__).parents[2])
        environment["PYTHONPATH"] = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
        self.process = subprocess.Popen(
            [sys.executable, "-m", "sqakd.export.stopwatch", *words, *map(str, timing.batches)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        self.facts: dict[str, Any] | None = None

    def ready(self) -> bool:
        self.facts = self._read()
        return self.facts is not None

    def ask(self, batch: int, seconds: float) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{batch} {seconds}\n")
        self.process.stdin.flush()
        answer = self._read()
        if answer is None:
            raise ExportError(f"{self.name} ended while it was measured; type benchmark.rounds=0 to export without it")
        self.times[batch] += answer["times"]
        self.peak = max(self.peak, answer["peak_bytes"])

    def _read(self) -> dict[str, Any] | None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                return answer
        return None

    def end(self) -> None:
        assert self.process.stdin is not None
        if self.process.poll() is None:
            self.process.stdin.close()
            try:
                self.process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def results(self) -> Iterator[dict[str, Any]]:
        assert self.facts is not None
        for batch, found in self.times.items():
            p10, p50, p90 = (float(1000 * value) for value in np.percentile(found, (10, 50, 90)))
            yield {
                "name": self.name,
                "version": self.facts["version"],
                "batch": batch,
                "threads": self.threads,
                "p10_ms": p10,
                "p50_ms": p50,
                "p90_ms": p90,
                "runs": len(found),
                "load_ms": 1000 * self.facts["load_seconds"],
                "peak_bytes": self.peak,
            }


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
        files: by the name that the results give them; "float" is what the others are compared with.
        float_network: takes what the files take.
        image_shape: channels, height, width.
        pixels: whether the files take uint8.
        timing: how much.

    Returns:
        The machine, one row for each runtime, batch and number of threads, the operators that were executed, and which
        runtimes could not be measured.
    """
    rows: list[dict[str, Any]] = []
    executed: dict[str, dict[str, int]] = {}
    missing: list[str] = []
    program = files["float"].with_name(".float.pt2")
    _save_program(float_network, image_shape, program, pixels=pixels)
    try:
        for threads in timing.threads:
            with ExitStack() as stack:
                running = []
                for contender in contenders(program, files):
                    process = _Process(contender, threads, image_shape, "uint8" if pixels else "float32", timing)
                    stack.callback(process.end)
                    if process.ready():  # before the next one starts, so that load times are its own
                        running.append(process)
                    else:
                        missing.append(contender.name)
                for _ in range(timing.rounds):
                    for batch in timing.batches:
                        for process in running:
                            process.ask(batch, timing.seconds)
                for process in running:
                    rows += process.results()
                    assert process.facts is not None
                    executed[process.name] = process.facts["executed"]
    finally:
        program.unlink(missing_ok=True)
    _add_ratios(rows)
    return {
        "machine": machine(),
        "rows": rows,
        "executed": {name: ops for name, ops in executed.items() if ops},
        "missing": sorted(set(missing)),
    }


def _save_program(network: nn.Module, image_shape: tuple[int, int, int], file: Path, *, pixels: bool) -> None:
    example = torch.zeros(2, *image_shape, dtype=torch.uint8 if pixels else torch.float32)
    shapes = ({0: torch.export.Dim("batch", min=1)},)
    torch.export.save(torch.export.export(network.eval(), (example,), dynamic_shapes=shapes), file)


def _add_ratios(rows: list[dict[str, Any]]) -> None:
    base = {(row["batch"], row["threads"]): row["p50_ms"] for row in rows if row["name"] == BASELINE}
    for row in rows:
        known = base.get((row["batch"], row["threads"]))
        row["ratio"] = known / row["p50_ms"] if known else None


def machine() -> dict[str, Any]:
    """Processor, what of its instructions matters for integers, cores, load, and Python."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    lines = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in lines.items()}
    flags = fields.get("flags", fields.get("Features", "")).split()
    return {
        "processor": fields.get("model name", platform.processor() or platform.machine()),
        "isa": [isa for isa in ISAS if isa in flags],
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
    }

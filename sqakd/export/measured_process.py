"""A process that runs one file in one runtime and measures itself on request; the other end is `stopwatch`."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sqakd.export.errors import ExportError


class MeasuredProcess:
    """One runtime with one file, in a process of its own.

    Args:
        name: name in the results and in messages.
        runtime: key of `stopwatch.RUNTIMES`.
        file: file that the runtime opens.
        threads: number of threads.
        shape: channels, height, width of an image.
        dtype: "uint8" or "float32", type of the images.
        batches: batch sizes.
    """

    def __init__(
        self, name: str, runtime: str, file: Path, threads: int, shape: tuple[int, ...], dtype: str, batches: list[int]
    ) -> None:
        self.name, self.threads = name, threads
        self.times: dict[int, list[float]] = {batch: [] for batch in batches}
        self.peak = 0
        arguments = [runtime, str(file), str(threads), json.dumps(shape), dtype, *map(str, batches)]
        # Threads that wait by spinning would slow down the process that is measured next.
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}
        root = str(Path(__file__).parents[2])
        environment["PYTHONPATH"] = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
        self.process = subprocess.Popen(
            [sys.executable, "-m", "sqakd.export.stopwatch", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        self.facts: dict[str, Any] = {}

    def ready(self) -> bool:
        """Wait until the file is open and warm; return whether this succeeded."""
        self.facts = self._read() or {}
        return bool(self.facts)

    def measure(self, batch: int, seconds: float) -> None:
        """Run batches for some seconds and keep the time of each.

        Raises:
            ExportError: if the process ended.
        """
        assert self.process.stdin is not None
        answer = None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(f"{batch} {seconds}\n")
            self.process.stdin.flush()
            answer = self._read()
        if answer is None:
            raise ExportError(f"{self.name} ended while its speed was measured", topic="export.benchmark")
        self.times[batch] += answer["times"]
        self.peak = max(self.peak, answer["peak_bytes"])

    def _read(self) -> dict[str, Any] | None:
        """Return the next answer, or None if the process ended; runtimes may print other lines between answers."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                return answer
        return None

    def end(self) -> None:
        """End the process, by force if it does not end by itself."""
        assert self.process.stdin is not None
        if self.process.poll() is None:
            self.process.stdin.close()
            try:
                self.process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def results(self) -> Iterator[dict[str, Any]]:
        """Yield one row per batch size: percentiles of the times, time to load, and peak memory."""
        for batch, times in self.times.items():
            p10, p50, p90 = (float(1000 * value) for value in np.percentile(times, (10, 50, 90)))
            yield {
                "name": self.name,
                "version": self.facts["version"],
                "batch": batch,
                "threads": self.threads,
                "p10_ms": p10,
                "p50_ms": p50,
                "p90_ms": p90,
                "runs": len(times),
                "load_ms": 1000 * self.facts["load_seconds"],
                "peak_bytes": self.peak,
            }

"""One runtime in a process of its own, measured on demand.

    python -m sqakd.export.stopwatch RUNTIME FILE THREADS SHAPE KIND BATCH...

Several runtimes in one process disturb each other (their threads wait by spinning), so each gets a process that opens
one file and then waits. A line "BATCH SECONDS" on standard input makes it run for so long; each answer is one line of
JSON. An empty line or the end of the input ends it.
"""

from __future__ import annotations

import collections
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Run = Callable[[], object]
WARM_UP_SECONDS, WARM_UP_RUNS, LEAST_RUNS = 0.2, 3, 5


class Opened:
    """A file in a runtime: what runs a batch, what the runtime made of the file, and its version."""

    def __init__(self, version: str, make: Callable[[int], Run], executed: dict[str, int]) -> None:
        self.version, self.make, self.executed = version, make, executed


def _image(batch: int, shape: list[int], kind: str) -> np.ndarray[Any, Any]:
    random = np.random.default_rng(0)
    if kind == "uint8":
        return random.integers(0, 256, (batch, *shape), dtype=np.uint8)
    return random.standard_normal((batch, *shape)).astype(np.float32)


def open_onnxruntime(file: str, threads: int, shape: list[int], kind: str) -> Opened:
    """ONNX Runtime; executed operators are those of its own optimised graph."""
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder) / "optimised.onnx")
        onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        graph = onnx.load(options.optimized_model_filepath).graph
    name = session.get_inputs()[0].name

    def make(batch: int) -> Run:
        feed = {name: _image(batch, shape, kind)}
        return lambda: session.run(None, feed)

    return Opened(onnxruntime.__version__, make, dict(collections.Counter(node.op_type for node in graph.node)))


def open_openvino(file: str, threads: int, shape: list[int], kind: str) -> Opened:
    """OpenVINO, compiled for each batch; executed operators with the kernel that runs them."""
    import openvino

    core = openvino.Core()
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
    executed: collections.Counter[str] = collections.Counter()

    def make(batch: int) -> Run:
        model = core.read_model(file)
        model.reshape([batch, *shape])
        compiled = core.compile_model(model, "CPU", options)
        executed.clear()
        for node in compiled.get_runtime_model().get_ops():
            facts = node.get_rt_info()
            kernel = facts["primitiveType"].astype(str) if "primitiveType" in facts else ""
            executed[f"{facts['layerType'].astype(str)} {kernel}".strip()] += 1
        request = compiled.create_infer_request()
        image = _image(batch, shape, kind)
        return lambda: request.infer({0: image}, share_inputs=True)

    make(1)
    return Opened(openvino.__version__.split("-", 1)[0], make, executed)


def open_torch(file: str, threads: int, shape: list[int], kind: str, *, compiled: bool = False) -> Opened:
    """torch, eager or compiled; the file is an exported program."""
    import torch

    torch.set_num_threads(threads)
    network: Any = torch.export.load(file).module()
    if compiled:
        network = torch.compile(network)

    def make(batch: int) -> Run:
        image = torch.from_numpy(_image(batch, shape, kind))

        def run() -> object:
            with torch.inference_mode():
                return network(image)

        return run

    return Opened(torch.__version__, make, {})


def open_compiled(file: str, threads: int, shape: list[int], kind: str) -> Opened:
    """torch.compile."""
    return open_torch(file, threads, shape, kind, compiled=True)


RUNTIMES: dict[str, Callable[[str, int, list[int], str], Opened]] = {
    "onnxruntime": open_onnxruntime,
    "openvino": open_openvino,
    "torch": open_torch,
    "torch.compile": open_compiled,
}


def times(run: Run, seconds: float) -> list[float]:
    """Seconds of each run, for so long, but at least a few runs."""
    found: list[float] = []
    end = time.perf_counter() + seconds
    while len(found) < LEAST_RUNS or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    return found


def warm_up(run: Run) -> None:
    """Until the runtime has made what it makes once."""
    end, runs = time.perf_counter() + WARM_UP_SECONDS, 0
    while runs < WARM_UP_RUNS or time.perf_counter() < end:
        run()
        runs += 1


def peak_bytes() -> int:
    """Largest resident memory of this process; what getrusage says on Linux may be its parent's."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def answer(**content: Any) -> None:
    """One line for the process that asks."""
    print(json.dumps(content), flush=True)  # noqa: T201


def main() -> None:
    """Command line; see the module's text."""
    runtime, file, threads, shape, kind, *batches = sys.argv[1:]
    start = time.perf_counter()
    opened = RUNTIMES[runtime](file, int(threads), json.loads(shape), kind)
    loaded = time.perf_counter() - start
    runs: dict[int, Run] = {}
    for batch in map(int, batches):
        runs[batch] = opened.make(batch)
        warm_up(runs[batch])
    answer(version=opened.version, load_seconds=loaded, executed=dict(opened.executed), machine=platform.machine())
    for line in sys.stdin:
        if not line.strip():
            break
        asked, seconds = line.split()
        found = times(runs[int(asked)], float(seconds))
        answer(times=found, peak_bytes=peak_bytes())
    os._exit(0)  # runtimes may wait for their threads for seconds


if __name__ == "__main__":
    main()

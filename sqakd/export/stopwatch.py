"""One runtime in a process of its own, which measures itself on request.

    python -m sqakd.export.stopwatch RUNTIME FILE THREADS SHAPE DTYPE BATCH...

Several runtimes in one process disturb each other, because their threads wait by spinning. So each gets a process that
opens one file and then waits. A line "BATCH SECONDS" on standard input starts a measurement of that duration, and each
answer is one line of JSON. An empty line or the end of the input ends the process.
"""

from __future__ import annotations

import collections
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Run = Callable[[], object]
WARM_UP_SECONDS, WARM_UP_RUNS, LEAST_RUNS = 0.2, 3, 5


@dataclass(frozen=True)
class Opened:
    """A file that a runtime has opened.

    Attributes:
        version: version of the runtime.
        prepare: returns the function that runs one batch of the given size.
        executed: number of operators of each type that the runtime executes, as it reports them itself.
    """

    version: str
    prepare: Callable[[int], Run]
    executed: dict[str, int]


def _images(batch: int, shape: list[int], dtype: str) -> np.ndarray[Any, Any]:
    """Return a batch of random images [N, C, H, W]."""
    random = np.random.default_rng(0)
    if dtype == "uint8":
        return random.integers(0, 256, (batch, *shape), dtype=np.uint8)
    return random.standard_normal((batch, *shape)).astype(np.float32)


def open_onnxruntime(file: str, threads: int, shape: list[int], dtype: str) -> Opened:
    """Open a file in ONNX Runtime; the executed operators are those of its own optimised graph."""
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

    def prepare(batch: int) -> Run:
        feed = {name: _images(batch, shape, dtype)}
        return lambda: session.run(None, feed)

    return Opened(onnxruntime.__version__, prepare, dict(collections.Counter(node.op_type for node in graph.node)))


def open_openvino(file: str, threads: int, shape: list[int], dtype: str) -> Opened:
    """Open a file in OpenVINO, compiled for each batch size; executed operators are named with their kernel."""
    import openvino

    core = openvino.Core()
    # Float parts in float32, because some machines would use bfloat16; one stream measures latency, not throughput.
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
    executed: collections.Counter[str] = collections.Counter()

    def prepare(batch: int) -> Run:
        model = core.read_model(file)
        model.reshape([batch, *shape])
        compiled = core.compile_model(model, "CPU", options)
        executed.clear()
        for node in compiled.get_runtime_model().get_ops():
            facts = node.get_rt_info()
            kernel = facts["primitiveType"].astype(str) if "primitiveType" in facts else ""
            executed[f"{facts['layerType'].astype(str)} {kernel}".strip()] += 1
        request = compiled.create_infer_request()
        images = _images(batch, shape, dtype)
        return lambda: request.infer({0: images}, share_inputs=True)

    prepare(1)
    return Opened(openvino.__version__.split("-", 1)[0], prepare, executed)


def open_torch(file: str, threads: int, shape: list[int], dtype: str, *, compiled: bool = False) -> Opened:
    """Open an exported program in torch, eager or compiled."""
    import torch

    torch.set_num_threads(threads)
    network: Any = torch.export.load(file).module()
    if compiled:
        network = torch.compile(network)

    def prepare(batch: int) -> Run:
        images = torch.from_numpy(_images(batch, shape, dtype))

        def run() -> object:
            with torch.inference_mode():
                return network(images)

        return run

    return Opened(torch.__version__, prepare, {})


def open_compiled(file: str, threads: int, shape: list[int], dtype: str) -> Opened:
    """Open an exported program in torch, compiled."""
    return open_torch(file, threads, shape, dtype, compiled=True)


RUNTIMES: dict[str, Callable[[str, int, list[int], str], Opened]] = {
    "onnxruntime": open_onnxruntime,
    "openvino": open_openvino,
    "torch": open_torch,
    "torch.compile": open_compiled,
}


def measure(run: Run, seconds: float) -> list[float]:
    """Run for some seconds, but at least a few times, and return the seconds of each run."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < LEAST_RUNS or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return times


def warm_up(run: Run) -> None:
    """Run until the runtime has done what it does only once, such as compiling and allocating memory."""
    end, runs = time.perf_counter() + WARM_UP_SECONDS, 0
    while runs < WARM_UP_RUNS or time.perf_counter() < end:
        run()
        runs += 1


def peak_bytes() -> int:
    """Return the largest resident memory of this process."""
    # Preferred to getrusage, which on Linux may report the parent's memory.
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, other systems kilobytes
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def answer(**content: Any) -> None:
    """Write one line of JSON for the process that asked."""
    print(json.dumps(content), flush=True)  # noqa: T201


def main() -> None:
    """Open the file, report its facts, and answer requests until the input ends."""
    runtime, file, threads, shape, dtype, *batches = sys.argv[1:]
    start = time.perf_counter()
    opened = RUNTIMES[runtime](file, int(threads), json.loads(shape), dtype)
    loaded = time.perf_counter() - start
    runs: dict[int, Run] = {}
    for batch in map(int, batches):
        runs[batch] = opened.prepare(batch)
        warm_up(runs[batch])
    answer(version=opened.version, load_seconds=loaded, executed=dict(opened.executed))
    for line in sys.stdin:
        if not line.strip():
            break
        batch_size, seconds = line.split()
        times = measure(runs[int(batch_size)], float(seconds))
        answer(times=times, peak_bytes=peak_bytes())
    os._exit(0)  # a normal exit may wait seconds for the threads of a runtime


if __name__ == "__main__":
    main()

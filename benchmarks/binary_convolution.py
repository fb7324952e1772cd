"""OpenVINO's convolution of one bit against its convolution of 8 bits, with and without AMX.

    python benchmarks/binary_convolution.py [--rounds 9]

Each variant is a chain of four convolutions of 3x3 with equal channels, each behind its rounding and followed by a
bias and a ReLU. The shapes are measured in processes of their own, because oneDNN reads its variable for the
instruction set once. A round measures the processor time of one thread for both variants in turn. Memory is what
building and running one variant adds to the peak of a process.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino
from openvino import opset1 as op

LAYERS = 4
SHAPES = ((16, 32), (32, 16), (64, 8), (256, 14))  # channels, height and width: ResNet-20's, and one of ResNet-18's
BATCHES = (1, 32)
WITHOUT_AMX = "AVX512_CORE_VNNI"
IMAGES = 64  # at least so many for one measurement


def chain(variant: str, channels: int, size: int, batch: int) -> openvino.Model:
    """Return images of codes 0 and 1 [batch, channels, size, size] -> the output of four convolutions."""
    draw = np.random.default_rng(0)
    images = op.parameter([batch, channels, size, size], np.float32)
    x: Any = images
    for _ in range(LAYERS):
        signs = draw.choice([-1, 1], (channels, channels, 3, 3)).astype(np.int8)
        if variant == "1 bit":
            x = op.fake_quantize(x, *(_constant(value, channels) for value in (0.5, 0.5, -1, 1)), 2)
            bits = np.packbits((signs > 0).ravel())
            packed = openvino.op.Constant(openvino.Tensor(bits, openvino.Shape(signs.shape), openvino.Type.u1))
            y = op.binary_convolution(x, packed, [1, 1], [1, 1], [1, 1], [1, 1], "xnor-popcount", 0.0)
        else:
            x = op.fake_quantize(x, *(_constant(value) for value in (0, 255, 0, 255)), 256)
            weight = op.multiply(op.convert(op.constant(signs), "f32"), op.constant(np.ones((channels, 1, 1, 1), "f4")))
            y = op.convolution(x, weight, [1, 1], [1, 1], [1, 1], [1, 1])
        x = op.relu(op.add(y, op.constant(draw.normal(0, 3, (1, channels, 1, 1)).astype(np.float32))))
    return openvino.Model([x], [images])


def _constant(value: float, channels: int = 1) -> Any:
    return op.constant(np.full((1, channels, 1, 1), value, np.float32))


def peak_memory() -> int:
    """Return the peak resident memory of this process in bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def compiled(variant: str, channels: int, size: int, batch: int) -> tuple[openvino.CompiledModel, str]:
    """Return a compiled chain and the name of the kernel of its convolutions."""
    options = {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    model = openvino.Core().compile_model(chain(variant, channels, size, batch), "CPU", options)
    facts = [node.get_rt_info() for node in model.get_runtime_model().get_ordered_ops()]
    return model, next(str(_value(f["primitiveType"])) for f in facts if "onvolution" in str(_value(f["layerType"])))


def _value(attribute: Any) -> Any:
    return getattr(attribute, "value", attribute)


def measure(channels: int, size: int, batch: int, *, rounds: int) -> dict[str, Any]:
    """Return kernel, milliseconds of a batch and peak memory of both variants in this process."""
    x: npt.NDArray[np.float32] = np.random.default_rng(1).integers(0, 2, (batch, channels, size, size)).astype("f4")
    found: dict[str, Any] = {}
    calls = max(1, IMAGES // batch)
    for variant in ("1 bit", "8 bits"):
        model, kernel = compiled(variant, channels, size, batch)
        request = model.create_infer_request()
        request.infer([x])
        found[variant] = {"kernel": kernel, "request": request, "ms": []}
    for _ in range(rounds):
        for variant in found.values():
            started = time.process_time()
            for _ in range(calls):
                variant["request"].infer([x])
            variant["ms"].append(1000 * (time.process_time() - started) / calls)
    return {name: [v["kernel"], statistics.median(v["ms"])] for name, v in found.items()}


def memory(variant: str, channels: int, size: int, batch: int) -> int:
    """Return the bytes that compiling and running one variant adds to the peak memory of this process."""
    openvino.Core().get_property("CPU", "FULL_DEVICE_NAME")  # loads the library
    before = peak_memory()
    model, _ = compiled(variant, channels, size, batch)
    model.create_infer_request().infer([np.ones((batch, channels, size, size), np.float32)])
    return peak_memory() - before


def in_process(*arguments: object, isa: str) -> Any:
    """Run this file with some arguments in a new process, and return what it prints."""
    environment = {**os.environ, **({"ONEDNN_MAX_CPU_ISA": isa} if isa else {})}
    command = [sys.executable, __file__, *map(str, arguments)]
    output = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    return json.loads(output.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--time", nargs=3, type=int, help="what the other processes do")
    parser.add_argument("--memory", nargs=4, help="what the other processes do")
    options = parser.parse_args()
    if options.time:
        print(json.dumps(measure(*options.time, rounds=options.rounds)))
        return
    if options.memory:
        print(json.dumps(memory(options.memory[0], *map(int, options.memory[1:]))))
        return
    print(f"openvino {openvino.__version__}, {platform.machine()}, n = {options.rounds}")
    print(f"{'channels, size, batch':22} {'kernels':42} {'8 bits, ms':>10} {'1 bit, ms':>10} {'8 bits / 1 bit':>15} MB")
    for isa in ("", WITHOUT_AMX):
        for shape in SHAPES:
            for batch in BATCHES:
                place = (*shape, batch)
                found = in_process("--rounds", options.rounds, "--time", *place, isa=isa)
                (one, one_ms), (eight, eight_ms) = found["1 bit"], found["8 bits"]
                sizes = [in_process("--memory", name, *place, isa=isa) / 1e6 for name in ("8 bits", "1 bit")]
                print(
                    f"{', '.join(map(str, place)):22} {eight + ' ' + one:42} {eight_ms:10.3f} {one_ms:10.3f}"
                    f" {eight_ms / one_ms:15.2f} {sizes[0]:.0f} {sizes[1]:.0f}"
                )


if __name__ == "__main__":
    main()

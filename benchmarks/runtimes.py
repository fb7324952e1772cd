"""Speed of exported networks in each runtime: float, as trained (exact, requantized), and 8-bit throughout (int8).

    python benchmarks/runtimes.py [--model resnet20] [--bits 2] [--residual-bits 8] [--rounds 7] [--seconds 0.5]
        [--threads 1 2]

Weights are random, because the time does not depend on them. Each runtime runs in a process of its own, and each round
measures all of them one after the other.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx
import torch
from schemes import lsq
from torch import nn
from torchvision import models

from sqakd.export.benchmark import benchmark
from sqakd.export.eight_bit import quantize_float_parts
from sqakd.export.lower import Lowering, lower
from sqakd.export.options import Timing
from sqakd.export.report_tables import speed_table
from sqakd.export.to_onnx import Deployed, to_onnx
from sqakd.models.resnet import CifarResNet
from sqakd.quantization.calibrate import calibrate
from sqakd.quantization.convert import quantize
from sqakd.report.table import as_markdown
from sqakd.runs.export_record import Benchmark
from sqakd.runs.fields import Fields

MODELS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "resnet20": (lambda: CifarResNet(blocks=3, num_classes=10), 32),
    "resnet18": (lambda: models.resnet18(num_classes=200), 64),
    "mobilenet_v2": (lambda: models.mobilenet_v2(num_classes=200), 64),
}


def make_files(
    folder: Path, model: str, bits: int, residual_bits: int | None
) -> tuple[dict[str, Path], nn.Module, tuple[int, int, int]]:
    """Write the four files; return them with the float network and the shape of an image."""
    torch.manual_seed(0)
    make, size = MODELS[model]
    network = make()
    shape, images = (3, size, size), torch.randn(32, 3, size, size)
    with torch.no_grad():
        for _ in range(3):
            network.train()(images)
    files = {name: folder / f"{name}.onnx" for name in ("float", "exact", "requantized", "int8")}
    network.eval()
    onnx.save(to_onnx(Deployed(network, None, None), shape, weights="cast"), files["float"])
    float_network = make().eval()
    quantize(network, replace(lsq(bits), residual_bits=residual_bits))
    calibrate(network, images)
    lowered = lower(network.eval(), Lowering())
    onnx.save(to_onnx(Deployed(lowered, None, None), shape, weights="cast"), files["exact"])
    lowered = lower(network, Lowering(count=False))
    onnx.save(to_onnx(Deployed(lowered, None, None), shape, weights="cast"), files["requantized"])
    quantize_float_parts(lowered, images)
    onnx.save(to_onnx(Deployed(lowered, None, None), shape, weights="dequantize"), files["int8"])
    return files, float_network, shape


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Measure the speed of exported networks in each runtime.")
    parser.add_argument("--model", choices=MODELS, default="resnet20")
    parser.add_argument("--bits", type=int, default=2)
    parser.add_argument("--residual-bits", type=int, help="of residual sums; by default they are real")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    timing = Timing(rounds=options.rounds, seconds=options.seconds, batches=[1, 32], threads=options.threads)
    with tempfile.TemporaryDirectory() as folder:
        files, network, shape = make_files(Path(folder), options.model, options.bits, options.residual_bits)
        measured = benchmark(files, network, shape, pixels=False, timing=timing)
    print(measured["machine"])
    print(as_markdown(speed_table(Benchmark.from_fields(Fields(measured)).rows)))
    for name, operators in measured["executed"].items():
        print(f"{name}: {operators}")


if __name__ == "__main__":
    main()

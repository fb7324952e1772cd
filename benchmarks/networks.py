"""Exports of networks of timm and torchvision: are they exact, and how long does an export take?

    python benchmarks/networks.py [NETWORK ...] [--bits 4] [--size 64]

Weights are random, batch norm has seen three batches, and LSQ quantizers are calibrated on eight images. Each network
is lowered to integers and written as ONNX, and the codes that ONNX Runtime computes are compared with those of the
network in float64, layer by layer. A network that cannot be exported is listed with the reason.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
from schemes import lsq
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from sqakd.errors import SqakdError
from sqakd.export.compare import Differences, code_differences
from sqakd.export.levels import CountedOutput, IntegerOutput
from sqakd.export.lower import Lowering, lower
from sqakd.export.modules import integer_layers
from sqakd.export.probe import recorded_in_onnxruntime
from sqakd.export.to_onnx import Deployed, to_onnx
from sqakd.models.torchvision import torchvision_network
from sqakd.quantization.calibrate import calibrate
from sqakd.quantization.convert import quantize
from sqakd.report.table import Table, as_markdown

LIBRARIES = ("timm", "torchvision")
NETWORKS = (
    "timm mobilenetv3_small_100",
    "timm efficientnet_b0",
    "timm convnext_atto",
    "timm regnetx_002",
    "timm deit_tiny_patch16_224",
    "torchvision resnet50",
    "torchvision densenet121",
    "torchvision googlenet",
)


def made(name: str, bits: int, size: int) -> tuple[nn.Module, Tensor]:
    """Return a calibrated network with LSQ quantizers, and eight smooth random images [8, 3, size, size]."""
    torch.manual_seed(0)
    library, arch = name.split()
    images = F.interpolate(torch.randn(8, 3, 8, 8), size=size, mode="bilinear")
    if library == "timm":
        import timm

        fixed_size: dict[str, Any] = {"img_size": size} if arch.startswith(("deit", "vit")) else {}
        network: nn.Module = timm.create_model(arch, num_classes=10, **fixed_size)
    else:
        network = torchvision_network(arch=arch, weights=None, num_classes=10)
    with torch.no_grad():
        for _ in range(3):
            network.train()(images + 0.1 * torch.randn_like(images))
    quantize(network, lsq(bits))
    calibrate(network, images)
    return network.eval(), images


def exported(name: str, bits: int, size: int) -> list[str]:
    """Return the row of a network: its layers, differing codes and seconds, or the reason why it is refused."""
    try:
        network, images = made(name, bits, size)
        begin = time.perf_counter()
        lowered = lower(network, Lowering())
        model = to_onnx(Deployed(lowered, None, None), (3, size, size), weights="cast")
    except SqakdError as error:
        return [name, f"refused: {error}", "", "", "", "", ""]
    seconds = time.perf_counter() - begin
    layers = integer_layers(lowered)
    requantized, counted = (sum(isinstance(layer, form) for layer in layers) for form in (IntegerOutput, CountedOutput))
    total = sum(
        code_differences(network, images, recorded_in_onnxruntime(model, lowered, images))[0].values(), Differences()
    )
    farthest = f"{total.farthest:.0e}" if total.differing else ""
    codes = f"{total.differing} of {total.codes:,}"
    return [name, str(len(layers)), str(requantized), str(counted), codes, farthest, f"{seconds:.0f}"]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "networks", nargs="*", metavar="NETWORK", default=NETWORKS, help="'timm NAME' or 'torchvision NAME'"
    )
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--size", type=int, default=64, help="height and width of the images")
    given = parser.parse_args()
    wrong = [name for name in given.networks if name.split()[0] not in LIBRARIES or len(name.split()) != 2]
    if wrong:
        parser.error(f"{wrong[0]!r}: expected 'timm NAME' or 'torchvision NAME'")
    rows = [exported(name, given.bits, given.size) for name in tqdm(given.networks)]
    header = ["network", "integer layers", "requantized", "counted", "codes that differ", "farthest, steps", "seconds"]
    print(as_markdown(Table(header, rows)), end="")


if __name__ == "__main__":
    main()

"""The forward convolution of a training step on integers (oneDNN's int8) against float32 and bfloat16.

    python benchmarks/integer_forward.py [--rounds 9]

A quantized layer convolves codes of at most 8 bits, so its sums are exact in int8. In a training step the codes come as
float32 or bfloat16 from the layers before, and the sums go back to them, so the variant on integers includes both
conversions, and the packing of the weight, which changes in each step. Shapes of ResNet-20 with batches of 256, one
thread, channels_last; processor time.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

SHAPES = ((16, 32), (32, 16), (64, 8))  # channels, height and width
BATCH = 256


def on_integers(x: Tensor, weight: Tensor) -> Tensor:
    """Return the convolution of codes, float32 as `x`, computed by oneDNN in int8."""
    ones, zeros = torch.ones(len(weight)), torch.zeros(len(weight), dtype=torch.int64)
    packed = torch.ops.onednn.qconv_prepack(weight.to(torch.int8), ones, 1.0, 0, [1, 1], [1, 1], [1, 1], 1, x.shape)
    sums: Tensor = torch.ops.onednn.qconv2d_pointwise(
        x.to(torch.uint8), 1.0, 0, packed, ones, zeros, None, [1, 1], [1, 1], [1, 1], 1, 1.0, 0, torch.float32, "none",
        [], "",
    )  # fmt: skip
    return sums


def float_convolution(x: Tensor, weight: Tensor) -> Tensor:
    """Return the convolution in the type of its arguments."""
    return F.conv2d(x, weight, padding=1)


def milliseconds(function: Callable[[Tensor, Tensor], Tensor], x: Tensor, weight: Tensor) -> float:
    """Return the processor time of one call."""
    started = time.process_time()
    function(x, weight)
    return 1000 * (time.process_time() - started)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    draw = torch.Generator().manual_seed(0)
    print(f"torch {torch.__version__}, n = {rounds}; milliseconds, median")
    heads = ("float32", "bfloat16", "int8", "float32 / int8", "bfloat16 / int8")
    print(f"{'channels, size':16} {' '.join(f'{head:>16}' for head in heads)}")
    for channels, size in SHAPES:
        x = torch.randint(0, 4, (BATCH, channels, size, size), generator=draw).float()
        x, weight = x.to(memory_format=torch.channels_last), torch.randint(-2, 2, (channels, channels, 3, 3)).float()
        assert torch.equal(on_integers(x, weight), float_convolution(x, weight)), "the sums are exact"
        variants = {
            "float32": (float_convolution, x, weight),
            "bfloat16": (float_convolution, x.bfloat16(), weight.bfloat16()),
            "int8": (on_integers, x, weight),
        }
        found: dict[str, list[float]] = {name: [] for name in variants}
        for _ in range(rounds + 1):
            for name, (function, *tensors) in variants.items():
                found[name].append(milliseconds(function, *tensors))
        real, half, whole = (statistics.median(values[1:]) for values in found.values())
        numbers = (real, half, whole, real / whole, half / whole)
        print(f"{channels:3}, {size}x{size:<8} {' '.join(f'{number:16.2f}' for number in numbers)}")


if __name__ == "__main__":
    main()

"""The number of kernels that torch generates for a quantized block, compared with the float block.

Only C++ code is generated here; no compiler turns it into machine code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import small
import torch
from torch import Tensor, nn
from torch._inductor import config, metrics
from torch._inductor.async_compile import AsyncCompile

from sqakd.quantization.calibrate import calibrate
from sqakd.quantization.convert import quantize
from sqakd.training.compiled_step import CompiledStep

LAYERS = 2  # quantized layers of a block without the first and the last convolution


@pytest.fixture
def only_generated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let compiled kernels do nothing."""

    def nothing(*_: Any, **__: Any) -> Callable[..., None]:
        return lambda *_, **__: None

    monkeypatch.setattr(AsyncCompile, "cpp_pybinding", nothing)


def kernels(block: nn.Module, images: Tensor) -> int:
    """Return the number of kernels of a forward and a backward pass."""
    torch._dynamo.reset()
    metrics.reset()
    with config.patch(fx_graph_cache=False), torch._functorch.config.patch(enable_autograd_cache=False):
        CompiledStep(lambda x: block(x).mean(), size=None)(images)
    return int(metrics.generated_kernel_count)


@pytest.mark.exhaustive
def test_a_quantized_layer_adds_few_kernels(only_generated: None) -> None:
    """Weights have a kernel in each direction, and ranges and scales have a few for single numbers.

    Activations have none of their own: their codes and gradients are computed where batch norm reads them anyway.
    """
    torch.manual_seed(0)
    images = torch.randn(64, 16, 32, 32).to(memory_format=torch.channels_last)

    def block() -> nn.Sequential:
        convolutions = [nn.Conv2d(16, 16, 3, padding=1, bias=False) for _ in range(LAYERS + 2)]
        layers = [nn.Sequential(layer, nn.BatchNorm2d(16), nn.ReLU()) for layer in convolutions]
        return nn.Sequential(*layers).to(memory_format=torch.channels_last)

    quantized = block()
    quantize(quantized, small.scheme("bits=2"))
    calibrate(quantized, images)
    surplus = kernels(quantized, images) - kernels(block(), images)
    assert surplus <= 8 * LAYERS, surplus

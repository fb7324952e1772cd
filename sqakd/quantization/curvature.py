r"""Curvature of a loss with respect to the outputs of quantizers: traces of Hessians, by Hutchinson's method.

For a random vector v of independent signs and a Hessian H,

    E[v^T H v] = sum_ij H_ij E[v_i v_j] = sum_i H_ii = Tr(H)

so the mean of v^T H v over some probes v estimates the trace. H v is the derivative of (gradient . v), one more
backward pass. Here one product serves *all* quantized tensors at once: v is the concatenation of one sign vector v_t
per tensor, and the part of the product that belongs to tensor t is

    v_t^T (H v)_t = v_t^T H_tt v_t + sum over other tensors s of  v_t^T H_ts v_s

Signs of different tensors are independent, so the cross terms vanish in expectation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from sqakd.errors import SqakdError
from sqakd.quantization.probe import buffers_restored, hooks_removed
from sqakd.quantization.quantizers.base import Quantizer


@dataclass(frozen=True)
class Curvature:
    """Curvature of one batch's loss, one number per quantizer. Codes are measured in the unit interval.

    Attributes:
        trace: estimate of the trace of the Hessian.
        gradient_std: standard deviation of the gradient.
        elements: number of elements of the quantized tensor.
        probes: number of random vectors used.
    """

    trace: Tensor
    gradient_std: Tensor
    elements: Tensor
    probes: int


def estimate(
    loss: Callable[[], Tensor],
    model: nn.Module,
    targets: Sequence[Quantizer],
    *,
    max_probes: int,
    tolerance: float,
    generator: torch.Generator,
) -> Curvature:
    """Estimate the Hessian traces of a loss with respect to the outputs of some quantizers.

    Args:
        loss: runs the model and returns its loss.
        model: owner of the quantizers; it runs in its present mode, and its buffers (batch-norm statistics) are
            restored.
        targets: quantizers whose codes are differentiated.
        max_probes: largest number of random vectors.
        tolerance: relative change of the traces (sum of magnitudes) below which to stop; 0 uses all probes.
        generator: of the random signs, on the CPU.

    Raises:
        SqakdError: if a part of the network has no second derivative.
    """
    with recorded_codes(targets) as codes, buffers_restored(model), torch.enable_grad(), _twice_differentiable():
        value = loss()
        tensors = [codes[quantizer] for quantizer in targets]
        gradients = torch.autograd.grad(value, tensors, create_graph=True)
        running = torch.zeros(len(tensors), device=value.device)  # mean of the samples so far, one per tensor
        probes = 0
        for probes in range(1, max_probes + 1):
            signs = [_signs(tensor, generator) for tensor in tensors]
            # (H v)_t for all tensors t; zeros where the gradient does not depend on a tensor.
            products = torch.autograd.grad(gradients, tensors, signs, retain_graph=True, materialize_grads=True)
            sample = torch.stack([(v * hv).sum() for v, hv in zip(signs, products, strict=True)])
            change = (sample - running) / probes
            running = running + change
            if probes > 1 and bool(change.abs().sum() < tolerance * running.abs().sum()):
                break
    # The recorded codes q' count `steps` per unit interval, q = q' / steps, so each derivative by q is `steps` times
    # the one by q': once for the gradient, twice for the Hessian.
    unit = running.new_tensor([quantizer.steps for quantizer in targets])
    std = torch.stack([gradient.detach().std() for gradient in gradients])
    elements = running.new_tensor([tensor.numel() for tensor in tensors])
    return Curvature((running * unit**2).detach(), std * unit, elements, probes)


def _signs(like: Tensor, generator: torch.Generator) -> Tensor:
    """Draw a tensor of -1 and 1, on the CPU, so that the numbers do not depend on the device."""
    return (torch.randint(2, like.shape, generator=generator) * 2 - 1).to(like)


@contextmanager
def recorded_codes(targets: Sequence[Quantizer]) -> Iterator[dict[Quantizer, Tensor]]:
    """Record the rounding outputs of one forward pass, by quantizer.

    Yields:
        A dictionary that the pass fills with integers (0 .. steps, or signed) in their place in the autograd graph.
    """
    codes: dict[Quantizer, Tensor] = {}

    def record(quantizer: Quantizer) -> Callable[[nn.Module, object, Tensor], None]:
        def hook(module: nn.Module, args: object, output: Tensor) -> None:
            codes[quantizer] = output

        return hook

    with hooks_removed(quantizer.rounding.register_forward_hook(record(quantizer)) for quantizer in targets):
        yield codes


@contextmanager
def _twice_differentiable() -> Iterator[None]:
    """Compute the functions that torch fuses without a second derivative from parts that have one.

    Raises:
        SqakdError: if a network has another such function.
    """
    try:
        with sdpa_kernel(SDPBackend.MATH), _Unfused():  # attention, and hard sigmoid
            yield
    except RuntimeError as error:
        if "is not implemented" not in str(error):
            raise
        raise SqakdError(
            f"this network has no second derivatives, which the scaling of EWGS needs ({error})",
            topic="hessian.no_second_derivative",
        ) from error


class _Unfused(TorchFunctionMode):
    """Replaces torch's hard sigmoid by its definition, relu6(x + 3) / 6."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.hardsigmoid:
            return F.relu6(args[0] + 3) / 6
        return func(*args, **(kwargs or {}))

r"""Curvature of a loss with respect to the outputs of quantizers: traces of Hessians, by Hutchinson's method.

For a random vector v of independent signs and a Hessian H,

    E[v^T H v] = sum_ij H_ij E[v_i v_j] = sum_i H_ii = Tr(H)

so the mean of v^T H v over some probes v estimates the trace. H v is the derivative of (gradient . v), one more
backward pass. Here one product serves *all* quantized tensors at once: v is the concatenation of one sign vector v_t
per tensor, and the part of the product that belongs to tensor t is

    v_t^T (H v)_t = v_t^T H_tt v_t + sum over other tensors s of  v_t^T H_ts v_s

Signs of different tensors are independent, so the cross terms vanish in expectation.

The standard deviation of a weight's gradient contains the noise of the batch and falls with the batch size, while the
trace does not, so the batch has to be the one that trains. To bound the memory, a batch may be given in slices. With
the share s_i = (images of slice i) / (images of the batch), the batch's loss is sum_i s_i loss_i, hence

    weights     gradient = sum_i s_i gradient_i        v^T H v = sum_i s_i v^T H_i v       the same v for all slices
    inputs      gradient = all s_i gradient_i          v^T H v = sum_i s_i v_i^T H_i v_i   v consists of all v_i

This is exact for everything that treats each image alone. Batch norm in training mode normalises each slice by the
slice's own statistics, also where the training synchronizes batch norm over processes. A loss that compares images with
each other compares those of one slice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from sqakd.errors import SqakdError
from sqakd.quantization.layers import quant_layers
from sqakd.quantization.probe import buffers_restored, hooks_removed, own_statistics
from sqakd.quantization.quantizers.base import Quantizer


class Slice(NamedTuple):
    """A part of a batch.

    Attributes:
        loss: runs the model on the part and returns the mean loss of its images.
        share: number of its images divided by that of the batch.
    """

    loss: Callable[[], Tensor]
    share: float


@dataclass(frozen=True)
class Curvature:
    """Curvature of one batch's loss, one number per quantizer. Codes are measured in the unit interval.

    Attributes:
        trace: estimate of the trace of the Hessian.
        gradient_std: standard deviation of the gradient.
        elements: number of elements of the quantized tensor, of all images of the batch.
        probes: number of random vectors used.
    """

    trace: Tensor
    gradient_std: Tensor
    elements: Tensor
    probes: int


def estimate(
    slices: Sequence[Slice],
    model: nn.Module,
    targets: Sequence[Quantizer],
    *,
    max_probes: int,
    tolerance: float,
    generator: torch.Generator,
) -> Curvature:
    """Estimate the Hessian traces of a batch's loss with respect to the outputs of some quantizers.

    Args:
        slices: the batch, whole or in parts; memory is that of the largest part. The shares sum up to 1.
        model: owner of the quantizers; it runs in its present mode, and its buffers (batch-norm statistics) are
            restored.
        targets: quantizers whose codes are differentiated.
        max_probes: largest number of random vectors.
        tolerance: relative change of the traces (sum of magnitudes) below which to stop; 0 uses all probes.
        generator: of the random signs, on the CPU.

    Raises:
        SqakdError: if a part of the network has no second derivative.
    """
    weights = {layer.weight_quantizer for _, layer in quant_layers(model)}
    shared = [quantizer in weights for quantizer in targets]  # whether a tensor is the same in all slices
    with buffers_restored(model), own_statistics(model), torch.enable_grad(), _twice_differentiable():
        graphs = _Graphs(slices, targets)
        shapes, std = _first_pass(graphs, shared)
        running = torch.zeros_like(std)  # mean of the samples so far, one per tensor
        probes = 0
        for probes in range(1, max_probes + 1):
            signs = [_signs(of_slices, one, generator) for of_slices, one in zip(shapes, shared, strict=True)]
            change = (_sample(graphs, signs) - running) / probes
            running = running + change
            if probes > 1 and bool(change.abs().sum() < tolerance * running.abs().sum()):
                break
    # The recorded codes q' count `steps` per unit interval, q = q' / steps, so each derivative by q is `steps` times
    # the one by q': once for the gradient, twice for the Hessian.
    unit = running.new_tensor([quantizer.steps for quantizer in targets])
    elements = [_whole(of_slices, one).numel() for of_slices, one in zip(shapes, shared, strict=True)]
    return Curvature(running * unit**2, std * unit, running.new_tensor(elements), probes)


class _Graphs:
    """The graphs of the slices, one at a time: a slice's graph is built again for each probe, a whole batch's once."""

    def __init__(self, slices: Sequence[Slice], targets: Sequence[Quantizer]) -> None:
        self.slices, self.targets = slices, targets
        self.built: tuple[int, list[Tensor], tuple[Tensor, ...]] | None = None

    def __iter__(self) -> Iterator[tuple[list[Tensor], tuple[Tensor, ...]]]:
        """Yield each slice's codes, and the gradients of share * loss by them, which can be differentiated again."""
        for i, (loss, share) in enumerate(self.slices):
            if self.built is None or self.built[0] != i:
                self.built = None  # frees the graph of the slice before
                with recorded_codes(self.targets) as found:
                    value = loss() * share
                codes = [found[quantizer] for quantizer in self.targets]
                self.built = i, codes, torch.autograd.grad(value, codes, create_graph=True)
            yield self.built[1], self.built[2]


def _first_pass(graphs: _Graphs, shared: Sequence[bool]) -> tuple[list[list[torch.Size]], Tensor]:
    """Return for each tensor the shape of its codes in each slice, and the standard deviation of its gradient, [T]."""
    shapes: list[list[torch.Size]] = [[] for _ in shared]
    parts: list[list[Tensor]] = [[] for _ in shared]
    for codes, gradients in graphs:
        for t, (tensor, gradient) in enumerate(zip(codes, gradients, strict=True)):
            shapes[t].append(tensor.shape)
            one = gradient.detach()
            parts[t] = [parts[t][0] + one] if shared[t] and parts[t] else [*parts[t], one]
    return shapes, torch.stack([torch.cat(part).std() for part in parts])


def _sample(graphs: _Graphs, signs: Sequence[Sequence[Tensor]]) -> Tensor:
    """Return v^T (H v)_t for each tensor t, [T]; `signs` has v of each tensor and slice."""
    total: Tensor | float = 0.0
    for i, (codes, gradients) in enumerate(graphs):
        v = [of_slices[i].to(tensor) for of_slices, tensor in zip(signs, codes, strict=True)]
        # (H v)_t for all tensors t; zeros where the gradient does not depend on a tensor.
        products = torch.autograd.grad(gradients, codes, v, retain_graph=True, materialize_grads=True)
        total = total + torch.stack([(one * product).sum() for one, product in zip(v, products, strict=True)])
    assert isinstance(total, Tensor)
    return total.detach()


def _whole(shapes: Sequence[torch.Size], shared: bool) -> torch.Size:
    """Return the shape of a tensor in the whole batch."""
    return shapes[0] if shared else torch.Size((sum(shape[0] for shape in shapes), *shapes[0][1:]))


def _signs(shapes: Sequence[torch.Size], shared: bool, generator: torch.Generator) -> list[Tensor]:
    """Draw a tensor of -1 and 1 for each slice, on the CPU, so that the numbers do not depend on the device.

    The numbers are drawn for the whole batch, so that they do not depend on its slices either. int8 keeps them small.
    """
    drawn = (torch.randint(2, _whole(shapes, shared), generator=generator) * 2 - 1).to(torch.int8)
    return [drawn] * len(shapes) if shared else list(torch.split(drawn, [shape[0] for shape in shapes]))


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

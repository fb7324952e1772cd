r"""The curvature-weighted squared error of a tensor that is quantized.

At the float network itself, the KL divergence from its own logits has gradient 0 and the Hessian

    H = J^T F J,        F = diag(p) - p p^T

with the Jacobian J of the logits with respect to the tensor and the class probabilities p. So an error e of the tensor
costs about 1/2 e^T H e. Here H is replaced by its diagonal, as in "HAWQ-V2" (Dong et al. 2020,
https://arxiv.org/abs/1911.03852), but with one number per element instead of the mean:

    loss = 1/N sum_i 1/2 sum_j H_jj e_j^2

For random signs r, v = L r with L = diag(sqrt p) - p sqrt(p)^T has E[v v^T] = L L^T = F, so that the squares of the
gradient J^T v have the mean H_jj. One backward pass gives these gradients for the tensors of all layers. The images of
a batch have independent signs, so the cross terms in the gradient of a weight vanish in expectation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from sqakd.allocation.candidates import INPUT, WEIGHT, Layer
from sqakd.errors import SqakdError
from sqakd.quantization.probe import hooks_removed
from sqakd.randomness import stream

PROBES = 8  # random vectors for each batch
MOST = 32  # images of a batch: the activations of the backward pass are in memory


def weighted_errors(
    model: nn.Module, layers: Sequence[Layer], batches: Sequence[Tensor], report: Callable[[int, int], None]
) -> dict[tuple[str, str, int], float]:
    """Return the curvature-weighted squared error by layer, tensor and bits.

    Args:
        model: float network in evaluation mode, whose parameters require gradients.
        layers: with calibrated candidates.
        batches: normalised images.
        report: called after each backward pass.
    """
    slices = [part for images in batches for part in torch.split(images, MOST)]
    count = sum(map(len, slices))
    total = {(layer.name, *key): 0.0 for layer in layers for key in layer.candidates}
    squares = [torch.zeros_like(layer.weight) for layer in layers]  # of the gradients of the weights
    generator = stream(0, "sensitivity")
    for i, images in enumerate(slices):
        inputs, logits = _pass_with_inputs(model, layers, images)
        flat = [x for calls in inputs for x in calls]
        input_squares = [torch.zeros_like(x) for x in flat]
        for probe in range(PROBES):
            v = _probe(logits, generator)
            gradients = torch.autograd.grad(
                logits, [*(layer.weight for layer in layers), *flat], v, retain_graph=True, materialize_grads=True
            )
            for square, gradient in zip([*squares, *input_squares], gradients, strict=True):
                square.addcmul_(gradient, gradient, value=1 / PROBES)
            report(i * PROBES + probe + 1, len(slices) * PROBES)
        remaining = iter(input_squares)
        for layer, calls in zip(layers, inputs, strict=True):
            for x, square in zip(calls, remaining, strict=False):
                _add_errors(total, layer, INPUT, x.detach(), square, count)
    for layer, square in zip(layers, squares, strict=True):
        _add_errors(total, layer, WEIGHT, layer.weight.detach(), square, count)
    return total


@torch.no_grad()
def _add_errors(
    total: dict[tuple[str, str, int], float], layer: Layer, tensor: str, x: Tensor, square: Tensor, count: int
) -> None:
    """Add 1/2 sum_j H_jj e_j^2 / N for each candidate of a tensor."""
    for (kind, bits), candidate in layer.candidates.items():
        if kind == tensor:
            error = candidate.rounded(x) * candidate.output_scale - x
            total[layer.name, tensor, bits] += float((square * error.square()).sum()) / (2 * count)


def _pass_with_inputs(model: nn.Module, layers: Sequence[Layer], images: Tensor) -> tuple[list[list[Tensor]], Tensor]:
    """Return the inputs of each layer, one for each of its calls, and the logits, all with a graph.

    Each layer gets a view of its own, so that a gradient flows through this layer alone, also where others read the
    same tensor.
    """
    inputs: dict[nn.Module, list[Tensor]] = {layer.module: [] for layer in layers}

    def look(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x = args[0].view_as(args[0]) if args[0].requires_grad else args[0].detach().requires_grad_()
        inputs[module].append(x)
        return (x, *args[1:])

    with hooks_removed(module.register_forward_pre_hook(look) for module in inputs), torch.enable_grad():
        logits = model(images)
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        raise SqakdError("criterion='curvature' needs logits [N, classes]; expected criterion='kl' for other outputs")
    return list(inputs.values()), logits


@torch.no_grad()
def _probe(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Return v = L r for the logits [N, classes]; the signs are drawn on the CPU, the same on any device."""
    p = logits.float().softmax(dim=1)
    signs = (torch.randint(2, p.shape, generator=generator) * 2 - 1).to(p)
    root = p.sqrt() * signs
    return (root - p * root.sum(dim=1, keepdim=True)).to(logits.dtype)

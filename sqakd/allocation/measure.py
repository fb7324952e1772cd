r"""Sensitivity: what the output of a float network loses if a single tensor of a single layer is quantized.

The loss is the KL divergence from the logits of the float network p to those of the changed network q, mean over the
images, without labels:

    loss = 1/N sum_i KL(p_i || q_i)

Each layer, tensor (weight or input) and number of bits takes one more forward pass, of which only the part behind the
layer is computed (`sqakd.allocation.replay`). `criterion="curvature"` is the cheap alternative
(`sqakd.allocation.gauss_newton`): a few backward passes in all.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sqakd.allocation.candidates import INPUT, WEIGHT, Layer, make_candidates
from sqakd.allocation.gauss_newton import weighted_errors
from sqakd.allocation.replay import Replay
from sqakd.allocation.table import LayerSensitivity, Sensitivity
from sqakd.errors import SqakdError
from sqakd.numbers import MAX_BITS, is_bits
from sqakd.quantization.convert import Scheme
from sqakd.quantization.layers import quant_layers

Criterion = Literal["kl", "curvature"]
WIDTHS = (1, 2, 3, 4, 8)
MEMORY = 2**27  # bytes of recorded outputs, about; images pass in batches of that size
# Called after each step with the number of finished steps and of all steps.
Progress = Callable[[int, int], None]


def measure(
    model: nn.Module,
    scheme: Scheme,
    images: Tensor,
    *,
    widths: Sequence[int] = WIDTHS,
    criterion: Criterion = "kl",
    progress: Progress | None = None,
) -> Sensitivity:
    """Measure the sensitivity of each layer that can be quantized, also of the first and the last.

    Args:
        model: float network, images -> logits [N, classes, ...]; it is not changed.
        scheme: makes the quantizers, which are calibrated on all images.
        images: normalised training images [N, C, H, W], without labels.
        widths: numbers of bits to try.
        criterion: "kl" or "curvature".
        progress: called after each step.

    Raises:
        SqakdError: if an argument is wrong, the network is quantized already or has no logits, or a tensor has no
            range.
    """
    widths = checked_widths(widths)
    if criterion not in get_args(Criterion):
        raise SqakdError(f"criterion={criterion!r}: expected kl or curvature")
    if any(True for _ in quant_layers(model)):
        raise SqakdError("the network is quantized already; expected a float network")
    model = copy.deepcopy(model).eval().requires_grad_(criterion == "curvature")
    with torch.random.fork_rng(devices=[images.device] if images.device.type == "cuda" else []):
        layers = make_candidates(model, scheme, images, widths)
        report = progress or _ignore
        batches = list(torch.split(images, _batch_size(model, images)))
        losses = (_divergences if criterion == "kl" else weighted_errors)(model, layers, batches, report)
    return Sensitivity(
        criterion=criterion,
        images=len(images),
        widths=widths,
        layers=tuple(_row(layer, losses, widths) for layer in layers),
    )


def _ignore(_done: int, _total: int) -> None:
    """Report nothing."""


def checked_widths(widths: Sequence[int], name: str = "widths") -> tuple[int, ...]:
    """Return numbers of bits in ascending order.

    Raises:
        SqakdError: if there is none, or one is not a whole number from 1 to 8.
    """
    if not len(widths) or not all(map(is_bits, widths)):
        raise SqakdError(f"{name}={list(widths)}: expected whole numbers from 1 to {MAX_BITS}")
    return tuple(sorted(set(widths)))


def _row(layer: Layer, losses: Mapping[tuple[str, str, int], float], widths: Sequence[int]) -> LayerSensitivity:
    by_tensor = [{bits: losses[layer.name, tensor, bits] for bits in widths} for tensor in (WEIGHT, INPUT)]
    return LayerSensitivity(
        name=layer.name,
        weights=layer.weight.numel(),
        multiply_adds=layer.multiply_adds,
        inputs=layer.inputs,
        weight=by_tensor[0],
        input=by_tensor[1],
    )


def _divergences(
    model: nn.Module, layers: Sequence[Layer], batches: Sequence[Tensor], report: Progress
) -> dict[tuple[str, str, int], float]:
    """Return the mean KL divergence by layer, tensor and bits."""
    steps = [(layer, *key, candidate) for layer in layers for key, candidate in layer.candidates.items()]
    total = {(layer.name, tensor, bits): 0.0 for layer, tensor, bits, _ in steps}
    replay, done = Replay(model), 0
    for images in batches:
        teacher = log_probabilities(replay.record(images))
        for layer, tensor, bits, candidate in steps:
            student = log_probabilities(replay.run(layer.module, layer.forward_with(tensor, candidate)))
            divergence = F.kl_div(student, teacher, log_target=True, reduction="sum")
            total[layer.name, tensor, bits] += float(divergence)
            done += 1
            report(done, len(batches) * len(steps))
    count = sum(map(len, batches))
    return {key: max(value / count, 0.0) for key, value in total.items()}  # rounding errors can be negative


def log_probabilities(logits: object) -> Tensor:
    """Return the logarithms of the class probabilities in float32.

    Raises:
        SqakdError: if the network's output is not one tensor of logits.
    """
    if not isinstance(logits, Tensor) or logits.ndim < 2:
        found = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise SqakdError(f"the network returns {found}; expected one tensor of logits [N, classes, ...]")
    if not bool(torch.isfinite(logits).all()):
        raise SqakdError("the network returns values that are NaN or infinite; expected finite logits")
    return F.log_softmax(logits.float(), dim=1)


@torch.no_grad()
def _batch_size(model: nn.Module, images: Tensor) -> int:
    """Return the number of images whose recorded outputs fit into `MEMORY`."""
    replay = Replay(model)
    replay.record(images[:1])
    elements = sum(output.numel() for output in replay.outputs if isinstance(output, Tensor))
    return max(1, min(len(images), MEMORY // (4 * max(elements, 1))))

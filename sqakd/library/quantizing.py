"""Quantization of a network in memory: a copy with quantized layers, and the calibration of its ranges."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from sqakd.errors import SqakdError
from sqakd.library.batches import Batches, Key, check_network, device_of, first_batches, images_of, refused_images
from sqakd.library.presets import bits_or_default, preset
from sqakd.quantization import calibrate as calibration
from sqakd.quantization import convert
from sqakd.quantization.convert import Scheme
from sqakd.quantization.layers import quant_layers, quantizers
from sqakd.quantization.residual import residual_sums
from sqakd.quantization.widths import Patterns

Network = TypeVar("Network", bound=nn.Module)


def quantize(
    model: Network,
    quantizer: str | Scheme = "lsq",
    *,
    bits: int | None = None,
    w_bits: int | None = None,
    a_bits: int | None = None,
    layer_bits: Patterns | None = None,
    layer_w_bits: Patterns | None = None,
    layer_a_bits: Patterns | None = None,
    residual_bits: int | None = None,
    start: str | None = None,
    example: Tensor | None = None,
    first: Sequence[str] | None = None,
) -> Network:
    """Return a copy of a float network whose Conv2d and Linear layers quantize their weights and inputs.

    The first and the last layer stay float, as in the papers; a `Scheme` may choose other bits for them. The ranges of
    the new quantizers wait for `calibrate`. All parameters of the copy get gradients, also those of a frozen network.

    Args:
        model: any float network. It is not changed.
        quantizer: name of a method: "lsq" (https://arxiv.org/abs/1902.08153), "ewgs"
            (https://arxiv.org/abs/2104.00903), "pact" (https://arxiv.org/abs/1805.06085), "dorefa"
            (https://arxiv.org/abs/1606.06160), "ste" (the ranges of EWGS without its gradient scaling), or one of them
            with "_released" as in the published code of SQAKD; or a `Scheme`, which has its own bits.
        bits: of weights and inputs, 1 to 8; 2 by default.
        w_bits: of the weights, where they differ from `bits`.
        a_bits: of the inputs, where they differ from `bits`.
        layer_bits: of single layers, by pattern over their names: {"layer3.*": 4, "fc": 8}. The last pattern that
            matches counts. A first or last layer that a pattern matches is quantized too.
        layer_w_bits: of the weights of single layers; they precede `layer_bits`.
        layer_a_bits: of the inputs of single layers; they precede `layer_bits`.
        residual_bits: of residual sums and their operands, 4 to 8, for networks whose sums are modules of the class
            `sqakd.ResidualSum`; by default they stay real.
        start: where `calibrate` lets the ranges of a named method start: "paper" (its own rule, the default), "mse"
            (the least rounding error; often better at one bit, docs/methods.md) or "max" (nothing is clipped).
        example: one batch of images [N, C, H, W]. If given, the network runs once on an image of zeros of that size,
            and layers that are never called stay float: some networks read a layer's weights instead of calling it.
        first: names of modules whose layers count as the first and stay float; by default the first layer alone.

    Raises:
        SqakdError: if the name or the start is unknown, bits are not whole numbers from 1 to 8, the network has no
            layer to quantize or is quantized already, a module of `first` does not exist, a pattern matches no layer,
            or there is no residual sum to round. Also later, where the copy computes gradients without ranges.

    Example:
        >>> from torch import nn
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 10))
        >>> [type(layer).__name__ for layer in quantize(network, "lsq", bits=2)]
        ['Conv2d', 'QuantConv2d', 'Flatten', 'Linear']
    """
    check_network(model)
    widths = {"bits": bits, "w_bits": w_bits, "a_bits": a_bits}
    if isinstance(quantizer, Scheme):
        for key, given, what in (("start", start, "starts"), *((key, given, "bits") for key, given in widths.items())):
            if given is not None:
                raise SqakdError(f"{key}={given!r}: expected None, because a Scheme has its own {what}")
        scheme = quantizer
    else:
        common = bits_or_default(bits)
        own = {"w_bits": common if w_bits is None else w_bits, "a_bits": common if a_bits is None else a_bits}
        scheme = preset(quantizer, **own, start=start)
    more = {
        "layer_bits": layer_bits,
        "layer_w_bits": layer_w_bits,
        "layer_a_bits": layer_a_bits,
        "residual_bits": residual_bits,
    }
    scheme = replace(scheme, **{key: given for key, given in more.items() if given is not None})  # type: ignore[arg-type]
    if scheme.outer == "released" and example is None:
        raise SqakdError("outer='released' follows the tensors through the network; expected example=images")
    student = copy.deepcopy(model).requires_grad_(True)  # a frozen teacher would give a student that never learns
    if example is None:
        convert.quantize(student, scheme, first=first)
    else:
        channels, height, width = images_of(example).shape[1:]
        with refused_images(example):
            convert.quantize(student, scheme, first=first, image_shape=(channels, height, width))
    student.register_forward_pre_hook(NeedsRanges())
    return student


class NeedsRanges:
    """A hook that refuses to train a network before its ranges are set, and removes itself once they are.

    Compiled code has no such check: it would be compiled again after the first step.
    """

    def __call__(self, model: nn.Module, args: object) -> None:
        if torch.compiler.is_compiling() or not torch.is_grad_enabled() or device_of(model).type == "meta":
            return
        if not all(bool(quantizer.calibrated) for quantizer in quantizers(model)):
            raise SqakdError("the network has no ranges yet; expected calibrate(network, images), or trained weights")
        remove_need(model)


def remove_need(model: nn.Module) -> None:
    """Remove the hook `NeedsRanges` of a network."""
    for key, hook in list(model._forward_pre_hooks.items()):
        if isinstance(hook, NeedsRanges):
            model._forward_pre_hooks.pop(key, None)  # another thread may have removed it


def calibrate(model: nn.Module, images: Batches, *, batches: int = 1, key: Key = None) -> None:
    """Set all ranges of a quantized network from images, in place.

    The layers are calibrated in the order in which they run, in one forward pass, so that the inputs of each layer are
    already quantized. Batch norm runs in training mode in this pass, as in the code of EWGS
    (https://arxiv.org/abs/2104.00903). No label is read.

    Args:
        model: result of `quantize`.
        images: an iterable of batches, such as a DataLoader, or one tensor [N, C, H, W]; floating-point, normalised for
            the network. A batch may be a tensor, a sequence (images, ...), or a mapping. Images are moved to the
            network's device.
        batches: how many batches to read; their images pass through the network together.
        key: place of the images in a batch, or a function from the batch to its images.

    Raises:
        SqakdError: if the network has no quantized layer or is calibrated already, the images end too early, have
            different shapes or values that are not finite, a batch has no such key, the network cannot take the images,
            or a layer finds no range.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 10))
        >>> student = quantize(network, "lsq", bits=2)
        >>> calibrate(student, [{"pixels": torch.randn(8, 3, 8, 8)}], key="pixels")
        >>> len(student[1].weight_quantizer(student[1].weight).unique()) <= 4
        True
    """
    own = quantizers(check_network(model))
    if not own:
        raise SqakdError("the network has no quantized layer; expected the result of quantize")
    if any(bool(quantizer.calibrated) for quantizer in own):
        raise SqakdError("the network is calibrated already; quantize the float network again to start over")
    found = first_batches(images, batches, key).to(device_of(model))
    try:
        with refused_images(found):
            calibration.calibrate(model, found)
        remove_need(model)
    except BaseException:
        sums = [module.quantizer for _, module in residual_sums(model)]
        for quantizer in (*own, *sums):  # those of the first layers may be calibrated already, and could not be again
            quantizer.calibrated.fill_(False)
        raise


def dequantize(model: Network) -> Network:
    """Return a float copy of a quantized network, with the same weights as trained and without their rounding.

    Args:
        model: result of `quantize`. It is not changed.

    Raises:
        SqakdError: if the network has no quantized layer.

    Example:
        >>> from torch import nn
        >>> network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
        >>> [type(layer).__name__ for layer in dequantize(quantize(network))]
        ['Linear', 'Linear', 'Linear']
    """
    if not any(True for _ in quant_layers(check_network(model))):
        raise SqakdError("the network has no quantized layer, so there is nothing to undo")
    made = copy.deepcopy(model)
    remove_need(made)
    convert.dequantize(made)
    return made

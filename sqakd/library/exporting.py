"""Export of a network in memory as an ONNX file that computes with integers, with the proof that both agree."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sqakd.dataset.checks import SMALLEST_STD
from sqakd.errors import SqakdError
from sqakd.images import Preparation
from sqakd.library.batches import (
    Batches,
    Key,
    check_finite,
    check_network,
    check_shape,
    images_of,
    labels_of,
    refused_images,
    several,
)
from sqakd.library.quantizing import dequantize
from sqakd.numbers import is_number
from sqakd.quantization.layers import quant_layers, quantizers
from sqakd.runs.export_record import ExportRecord
from sqakd.warning import warn

if TYPE_CHECKING:
    from sqakd.export.options import Profile
    from sqakd.export.trained import ValidationBatch

CALIBRATION_IMAGES = 256
ONE_LEVEL = 1 / 255  # of a pixel: how far images on the scale 0 .. 1 may reach beyond it
Numbers = float | Sequence[float] | Tensor | NDArray[Any]


def export(
    model: nn.Module,
    example: Tensor,
    path: str | Path,
    *,
    images: Batches | None = None,
    key: Key = None,
    profile: Profile = "exact",
    class_names: Sequence[str] = (),
    mean: Numbers | None = None,
    std: Numbers | None = None,
    name: str | None = None,
    regrid: bool = False,
    gate: float | None = None,
) -> ExportRecord:
    """Write a quantized network as an ONNX file of integer operations, and prove that the file agrees with the network.

    The folder gets model.onnx, model.float.onnx (the network without rounding, for comparison), the integers and scales
    of each layer in weights_int.npz and layers.json (which has the residual sums on integers too), record.json, and a
    report with the proof. All files appear together, after the file has been run in ONNX Runtime and compared with the
    network; otherwise none appears.

    Args:
        model: quantized and calibrated network, images [N, C, H, W] -> one tensor whose second dimension is compared,
            such as logits [N, classes] or [N, classes, H, W]. It is not changed.
        example: images [N, C, H, W] as the network gets them. The file takes images of this size, in batches of any
            number. Its images also set the ranges of the profiles "int8" and "trt", which need some hundreds.
        path: folder to write: absent, empty or an earlier export, which is replaced.
        images: batches on which the file and the network are compared, in the forms of `calibrate`; labels of
            (image, label) batches give the accuracy of both. Without them the example alone is the proof.
        key: place of the images in a batch, or a function from the batch to its images.
        profile: "exact": what was trained as integers is integers, and everything else stays real; "requantized": the
            same, with each sum between integers requantized, also where that changes single codes; "int8": what was
            real becomes 8-bit too; "trt": in the form that TensorRT accepts.
        class_names: in the order of the logits, for `predict`.
        mean: mean of each channel that the images were normalised with, of pixels scaled to 0 .. 1, for `predict`; one
            number stands for all channels. None for both if the images are pixels scaled to 0 .. 1; for other images
            there is a warning then, unless 0.0, and 1.0 for `std`, say that the network takes such pixels.
        std: standard deviation of each channel in the same way.
        name: of the network in the report; by default its class.
        regrid: whether 8-bit weights whose codes do not fit int8 are rounded to a grid that does.
        gate: smallest share of equal predictions for which the file is written; by default 0.995 for "exact"
            and "requantized", and none for the other profiles, which change the network.

    Returns:
        The record: agreement, sizes, bit-operations, and one entry for each layer.

    Raises:
        SqakdError: if the network is not quantized and calibrated, cannot take the example, returns anything but one
            tensor, or cannot be computed with integers; if the file disagrees with the network; if the images are not
            as expected; if the folder holds anything else; or if a package for the export is missing.

    Example:
        >>> import tempfile
        >>> from sqakd.library.quantizing import calibrate, quantize
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 5))
        >>> example = torch.rand(8, 3, 8, 8)
        >>> student = quantize(network, "lsq", bits=2)
        >>> calibrate(student, example)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     record = export(student, example, folder)
        >>> [verdict.agreement for verdict in record.verify][0]
        1.0
    """
    pipeline, trained_type, options_type, timing = _exporter()
    network = copy.deepcopy(check_network(model)).cpu().float().eval()
    example = check_finite(images_of(example)).detach().cpu().float()
    _check_names(class_names, _check_network(network, example))
    channels, height, width = example.shape[1:]
    is_scaled = mean is None and std is None and not _warns_of_normalisation(example)
    mean = _per_channel("mean", mean, channels, default=0.0)
    std = _per_channel("std", std, channels, default=1.0)
    compared = [example] if images is None else images
    pairs = [[quantizer.bits for quantizer in layer.quantizers] for _, layer in quant_layers(network)]
    bits = [set(own) for own in zip(*pairs, strict=True)]  # of the weights, and of the inputs
    trained = trained_type(
        network=network,
        float_network=dequantize(network),
        float_source="the network's weights, not rounded",
        image_shape=(channels, height, width),
        class_names=list(class_names),
        mean=mean,
        std=std,
        preparation=Preparation(size=(height, width), stored=None, margin=0),
        identity={
            **{"name": name or type(model).__name__, "seed": 0, "model": type(model).__name__},
            # None where the layers have different bits.
            **{key: min(own) if len(own) == 1 else None for key, own in zip(("w_bits", "a_bits"), bits, strict=True)},
        },
        calibration=lambda count: example[:count],
        validation=lambda: _validation(compared, key, example, is_scaled=is_scaled),
    )
    options = options_type(
        **{
            "format": "onnx",
            "profile": profile,
            "pack": "auto",
            "preprocess": False,
            "regrid": regrid,
            "thresholds": False,
            "gate": gate,
            "images": None,
        },
        **{"calibration_images": CALIBRATION_IMAGES},
        benchmark=timing(rounds=0, seconds=0.1, batches=[1], threads=[1]),
    )
    record: ExportRecord = pipeline.export(trained, options, Path(path))
    return record


def _per_channel(argument: str, values: Numbers | None, channels: int, *, default: float) -> list[float]:
    """Return one number per channel, the default where none are given."""
    if values is None:
        return [default] * channels
    least = SMALLEST_STD if argument == "std" else 0.0
    given = values.tolist() if isinstance(values, Tensor | np.ndarray) else values
    found = [given] * channels if is_number(given) else given
    if not (
        isinstance(found, Sequence)
        and len(found) == channels
        and all(is_number(value) and least <= value <= 1 for value in found)
    ):
        raise SqakdError(
            f"{argument}={values!r}: expected {channels} numbers from {least:g} to 1, one per channel, or one for all"
            " channels, for pixels scaled to 0 .. 1"
        )
    return [float(value) for value in found]


def _warns_of_normalisation(images: Tensor) -> bool:
    """Return whether images are no pixels scaled to 0 .. 1, and warn, because `predict` gives the network such pixels.

    It is no error, because a network may have inputs of its own, which only its owner's program computes.
    """
    least, most = images.min().item(), images.max().item()
    if least >= -ONE_LEVEL and most <= 1 + ONE_LEVEL:
        return False
    warn(
        f"the images reach from {least:.3g} to {most:.3g}, so they seem normalised, but mean= and std= of that"
        " normalisation are missing: predict will give the network pixels scaled to 0 .. 1 (mean=0.0 and std=1.0 say"
        " that this is right)"
    )
    return True


def _exporter() -> tuple[Any, Any, Any, Any]:
    """Import the exporter, whose packages are an extra of this project.

    Raises:
        SqakdError: naming the package that is missing.
    """
    try:
        from sqakd.export import pipeline
        from sqakd.export.options import Options, Timing
        from sqakd.export.trained import Trained
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("sqakd"):  # a mistake in this project, not a missing package
            raise
        raise SqakdError(
            f"the export needs a package that is not installed ({error}); expected sqakd with its extra 'export'"
        ) from error
    return pipeline, Trained, Options, Timing


@torch.no_grad()
def _check_network(network: nn.Module, example: Tensor) -> int:
    """Return the length of the output's second dimension.

    Raises:
        SqakdError: if the network is not calibrated, or its output is not one tensor for each image.
    """
    own = quantizers(network)
    if not own:
        raise SqakdError("the network has no quantized layer, so there are no integers to export")
    if not all(bool(quantizer.calibrated) for quantizer in own):
        raise SqakdError("the network is not calibrated; expected calibrate, or trained weights, before the export")
    with refused_images(example):
        output = network(example)
    if not isinstance(output, Tensor) or output.ndim < 2 or len(output) != len(example):
        found = f"shape {list(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise SqakdError(
            f"the network returns {found} for images of shape {list(example.shape)}; expected one tensor [N, C, ...]."
            f" Export a module that returns one tensor, such as the backbone"
        )
    return output.shape[1]


def _check_names(names: Sequence[str], classes: int) -> None:
    """Refuse names of classes that `predict` could not use."""
    if isinstance(names, str) or not all(isinstance(name, str) for name in names) or len(names) not in (0, classes):
        raise SqakdError(f"class_names={names!r:.80}: expected {classes} texts, one for each output, or none")


def _validation(batches: Batches, key: Key, example: Tensor, *, is_scaled: bool) -> Iterator[ValidationBatch]:
    """Yield the batches on which the file and the network are compared.

    Args:
        batches: given by the user.
        key: where the images of a batch are.
        example: the images of the export, whose shape all have.
        is_scaled: whether a warning is due if images are no pixels scaled to 0 .. 1.

    Raises:
        SqakdError: if there are none, or the images are not as expected.
    """
    from sqakd.export.trained import ValidationBatch

    found = 0
    for batch in several(batches):
        images = check_finite(images_of(batch, key)).detach().cpu().float()
        check_shape(images, example.shape[1:])
        is_scaled = is_scaled and not _warns_of_normalisation(images)
        labels = labels_of(batch)
        found += len(images)
        # The file gets normalised images, so that the pixels are not needed.
        pixels = torch.empty(len(images), 0, dtype=torch.uint8)
        yield ValidationBatch(pixels, images, images, None if labels is None else labels.cpu())
    if not found:
        raise SqakdError("the images end before the first batch")

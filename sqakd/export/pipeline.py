"""The whole export of one network: lower, write, prove, describe; all files or none."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from torch import Tensor, fx, nn

import sqakd
from sqakd.export.artefacts import arrays, describe, float_parts
from sqakd.export.benchmark import Timing, benchmark
from sqakd.export.compare import code_differences
from sqakd.export.errors import ExportError
from sqakd.export.lower import Lowering, lower
from sqakd.export.modules import IntegerLayer
from sqakd.export.pack import PACKS, Pack, pack
from sqakd.export.report import write_report
from sqakd.export.streams import eight_bit_skips, eight_bits
from sqakd.export.to_onnx import OPSET, Deployed, to_onnx
from sqakd.export.verify import Examples, verify
from sqakd.quantization.cost import cost
from sqakd.runs.export_record import ExportRecord, Verdict, write_export

Profile = Literal["exact", "int8", "trt"]
PROFILES = ("exact", "int8", "trt")
EXACT_GATE = 0.995
METADATA = "sqakd"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is exported, and what it has to pass.

    Attributes:
        profile: "exact": everything that was trained as integers is integers, everything else real; "int8": also what
            was real in training is 8-bit; "trt": as exact, in the form that TensorRT takes.
        pack: see `sqakd.export.pack`.
        preprocess: whether the file takes pixels (uint8) and normalises them itself.
        regrid: whether weights that do not fit int8 are rounded to what does.
        gate: smallest share of validation images on which the file has to agree with the trained network; None: 0.995
            for exact, none for the others, which change the network.
        images: how many validation images are compared; None: all.
        calibration_images: how many training images set the ranges of the profiles int8 and trt.
        benchmark: see `sqakd.export.benchmark.Timing`.
    """

    profile: Profile
    pack: Pack
    preprocess: bool
    regrid: bool
    gate: float | None
    images: int | None
    calibration_images: int
    benchmark: Timing

    def __post_init__(self) -> None:
        if self.profile not in PROFILES:
            raise ExportError(f"profile={self.profile!r}: expected {', '.join(PROFILES)}")
        if self.pack not in PACKS:
            raise ExportError(f"pack={self.pack!r}: expected {', '.join(PACKS)}")
        if self.gate is not None and not 0 <= self.gate <= 1:
            raise ExportError(f"gate={self.gate}: expected a share of the images, 0 to 1")
        if self.images is not None and self.images < 1:
            raise ExportError(f"images={self.images}: expected a number of images, or null for all")
        if self.calibration_images < 1:
            raise ExportError(f"calibration_images={self.calibration_images}: expected a number of images")

    @property
    def least_agreement(self) -> float:
        return self.gate if self.gate is not None else EXACT_GATE if self.profile == "exact" else 0.0


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A trained network with what is known about it.

    Attributes:
        network: quantized and calibrated, on the CPU.
        float_network: the same network in float, for comparison.
        float_source: where its weights are from.
        image_shape: channels, height, width.
        class_names: in the order of the logits; empty if unknown.
        mean: of each channel, pixels scaled to 0 .. 1.
        std: of each channel.
        resize: how an image is brought to its size: shorter side to height + margin, then the middle.
        identity: name, seed and the like, for the record and the model's metadata.
        calibration: normalised training images [N, C, H, W].
        validation: makes an iterator over all validation images.
    """

    network: nn.Module
    float_network: nn.Module
    float_source: str
    image_shape: tuple[int, int, int]
    class_names: list[str]
    mean: list[float]
    std: list[float]
    resize: dict[str, int]
    identity: dict[str, Any]
    calibration: Callable[[int], Tensor]
    validation: Callable[[], Iterable[Examples]]


def export(trained: Trained, options: Options, folder: Path, others: Iterable[ExportRecord] = ()) -> ExportRecord:
    """Write all files of one export.

    Args:
        trained: what to export.
        options: how.
        folder: takes the place of what an earlier export left there, once everything is done and proven.
        others: records of other exports, to compare with in the report.

    Returns:
        The record, as in record.json.

    Raises:
        ExportError: if the network cannot be exported, or the file disagrees with it; nothing is written then.
    """
    lowered = lower(trained.network, Lowering(regrid=options.regrid, signed=options.profile == "trt"))
    sample = trained.calibration(options.calibration_images)
    shares, difference = code_differences(lowered, trained.network, sample[:32])
    if options.profile != "exact":
        (eight_bits if options.profile == "int8" else eight_bit_skips)(lowered, sample)
    model, unpacked_bytes = _model(trained, lowered, options)
    with replacing_folder(folder) as place:
        onnx.save(model, place / "model.onnx")
        onnx.save(_float_model(trained, options), place / "model.float.onnx")
        np.savez_compressed(place / "weights_int.npz", **arrays(lowered))  # type: ignore[arg-type]
        verdicts = verify(
            place / "model.onnx",
            trained.network,
            _limited(trained.validation(), options.images),
            pixels=options.preprocess,
        )
        _pass(verdicts, options)
        used = cost(trained.network, trained.image_shape)
        layers = describe(lowered)
        for layer in layers:
            layer["codes_that_differ"] = shares.get(layer["name"])
        facts = trained.identity | {
            "profile": options.profile,
            "pack": options.pack,
            "preprocess": options.preprocess,
            "gate": options.least_agreement,
            "opset": OPSET,
            "verify": [asdict(verdict) for verdict in verdicts],
            "logits_without_propagation": difference,
            "sizes": {
                "parameters_at_their_bits": used.packed_bytes,
                "file": _bytes(place / "model.onnx"),
                "file_gzip": _gzip(place / "model.onnx"),
                "unpacked": unpacked_bytes,
                "float": _bytes(place / "model.float.onnx"),
                "float_gzip": _gzip(place / "model.float.onnx"),
            },
            "parameters": used.parameters,
            "bit_operations": used.bit_operations,
            "float_source": trained.float_source,
            "stays_float": float_parts(lowered),
            "layers": layers,
            "versions": versions(),
        }
        if options.benchmark.rounds:
            facts["benchmark"] = benchmark(
                {"float": place / "model.float.onnx", options.profile: place / "model.onnx"},
                _deployed(trained, trained.float_network, options),
                trained.image_shape,
                pixels=options.preprocess,
                timing=options.benchmark,
            )
        record = ExportRecord.from_dict(facts)
        write_report(place, record, others)
        (place / "layers.json").write_text(json.dumps(layers, indent=1), encoding="utf-8")
        write_export(place / "record.json", record)
    return record


def _model(trained: Trained, lowered: fx.GraphModule, options: Options) -> tuple[onnx.ModelProto, int]:
    """The model with packed weights and metadata, and how large it would be without packing."""
    deployed = _deployed(trained, lowered, options)
    # ONNX Runtime has no integer kernel for layers with a real output; it would make their weights real at each run.
    model = to_onnx(deployed, trained.image_shape, weights="cast" if options.profile == "exact" else "dequantize")
    layers = {
        f"network.{name}.weight": module for name, module in lowered.named_modules() if isinstance(module, IntegerLayer)
    }
    _describe(model, trained, options, layers.values())
    packed = pack(model, layers, options.pack)
    return packed, model.ByteSize()


def _deployed(trained: Trained, network: nn.Module, options: Options) -> Deployed:
    mean, std = (trained.mean, trained.std) if options.preprocess else (None, None)
    return Deployed(network, mean, std)


def _float_model(trained: Trained, options: Options) -> onnx.ModelProto:
    model = to_onnx(_deployed(trained, trained.float_network, options), trained.image_shape, weights="cast")
    _describe(model, trained, options, ())
    return model


def _describe(model: onnx.ModelProto, trained: Trained, options: Options, layers: Iterable[IntegerLayer]) -> None:
    """What `python -m sqakd.predict` and whoever else gets the file needs to know."""
    facts = trained.identity | {
        "classes": trained.class_names,
        "mean": trained.mean,
        "std": trained.std,
        "image_shape": list(trained.image_shape),
        "resize": trained.resize,
        "preprocess": options.preprocess,
        "profile": options.profile,
        "bits": {layer.name: [layer.weight_spec.bits, layer.stored.spec.bits] for layer in layers},
    }
    model.producer_name, model.producer_version = "sqakd", sqakd.__version__
    onnx.helper.set_model_props(model, {METADATA: json.dumps(facts, separators=(",", ":"))})


def _pass(verdicts: list[Verdict], options: Options) -> None:
    for verdict in verdicts:
        if verdict.agreement < options.least_agreement:
            raise ExportError(
                f"{verdict.runtime} agrees with the trained network on {100 * verdict.agreement:.2f}% of"
                f" {verdict.images} validation images, less than the gate of {100 * options.least_agreement:.2f}%, so"
                f" nothing was written (largest difference of two logits {verdict.largest_difference:.3g}, their spread"
                f" {verdict.spread:.3g}); type gate=NUMBER to accept less"
            )


def _limited(batches: Iterable[Examples], images: int | None) -> Iterator[Examples]:
    left = images
    for batch in batches:
        if left is None:
            yield batch
            continue
        if left <= 0:
            return
        yield Examples(*(None if part is None else part[:left] for part in batch))  # type: ignore[arg-type]
        left -= len(batch.images)


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder` that takes its place if the block succeeds, and disappears if not.

    Raises:
        ExportError: if it cannot be written.
    """
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        yield temporary
        if folder.exists():
            folder.rename(old)
        temporary.rename(folder)
    except OSError as error:
        if old.exists() and not folder.exists():
            old.rename(folder)
        raise ExportError(f"cannot write {folder}: {error.strerror or error}; type folder=ANOTHER_FOLDER") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def versions() -> dict[str, str]:
    """What made the files."""
    packages = ("torch", "onnx", "onnxscript", "onnxruntime")
    return {"sqakd": sqakd.__version__} | {name: version(name) for name in packages}


def _bytes(file: Path) -> int:
    return file.stat().st_size


def _gzip(file: Path) -> int:
    return len(gzip.compress(file.read_bytes(), compresslevel=9, mtime=0))

"""The options of an export, checked when they are built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from sqakd.export.errors import ExportError
from sqakd.model_file import QONNX

Profile = Literal["exact", "requantized", "int8", "trt"]
PROFILES: tuple[Profile, ...] = get_args(Profile)
AS_TRAINED = ("exact", "requantized")  # these round nothing that training did not round
Format = Literal["onnx", "qonnx"]
FORMATS: tuple[Format, ...] = get_args(Format)
Pack = Literal["auto", "uint4", "table", "none"]
PACKS: tuple[Pack, ...] = get_args(Pack)
USUAL_GATE = 0.995
QONNX_IMAGES = 100  # the package `qonnx` is slow


@dataclass(frozen=True, kw_only=True)
class Timing:
    """The options of a speed measurement.

    Attributes:
        rounds: number of times that each runtime is measured; 0: no measurement.
        seconds: duration of one measurement, per batch size.
        batches: batch sizes.
        threads: numbers of threads.
    """

    rounds: int
    seconds: float
    batches: list[int]
    threads: list[int]

    def __post_init__(self) -> None:
        if self.rounds < 0:
            raise ExportError(f"rounds={self.rounds}: expected a number >= 0; 0 measures nothing")
        if self.seconds <= 0:
            raise ExportError(f"seconds={self.seconds}: expected a number > 0")
        for key in ("batches", "threads"):
            if not getattr(self, key) or min(getattr(self, key)) < 1:
                raise ExportError(f"{key}={getattr(self, key)}: expected numbers >= 1, e.g. [1,2]")


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of an export.

    Attributes:
        format: "onnx": operators of standard ONNX, for runtimes; "qonnx": the trained network with quantizers as nodes,
            for tools that build hardware.
        profile: "exact": what was trained as integers is integers, everything else stays real; "requantized": the same,
            with each sum between integers requantized, also where that changes single codes; "int8": what was real in
            training becomes 8-bit too; "trt": as requantized, in the form that TensorRT accepts.
        pack: how weights of few bits are stored, see `sqakd.export.pack`.
        preprocess: whether the file takes pixels (uint8) and normalises them itself.
        regrid: whether weights that do not fit int8 are rounded to a grid that does.
        gate: smallest share of validation images on which the file must agree with the trained network; None: 0.995 for
            exact and requantized, and no gate for int8 and trt, which change the network.
        images: number of validation images that are compared; None: all, or `QONNX_IMAGES` in the format qonnx.
        thresholds: whether a QONNX file compares inputs with thresholds (MultiThreshold), as FINN does, instead of
            rounding them (Quant).
        calibration_images: number of training images that set the ranges of the profiles int8 and trt.
        benchmark: how speed is measured.

    Raises:
        ExportError: if a value is not allowed.
    """

    format: Format
    profile: Profile
    pack: Pack
    preprocess: bool
    regrid: bool
    thresholds: bool
    gate: float | None
    images: int | None
    calibration_images: int
    benchmark: Timing

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise ExportError(f"format={self.format!r}: expected {', '.join(FORMATS)}")
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

        if self.format == QONNX:
            self._check_qonnx()
        elif self.thresholds:
            raise ExportError(
                f"thresholds=true is a form of format=qonnx, but format={self.format} was given",
                topic="export.thresholds",
            )

    def _check_qonnx(self) -> None:
        defaults = {"profile": "exact", "pack": "auto", "preprocess": False, "regrid": False}
        changed = [key for key, default in defaults.items() if getattr(self, key) != default]
        if changed:
            given = ", ".join(f"{key}={str(getattr(self, key)).lower()}" for key in changed)
            raise ExportError(
                f"format=qonnx is not compatible with {given}",
                topic="export.qonnx_option",
                keys=", ".join(changed),
            )

    @property
    def kind(self) -> str:
        """Name of the form of the file: qonnx, or the profile."""
        return QONNX if self.format == QONNX else self.profile

    @property
    def compared_images(self) -> int | None:
        """Number of validation images that are compared; None: all."""
        return QONNX_IMAGES if self.images is None and self.format == QONNX else self.images

    @property
    def least_agreement(self) -> float:
        """The gate, or the default of the profile."""
        return self.gate if self.gate is not None else USUAL_GATE if self.profile in AS_TRAINED else 0.0

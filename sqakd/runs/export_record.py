"""The record of an exported file: what was written, the proof of its agreement, its size and its speed.

record.json lies in the folder of an export, runs/NAME/seed<K>/export-PROFILE/.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sqakd.errors import SqakdError
from sqakd.files import ReadError, write_text
from sqakd.runs.fields import Fields, read_json
from sqakd.runs.folder import find_runs
from sqakd.runs.listing import Omit, omitting, strictly

# A record.json without one of these keys is that of something else and is skipped.
OF_AN_EXPORT = ("profile", "sizes", "verify", "name", "seed")
FLOAT_FILE = "float"  # profile of the float file, with which an exported file is compared


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Comparison of an exported file in one runtime with the trained network.

    Attributes:
        runtime: name and version of the runtime.
        images: how many images were compared.
        agreement: share of the images with the same predicted class.
        largest_difference: largest difference of two logits.
        median_difference: median over the images of the largest difference of their logits.
        spread: standard deviation of the trained network's logits, for comparison.
        top1: of the file; None without labels.
        trained_top1: of the trained network on the same images; None without labels.
    """

    runtime: str
    images: int
    agreement: float
    largest_difference: float | None = None
    median_difference: float | None = None
    spread: float | None = None
    top1: float | None = None
    trained_top1: float | None = None

    @classmethod
    def from_fields(cls, fields: Fields) -> Verdict:
        """Return the verdict in a JSON object."""
        optional = "largest_difference", "median_difference", "spread", "top1", "trained_top1"
        return cls(
            runtime=fields.text("runtime"),
            images=fields.whole("images"),
            agreement=fields.number("agreement"),
            **fields.optional({fields.number: optional}),
        )


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes in bytes.

    Attributes:
        parameters_at_their_bits: all parameters at their bits, without anything else.
        file: model.onnx.
        file_gzip: model.onnx, compressed.
        unpacked: model.onnx with 8 bits for each weight.
        float: model.float.onnx.
        float_gzip: model.float.onnx, compressed.
    """

    parameters_at_their_bits: int | None = None
    file: int
    file_gzip: int | None = None
    unpacked: int | None = None
    float: int
    float_gzip: int | None = None

    @classmethod
    def from_fields(cls, fields: Fields) -> Sizes:
        """Return the sizes in a JSON object."""
        optional = fields.optional({fields.whole: ("parameters_at_their_bits", "file_gzip", "unpacked", "float_gzip")})
        return cls(file=fields.whole("file"), float=fields.whole("float"), **optional)


@dataclass(frozen=True, kw_only=True)
class Timed:
    """Measured time of one runtime on one file, for one batch size and number of threads.

    Attributes:
        name: runtime and file, e.g. "ONNX Runtime exact".
        version: of the runtime.
        batch: images per call.
        threads: of the runtime.
        p10_ms: 10th percentile of the time of one call, in milliseconds.
        p50_ms: its median.
        p90_ms: its 90th percentile.
        runs: how many calls were measured.
        ratio: median of ONNX Runtime on the float file divided by this median; None if it was not measured.
        load_ms: time until the file is loaded, the import of the runtime included.
        peak_bytes: largest memory of the process.
    """

    name: str
    version: str
    batch: int
    threads: int
    p10_ms: float
    p50_ms: float
    p90_ms: float
    runs: int
    ratio: float | None = None
    load_ms: float | None = None
    peak_bytes: int | None = None

    @property
    def runtime(self) -> str:
        """Name of the runtime, e.g. "ONNX Runtime"."""
        return self.name.rpartition(" ")[0]

    @property
    def profile(self) -> str:
        """Profile of the file; `FLOAT_FILE` for the float file."""
        return self.name.rpartition(" ")[2]

    @classmethod
    def from_fields(cls, fields: Fields) -> Timed:
        """Return the measured time in a JSON object."""
        return cls(
            name=fields.text("name"),
            version=fields.text("version"),
            batch=fields.whole("batch"),
            threads=fields.whole("threads"),
            runs=fields.whole("runs"),
            p10_ms=fields.number("p10_ms"),
            p50_ms=fields.number("p50_ms"),
            p90_ms=fields.number("p90_ms"),
            **fields.optional({fields.number: ("ratio", "load_ms"), fields.whole: ("peak_bytes",)}),
        )


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Times of all runtimes on one machine.

    Attributes:
        machine: processor, cores, operating system and the like, plain data.
        rows: one for each runtime, file, batch size and number of threads.
        executed: for each runtime and file, how often each operator was executed.
        missing: runtimes that could not be measured.
    """

    machine: Mapping[str, Any]
    rows: Sequence[Timed]
    executed: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    missing: Sequence[str] = field(default_factory=list)

    @classmethod
    def from_fields(cls, fields: Fields) -> Benchmark:
        """Return the benchmark in a JSON object."""
        return cls(
            machine=fields.plain("machine"),
            rows=[Timed.from_fields(row) for row in fields.inside_list("rows")],
            executed=fields.plain("executed") if fields.has("executed") else {},
            missing=list(fields.content.get("missing") or ()),
        )


@dataclass(frozen=True, kw_only=True)
class ExportRecord:
    """What an export wrote. The fields are the keys of its record.json, in their order.

    Attributes:
        name: of the exported run.
        seed: of the exported run.
        dataset: the chosen data set.
        model: name of the network.
        quantizer: the chosen quantizer.
        w_bits: bits of the weights.
        a_bits: bits of the activations.
        config_hash: of the values that decide what the run computed.
        profile: exact, requantized, int8, trt or qonnx.
        pack: how the weights are packed.
        preprocess: whether the file takes pixels and normalises them itself.
        gate: smallest agreement that was accepted.
        opset: ONNX operator set.
        verify: comparison with the trained network, one entry for each runtime.
        machine: the machine that compared them: processor, instruction sets and the like, plain data; earlier versions
            did not record it.
        logits_without_propagation: difference of the logits from those of the trained network in float64, whose layers
            get the codes of the exported one.
        sizes: in bytes.
        parameters: number of parameters of the trained network.
        bit_operations: multiply-adds times the bits of both factors, summed over the layers, for one image.
        float_source: where the weights of the float file are from.
        stays_float: modules whose parameters stay float: name, kind and number of parameters, plain data.
        layers: one entry for each integer layer, plain data as in layers.json.
        sums: one entry for each residual sum on integers, plain data as in layers.json.
        versions: of the packages that made the files.
        benchmark: measured times; None if nothing was measured.
    """

    name: str
    seed: int
    dataset: str | None = None
    model: str | None = None
    quantizer: str | None = None
    w_bits: int | None = None
    a_bits: int | None = None
    config_hash: str | None = None
    profile: str
    pack: str | None = None
    preprocess: bool | None = None
    gate: float | None = None
    opset: int | None = None
    verify: Sequence[Verdict]
    machine: Mapping[str, Any] = field(default_factory=dict)
    logits_without_propagation: float | None = None
    sizes: Sizes
    parameters: int | None = None
    bit_operations: int | None = None
    float_source: str | None = None
    stays_float: Sequence[Mapping[str, Any]] = field(default_factory=list)
    layers: Sequence[Mapping[str, Any]] = field(default_factory=list)
    sums: Sequence[Mapping[str, Any]] = field(default_factory=list)
    versions: Mapping[str, str] = field(default_factory=dict)
    benchmark: Benchmark | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data as in record.json."""
        plain = asdict(self)
        if self.benchmark is None:
            del plain["benchmark"]
        return plain

    @classmethod
    def from_dict(cls, content: object) -> ExportRecord:
        """Return the record in plain data.

        Raises:
            SqakdError: if a field is missing or of the wrong type.
        """
        fields = Fields(content)
        optional = fields.optional(
            {
                fields.text: ("dataset", "model", "quantizer", "config_hash", "pack", "float_source"),
                fields.whole: ("w_bits", "a_bits", "opset", "parameters", "bit_operations"),
                fields.number: ("gate", "logits_without_propagation"),
                fields.flag: ("preprocess",),
                fields.plain_list: ("stays_float", "layers", "sums"),
                fields.texts: ("versions",),
                fields.plain: ("machine",),
            }
        )
        return cls(
            name=fields.text("name"),
            seed=fields.whole("seed"),
            profile=fields.text("profile"),
            verify=[Verdict.from_fields(verdict) for verdict in fields.inside_list("verify")],
            sizes=Sizes.from_fields(fields.inside("sizes")),
            benchmark=Benchmark.from_fields(fields.inside("benchmark")) if fields.has("benchmark") else None,
            **optional,
        )


def read_export(file: Path) -> ExportRecord | None:
    """Read the record of an export; None if the file is the record of something else.

    Raises:
        SqakdError: if the file cannot be read or a field is of the wrong type; the file is named.
    """
    try:
        content = read_json(file)
        if not isinstance(content, dict) or not content.keys() >= set(OF_AN_EXPORT):
            return None
        return ExportRecord.from_dict(content)
    except ReadError:
        raise
    except SqakdError as error:
        raise SqakdError(f"{file} is not a record of an export ({error})", topic="record.export", file=file) from error


def read_exports(runs: Path, omit: Omit = strictly) -> Iterable[ExportRecord]:
    """Yield the records of all exports below a folder of runs, sorted by path.

    Args:
        runs: folder of runs.
        omit: takes the error of a damaged record, which is left out.

    Raises:
        SqakdError: if one of them is damaged and `omit` raises its error; the file is named.
    """
    for folder in find_runs(runs):
        for file in folder.inner_records:
            with omitting(omit):
                record = read_export(file)
                if record is not None:
                    yield record


def write_export(file: Path, record: ExportRecord) -> None:
    """Write record.json atomically."""
    write_text(file, json.dumps(record.to_dict(), indent=2))

"""Folders of runs that were never trained, for the tests and the benchmark of the report.

The numbers are random and mean nothing; the name of a run is their seed.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from sqakd.runs.export_record import Benchmark, ExportRecord, Sizes, Timed, Verdict, write_export
from sqakd.runs.record import FloatRun, Record, Score


@dataclass(frozen=True)
class Made:
    """One run that was never trained."""

    dataset: str
    model: str
    quantizer: str
    bits: int
    kd: str
    seed: int
    epochs: int = 20
    layers: int = 19

    @property
    def name(self) -> str:
        return f"{self.dataset}-{self.model}-{self.quantizer}-w{self.bits}a{self.bits}-{self.kd}"

    @property
    def float_run(self) -> Made:
        return replace(self, quantizer="none", bits=32, kd="none", seed=0)


def make_grid(
    runs: Path,
    *,
    networks: Sequence[tuple[str, str]] = (("digits16", "resnet20"),),
    quantizers: Sequence[str] = ("ewgs", "lsq"),
    bits: Sequence[int] = (1, 2),
    kds: Sequence[str] = ("none", "sqakd"),
    seeds: int = 3,
    epochs: int = 20,
) -> int:
    """Make the runs of all combinations and one float run for each network, and return their number."""
    made = [
        Made(dataset, model, quantizer, b, kd, seed, epochs)
        for (dataset, model), quantizer, b, kd, seed in product(networks, quantizers, bits, kds, range(seeds))
    ]
    floats = [Made(dataset, model, "none", 32, "none", 0, epochs) for dataset, model in networks]
    for run in [*floats, *made]:
        make_run(runs, run)
    return len(floats) + len(made)


def make_run(runs: Path, made: Made, **changes: Any) -> Path:
    """Write the folder of one run and return it; `changes` replace keys of its record.json."""
    folder = runs / made.name / f"seed{made.seed}"
    folder.mkdir(parents=True)
    (folder / "record.json").write_text(json.dumps(made_record(made).to_dict() | changes, indent=2))
    rows = [f"{epoch},{a:.7g},{b:.7g}" for epoch, (a, b) in enumerate(zip(*made_curves(made), strict=True))]
    (folder / "metrics.csv").write_text("\n".join(["epoch,val/top1,val/agreement", *rows]) + "\n")
    if made.bits < 32:
        (folder / "quantizers.csv").write_text(_quantizers(made, random.Random(f"quantizers {made.name} {made.seed}")))
    return folder


def made_record(made: Made) -> Record:
    """Return the record of a run that was never trained."""
    top1, agreement = made_curves(made)
    is_float = made.bits == 32
    float_top1 = {"top1": _spread([0.997])}
    return Record(
        name=made.name,
        seed=made.seed,
        choices={"dataset": made.dataset, "quantizer": made.quantizer, "kd": made.kd},
        changes={},
        model=made.model,
        w_bits=made.bits,
        a_bits=made.bits,
        epochs=made.epochs,
        scores={"top1": _spread(top1)} | ({} if is_float else {"agreement": _spread(agreement)}),
        labels_used=made.kd == "none",
        float_run=None if is_float else FloatRun(name=made.float_run.name, seed=0, scores=float_top1),
        parameters=269_940,
        packed_bytes=1_079_400 * made.bits // 32 + (0 if is_float else 11_000),
        bit_operations=10_000_000 * made.bits**2,
        images_per_second=600.0,
        training_seconds=50.0 + made.seed,
        commit="0123456789abcdef0123456789abcdef01234567",
        versions={"sqakd": "0.1.0", "python": "3.11.7", "torch": "2.14.1", "lightning": "2.6.6"},
        device="A made-up processor",
        devices=1,
        threads=1,
        finished=f"2026-01-02T03:04:{made.seed:02}+00:00",
        command=f"python train.py seed={made.seed} dataset={made.dataset} quantizer={made.quantizer} kd={made.kd}",
        drop_from_float=None if is_float else 0.997 - top1[-1],
        weights_sha256=f"{random.Random(made.name).getrandbits(256):064x}",
    )


def made_curves(made: Made) -> tuple[list[float], list[float]]:
    """Return top-1 and agreement of each epoch, the same at every call."""
    top1 = _curve(made, random.Random(f"{made.name} {made.seed}"))
    return top1, [min(1.0, value + 0.003) for value in top1]


def make_export(folder: Path, made: Made) -> Path:
    """Write the record of an export into a run's folder and return the folder of the export."""
    place = folder / "export-exact"
    place.mkdir()
    write_export(place / "record.json", made_export(made))
    return place


def made_export(made: Made) -> ExportRecord:
    """Return the record of an export that was never made."""
    timed = [
        Timed(
            name=f"ONNX Runtime {name}",
            version="1.0",
            batch=1,
            threads=1,
            p10_ms=0.9 * ms,
            p50_ms=ms,
            p90_ms=1.2 * ms,
            runs=100,
            ratio=0.6 / ms,
            load_ms=300.0,
            peak_bytes=90_000_000,
        )
        for name, ms in (("float", 0.6), ("exact", 0.4))
    ]
    machine = {
        "processor": "A made-up processor",
        "cores": 2,
        "isa": [],
        "system": "A",
        "python": "3.11.7",
        "load": 0.5,
    }
    layer = {"shape": [16, 16, 3, 3], "w_bits": made.bits, "a_bits": made.bits, "head_room": 42, "regrid_error": 0.0}
    return ExportRecord(
        name=made.name,
        seed=made.seed,
        dataset=made.dataset,
        model=made.model,
        quantizer=made.quantizer,
        w_bits=made.bits,
        a_bits=made.bits,
        profile="exact",
        opset=21,
        verify=[Verdict(runtime="ONNX Runtime 1.0", images=360, agreement=1.0, largest_difference=1e-6, top1=0.95)],
        sizes=Sizes(file=102_300, float=1_085_000),
        bit_operations=10_000_000,
        float_source="this run's weights, not rounded",
        stays_float=[{"name": "conv1", "kind": "Conv2d", "parameters": 448}],
        layers=[
            layer | {"name": "layer1.0.conv1", "output": "integers", "wrong_sums": 3, "reachable_sums": 37_611},
            layer | {"name": "layer1.0.conv2", "output": "real", "codes_that_differ": 0.0},
        ],
        versions={"sqakd": "0.1.0", "torch": "2.14.1"},
        benchmark=Benchmark(
            machine=machine, rows=timed, executed={"ONNX Runtime exact": {"QLinearConv": 3, "Constant": 9}}
        ),
    )


def _curve(made: Made, draw: random.Random) -> list[float]:
    goal = 0.997 - 0.04 / made.bits + (0.01 if made.kd != "none" else 0) + draw.gauss(0, 0.003)
    steps = (goal - 0.5 * 0.6**epoch - abs(draw.gauss(0, 0.003)) for epoch in range(made.epochs))
    return [max(0.0, min(1.0, value)) for value in steps]


def _spread(values: Sequence[float]) -> Score:
    tail = values[-5:]
    return Score(last=values[-1], best=max(values), mean_of_last_5=sum(tail) / len(tail))


def _quantizers(made: Made, draw: random.Random) -> str:
    """Return a quantizers.csv as of EWGS: bounds, and a share for each code; weights have odd codes."""
    codes = {1: range(-(2**made.bits - 1), 2**made.bits, 2), 0: range(2**made.bits)}
    names = sorted({code for some in codes.values() for code in some})
    lines = [",".join(["layer", "is_weight", "bits", "lower", "upper", *(f"code_{code}" for code in names)])]
    for layer, is_weight in product(range(made.layers), (1, 0)):
        shares = {code: draw.random() ** 2 for code in codes[is_weight]}
        total = sum(shares.values())
        upper = (0.5 if is_weight else 3.0) + draw.random()
        fields = [layer, is_weight, made.bits, f"{-upper if is_weight else 0.0:.7g}", f"{upper:.7g}"]
        fields += [f"{shares[code] / total:.7g}" if code in shares else "" for code in names]
        lines.append(",".join(map(str, fields)))
    return "\n".join(lines) + "\n"

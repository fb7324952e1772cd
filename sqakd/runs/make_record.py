"""The record of a run, made from its epochs."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import torch

from sqakd.quantization.cost import Cost
from sqakd.runs.environment import commit, device_name, training_versions
from sqakd.runs.names import bits_name
from sqakd.runs.record import FloatRun, Published, Record, Score
from sqakd.runs.spec import Spec, is_auto
from sqakd.terminal import program

LOWER_IS_BETTER = ("kl",)


def make_record(
    spec: Spec,
    rows: Sequence[Mapping[str, float]],
    *,
    changes: Mapping[str, Any],
    cost: Cost,
    labels_used: bool,
    float_record: Record | None,
    float_precision: str | None = None,
    paper: Published | None,
    training_seconds: float,
    device: torch.device,
    devices: int = 1,
    stage_epochs: int = 0,
    initial: Mapping[str, float] | None = None,
    compiled_from: int | None = None,
    layer_bits: Mapping[str, Sequence[int]] | None = None,
    average_bits: tuple[float, float] | None = None,
) -> Record:
    """Return the record of a finished run, without the checksum of its weights.

    Args:
        spec: what was run.
        rows: one per epoch, as in metrics.csv; none if nothing was trained.
        changes: values that differ from those of the choices alone.
        cost: of the trained network.
        labels_used: whether the loss read labels.
        float_record: record of the float run the student started from, if it is known.
        float_precision: the precision in which that float run was trained, if it is known.
        paper: the published number of the run's cell, if there is one (`sqakd.runs.paper.published`).
        training_seconds: of all epochs and of a stage before them, over all starts.
        device: the device that trained the run.
        devices: how many devices trained it together.
        stage_epochs: epochs of the recipe that a stage before the training took; they have no row.
        initial: scores before the training, e.g. {"top1": 0.85}; None if they were not measured. Without a training
            they are the scores of the run.
        compiled_from: the step of the training from which on steps were compiled code; None if none was.
        layer_bits: bits of weight and input of each quantized layer, if single layers have bits of their own.
        average_bits: of weights and of inputs, if they were chosen for each layer.
    """
    config, initial = spec.config, initial or {}
    rows_of_scores = rows or [{f"val/{name}": value for name, value in initial.items() if math.isfinite(value)}]
    # Preliminary epochs had more bits than the run, so they are not a result.
    judged = [row for row in rows_of_scores if not row.get("preliminary")]
    names = [key.removeprefix("val/") for key in rows_of_scores[-1] if key.startswith("val/")]
    scores = {
        name: score_of(
            [row[f"val/{name}"] for row in judged if f"val/{name}" in row], best=min if name in LOWER_IS_BETTER else max
        )
        for name in names
    }
    float_run, precision = None, str(config["trainer"]["precision"])
    if float_record is not None:
        float_run = FloatRun(
            name=float_record.name,
            seed=float_record.seed,
            scores=float_record.scores,
            precision=None if float_precision == precision else float_precision,
        )
    top1, float_top1 = scores.get("top1"), float_run.scores.get("top1") if float_run else None
    return Record(
        name=config["name"],
        seed=config["seed"],
        choices=spec.choices,
        changes=changes,
        model=config["model"]["name"],
        w_bits=round(average_bits[0]) if average_bits else config["w_bits"],
        a_bits=round(average_bits[1]) if average_bits else config["a_bits"],
        layer_bits=layer_bits,
        chosen_bits=bits_name(config) if is_auto(config) else None,
        epochs=len(rows) + stage_epochs if rows else 0,
        scores=scores,
        top1_before_training=initial.get("top1"),
        agreement_before_training=initial.get("agreement"),
        labels_used=labels_used,
        float_run=float_run,
        paper=paper,
        parameters=cost.parameters,
        packed_bytes=cost.packed_bytes,
        bit_operations=cost.bit_operations,
        images_per_second=median_of_finite([row["images_per_second"] for row in rows]),
        training_seconds=round(training_seconds, 2),
        commit=commit(),
        versions=training_versions(),
        device=device_name(device),
        devices=devices,
        threads=torch.get_num_threads(),
        compiled_from=compiled_from,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        command=shlex.join([*program("python train.py").split(), *spec.overrides]),
        drop_from_float=float_top1.last - top1.last if float_top1 and top1 else None,
        difference_from_paper=top1.last - paper.top1 if paper and top1 else None,
    )


def median_of_finite(rates: Sequence[float]) -> float | None:
    """Return the (upper) median of the finite values; an epoch that was resumed in its middle has no finite rate."""
    finite = sorted(rate for rate in rates if math.isfinite(rate))
    return finite[len(finite) // 2] if finite else None


def score_of(values: Sequence[float], *, best: Callable[[Sequence[float]], float]) -> Score:
    """Return a score's last value, its best value, and its mean over the last five epochs."""
    tail = values[-5:]
    return Score(last=values[-1], best=best(values), mean_of_last_5=sum(tail) / len(tail))

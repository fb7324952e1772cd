"""Tables as CSV, to compute with: one number or word in each field, and empty fields for what is unknown."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from sqakd.report.comparisons import Comparison
from sqakd.report.result_tables import last_ps
from sqakd.report.results import AGGREGATES
from sqakd.report.statistics import NO_VERDICT, Difference, mean_std
from sqakd.runs.record import ITS_OWN, SHARES, WITHOUT_RELEASED
from sqakd.terminal import printable

HEADER = (
    *("dataset", "model", "quantizer", "w_bits", "a_bits", "kd", "changed"),
    *("paper_top1", "paper_top5", "paper_source", "paper_compared_with", "n", "seeds", "epochs"),
    *(f"{score}_{aggregate}_{part}" for score in SHARES for aggregate in AGGREGATES for part in ("mean", "std")),
    *("difference", "packed_bytes", "bit_operations", "commits"),
    *("difference_standard_error", "difference_verdict", "drop_from_float_mean", "drop_from_float_std"),
    *("labels_kd", "labels_n"),
    *(f"labels_{name}_{part}" for name in AGGREGATES for part in ("difference", "standard_error", "verdict")),
    *("before_training_mean", "before_training_std"),
    *("chosen_bits", "kl_last_mean", "kl_last_std"),
    *("labels_last_p", "labels_last_p_holm"),
)


def comparisons_csv(lines: Sequence[Comparison]) -> str:
    """Return one row for each comparison, in percent and points; the divergence is in nats.

    Holm's correction is for all lines together.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    for line, ps in zip(lines, last_ps(lines), strict=True):
        fields = [*_row(line), *("" if p is None else f"{p:.6g}" for p in ps)]
        writer.writerow([printable(field) for field in fields])
    return text.getvalue()


def _row(line: Comparison) -> list[object]:
    """Return the fields of one comparison in the order of `HEADER`, without the last two."""
    cell, published, records = line.cell, line.published, [run.record for run in line.runs]
    numbers = (published.top1, published.top5, published.source) if published else (None, None, None)
    costs = (round(line.packed_bytes), round(line.bit_operations)) if records else (None, None)
    compared_with = "" if not published else ITS_OWN if cell == cell.published_cell else WITHOUT_RELEASED
    value, *error_and_verdict = _difference(line.to_paper)
    return [
        *(cell.dataset, cell.model, cell.quantizer, cell.w_bits, cell.a_bits, cell.kd, cell.changes),
        *_fields(*numbers),
        compared_with,
        len(records),
        " ".join(str(record.seed) for record in records),
        line.epochs,
        *(field for score in SHARES for name in AGGREGATES for field in _mean_std(line.ours(score, name))),
        value,
        *_fields(*costs),
        " ".join(sorted({str(record.commit)[:10] for record in records})),
        *error_and_verdict,
        *_mean_std(line.drops),
        line.labels.kd if line.labels else "",
        len(line.labels_runs) if line.labels else "",
        *(field for name in AGGREGATES for field in _difference(line.to_labels(name))),
        *_mean_std(line.untrained),
        cell.chosen_bits,
        *_mean_std([run.record.scores["kl"].last for run in line.runs if "kl" in run.record.scores], digits=6),
    ]


def _fields(*values: object) -> list[str]:
    return ["" if value is None else str(value) for value in values]


def _mean_std(values: Sequence[float], digits: int = 4) -> list[str]:
    if not values:
        return ["", ""]
    mean, std = mean_std(values)
    return [f"{mean:.{digits}f}", f"{std:.{digits}f}" if len(values) > 1 else ""]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _difference(difference: Difference | None) -> list[str]:
    if difference is None:
        return ["", "", ""]
    return [_number(difference.value), _number(difference.standard_error), difference.verdict.removeprefix(NO_VERDICT)]

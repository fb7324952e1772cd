"""Lines to be computed with: CSV, one number or word in each field, nothing where there is none."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from sqakd.report.records import KINDS
from sqakd.report.rows import Row
from sqakd.report.statistics import Difference, mean_std

SCORES = ("top1", "top5", "agreement")


def as_csv(rows: Iterable[Row]) -> str:
    """One line for each row, in percent and points."""
    header = ["dataset", "model", "quantizer", "w_bits", "a_bits", "kd", "changed"]
    header += ["paper_top1", "paper_top5", "paper_kind", "paper_cell", "n", "seeds", "epochs"]
    header += [f"{score}_{kind}_{part}" for score in SCORES for kind in KINDS for part in ("mean", "std")]
    header += ["difference", "packed_bytes", "bit_operations", "commits"]
    header += ["difference_standard_error", "difference_verdict", "drop_from_float_mean", "drop_from_float_std"]
    header += ["labels_kd", "labels_n"]
    header += [f"labels_{kind}_{part}" for kind in KINDS for part in ("difference", "standard_error", "verdict")]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(header)
    for row in rows:
        cell, published, records = row.cell, row.published, [run.record for run in row.runs]
        first = records[0] if records else None
        stands_beside = "" if not published else "its own" if cell == cell.published else "without _released"
        table.writerow(
            [
                *(cell.dataset, cell.model, cell.quantizer, cell.w_bits, cell.a_bits, cell.kd, cell.changes),
                *(_texts(published.top1, published.top5, published.source) if published else _texts(None, None, None)),
                stands_beside,
                len(records),
                " ".join(str(r.seed) for r in records),
                row.epochs,
                *(number for score in SCORES for kind in KINDS for number in _mean_std(row.ours(score, kind))),
                _difference(row.to_paper)[0],
                *(_texts(first.packed_bytes, first.bit_operations) if first else _texts(None, None)),
                " ".join(sorted({str(r.commit)[:10] for r in records})),
                *_difference(row.to_paper)[1:],
                *_mean_std(row.drops),
                row.labels.kd if row.labels else "",
                len(row.labels_runs) if row.labels else "",
                *(text for kind in KINDS for text in _difference(row.to_labels(kind))),
            ]
        )
    return text.getvalue()


def _texts(*values: object) -> list[str]:
    """Fields of known values; an unknown one is empty."""
    return ["" if value is None else str(value) for value in values]


def _mean_std(values: Sequence[float]) -> list[str]:
    if not values:
        return ["", ""]
    mean, std = mean_std(values)
    return [f"{mean:.4f}", f"{std:.4f}" if len(values) > 1 else ""]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _difference(difference: Difference | None) -> list[str]:
    if difference is None:
        return ["", "", ""]
    return [_number(difference.value), _number(difference.standard_error), difference.verdict.removeprefix("-")]

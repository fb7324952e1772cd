"""Published numbers: the one reader of results/paper.csv, and the number that a run is compared with.

The file is in the checkout next to the package, or inside the installed package; without it there is nothing to compare
with.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from sqakd.errors import SqakdError
from sqakd.runs.record import ITS_OWN, ROUNDING, WITHOUT_RELEASED, Published
from sqakd.runs.spec import Spec
from sqakd.shipped import paper_file

FILE = paper_file()
COLUMNS = ("table", "dataset", "model", "quantizer", "bits", "kd", "top1", "top5", "source", "reference")
RELEASED = "_released"


@dataclass(frozen=True, kw_only=True)
class PaperRow:
    """One line of paper.csv.

    Attributes:
        table: the published table.
        dataset: the cell's data set.
        model: the cell's network.
        quantizer: the cell's quantizer.
        bits: of weights and activations; 32 for a float run.
        kd: the cell's distillation loss.
        top1: in percent, with the digits that were published; None if unknown.
        top5: in percent, likewise.
        source: where the number is from: paper, re-run, second-hand, not published or unknown.
        reference: the publication and its table.
    """

    table: str
    dataset: str
    model: str
    quantizer: str
    bits: int
    kd: str
    top1: Decimal | None
    top5: Decimal | None
    source: str
    reference: str

    @classmethod
    def from_texts(cls, texts: Mapping[str, str]) -> PaperRow:
        """Return the typed form of a line.

        Raises:
            KeyError: if a column is missing.
            ValueError: if a field is not a number.
            InvalidOperation: likewise.
        """
        return cls(
            **{name: texts[name] for name in ("table", "dataset", "model", "quantizer", "kd", "source", "reference")},
            bits=int(texts["bits"]),
            top1=_percent(texts["top1"]),
            top5=_percent(texts["top5"]),
        )


def _percent(text: str) -> Decimal | None:
    """Return a number of percent; Decimal itself also accepts "nan".

    Raises:
        ValueError: if the text is none.
        InvalidOperation: likewise.
    """
    value = Decimal(text) if text else None
    if value is not None and not 0 <= value <= 100:
        raise ValueError(f"{text}: expected percent")
    return value


def read_paper(file: Path) -> list[PaperRow]:
    """Read all lines of paper.csv.

    Raises:
        SqakdError: if the file is missing or cannot be read as a table of published numbers.
    """
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            return [PaperRow.from_texts(texts) for texts in csv.DictReader(lines)]
    except FileNotFoundError as error:
        raise SqakdError(f"no {file}: expected the published numbers", topic="paper.missing", own=FILE) from error
    except OSError as error:
        raise SqakdError(f"cannot read the published numbers in {file}: {error.strerror}") from error
    except (KeyError, TypeError, ValueError, InvalidOperation, csv.Error) as error:
        raise SqakdError(
            f"{file} is not a table of published numbers ({_reason(error)}): expected text in UTF-8 with the columns"
            f" {', '.join(COLUMNS)}",
            topic="paper.damaged",
            file=file,
        ) from error


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "it is not text in UTF-8"
    if isinstance(error, KeyError):
        return f"it has no column {error}"
    if isinstance(error, TypeError):
        return "a line has too few fields"
    return "a field is no number" if isinstance(error, InvalidOperation) else f"a field is no number: {error}"


def published(spec: Spec, changes: Mapping[str, Any], *, file: Path | None = None) -> Published | None:
    """Return the published number of a run's cell; if several tables have the cell, that of the first.

    The `_released` version of a cell is compared with the paper's cell without that suffix.

    Args:
        spec: what is run.
        changes: values that differ from those of the choices alone; a run with changes is not a cell of the paper.
        file: another paper.csv than the project's own.

    Returns:
        The number, or None if there is no such cell, no number for it, or no file.

    Raises:
        SqakdError: if the file cannot be read as a table of published numbers.
    """
    file = FILE if file is None else file
    config, choices = spec.config, spec.choices
    other_rounding = any(override.startswith(ROUNDING) for override in spec.overrides)
    if changes or choices.get("plus") or other_rounding or config["w_bits"] != config["a_bits"] or not file.is_file():
        return None
    methods = choices["quantizer"], choices["kd"]
    quantizer, kd = (method.removesuffix(RELEASED) for method in methods)
    wanted = (choices["dataset"], config["model"]["name"], quantizer, config["w_bits"], kd)
    for row in read_paper(file):
        if row.top1 is not None and (row.dataset, row.model, row.quantizer, row.bits, row.kd) == wanted:
            compared_with = ITS_OWN if (quantizer, kd) == methods else WITHOUT_RELEASED
            return Published(
                top1=float(row.top1 / 100), source=row.source, table=row.table, compared_with=compared_with
            )
    return None

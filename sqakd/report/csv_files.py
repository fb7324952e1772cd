"""CSV files of numbers: the reader of metrics.csv and quantizers.csv."""

from __future__ import annotations

import csv
import math
from collections.abc import Collection
from pathlib import Path

from sqakd.errors import SqakdError
from sqakd.files import ReadError, megabytes, read_errors
from sqakd.runs.folder import RunFolder
from sqakd.runs.length import length_of

Numbers = list[dict[str, float]]
LARGEST = 256_000_000  # bytes; a thousand epochs of a network with a hundred layers have some 20 MB


def read_curve(folder: RunFolder, epochs: int) -> Numbers:
    """Read the metrics.csv of a run. The rows begin after the epochs of the recipe that a stage before them took.

    Args:
        folder: folder of the run. Its config.yaml, which describes the stage, is read only if epochs have no row.
        epochs: of the run's record, with those of the stage.

    Returns:
        One dict per row; no rows if there is no such file.

    Raises:
        SqakdError: if a file cannot be read or is damaged, or other epochs than those of a stage have no row; the file
            is named.
    """
    file = folder.metrics
    rows = read_numbers(file, "epoch")
    if not file.exists() or len(rows) >= epochs:
        return rows
    taken = length_of(folder.read_config()).taken if folder.config.exists() else 0
    if len(rows) + taken != epochs:
        raise SqakdError(
            f"{file} is damaged (it has {len(rows)} rows, expected one for each of {epochs - taken} epochs)",
            topic="report.csv_damaged",
        )
    return [{**row, "epoch": row["epoch"] + epochs - len(rows)} for row in rows]


def read_quantizers(file: Path, *needed: str) -> Numbers:
    """Read the last epoch of a quantizers.csv. A file of an earlier version has one epoch, and no column for it.

    Args:
        file: quantizers.csv.
        needed: columns that must be there and have a number in each row.

    Returns:
        One dict per layer and tensor, without the layers' names; no rows if there is no such file.

    Raises:
        SqakdError: if the file cannot be read or is damaged; the file is named.
    """
    rows = read_numbers(file, *needed, texts=("name",))
    last = max((row["epoch"] for row in rows if "epoch" in row), default=None)
    return [row for row in rows if row.get("epoch") == last]


def read_numbers(file: Path, *needed: str, texts: Collection[str] = ()) -> Numbers:
    """Read the rows of a CSV file of numbers.

    Args:
        file: a file with a header.
        needed: columns that must be there and have a number in each row.
        texts: columns that are no numbers and are left out.

    Returns:
        One dict per row, without the empty fields; no rows if there is no such file.

    Raises:
        SqakdError: if the file cannot be read or is damaged; the file is named.
    """
    if not file.exists():
        return []
    try:
        if (size := file.stat().st_size) > LARGEST:
            raise ValueError(f"it has {megabytes(size)}, expected at most {megabytes(LARGEST)}")
        with read_errors(file), file.open(newline="", encoding="utf-8") as lines:
            header, *rows = list(csv.reader(lines)) or [[]]
        if any(len(row) != len(header) for row in rows):
            raise ValueError("a line has more or fewer fields than the header")
        fields = ([(key, text) for key, text in zip(header, row, strict=True) if key not in texts] for row in rows)
        numbers = [{key: _number(text) for key, text in row if text} for row in fields]
        if not header or not all(math.isfinite(row.get(key, math.nan)) for row in numbers for key in needed):
            raise ValueError(f"expected a number in each field of {', '.join(needed) or 'a table'}")
        if not set(needed) <= set(header):
            raise ValueError(f"expected the columns {', '.join(needed)}")
        return numbers
    except ReadError:
        raise
    except UnicodeDecodeError as error:
        raise SqakdError(f"{file} is damaged (not text in UTF-8)", topic="report.csv_damaged") from error
    except (OSError, ValueError, csv.Error) as error:  # a ValueError is a refusal from the lines above
        reason = getattr(error, "strerror", None) or error
        raise SqakdError(f"{file} is damaged ({reason})", topic="report.csv_damaged") from error


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is no number") from None

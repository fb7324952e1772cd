"""CSV files of numbers: the reader of metrics.csv and quantizers.csv."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from sqakd.errors import SqakdError
from sqakd.files import ReadError, read_errors

Numbers = list[dict[str, float]]


def read_numbers(file: Path, *needed: str) -> Numbers:
    """Read the rows of a CSV file of numbers.

    Args:
        file: a file with a header.
        needed: columns that must be there and have a number in each row.

    Returns:
        One dict per row, without the empty fields; no rows if there is no such file.

    Raises:
        SqakdError: if the file cannot be read or is damaged; the file is named.
    """
    if not file.exists():
        return []
    try:
        with read_errors(file), file.open(newline="", encoding="utf-8") as lines:
            header, *rows = list(csv.reader(lines)) or [[]]
        if any(len(row) != len(header) for row in rows):
            raise ValueError("a line has more or fewer fields than the header")
        numbers = [{key: float(text) for key, text in zip(header, row, strict=True) if text} for row in rows]
        if not header or not all(math.isfinite(row.get(key, math.nan)) for row in numbers for key in needed):
            raise ValueError(f"expected a number in each field of {', '.join(needed) or 'a table'}")
        if not set(needed) <= set(header):
            raise ValueError(f"expected the columns {', '.join(needed)}")
        return numbers
    except ReadError:
        raise
    except (OSError, ValueError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise SqakdError(f"{file} is damaged ({reason})", topic="report.csv_damaged") from error

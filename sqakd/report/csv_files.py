"""CSV files of numbers: the reader of metrics.csv and quantizers.csv."""

from __future__ import annotations

import csv
from pathlib import Path

from sqakd.errors import SqakdError

Numbers = list[dict[str, float]]


def read_numbers(file: Path, *needed: str) -> Numbers:
    """Read the rows of a CSV file of numbers.

    Args:
        file: a file with a header.
        needed: columns that must be there and have a number in each row.

    Returns:
        One dict per row, without the empty fields; no rows if there is no such file.

    Raises:
        SqakdError: if the file is damaged; the file is named.
    """
    if not file.exists():
        return []
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            header, *rows = csv.reader(lines)
        if any(len(row) != len(header) for row in rows):
            raise ValueError("a line has more or fewer fields than the header")
        numbers = [{key: float(text) for key, text in zip(header, row, strict=True) if text} for row in rows]
        if not set(needed) <= set(header) or not all(row.keys() >= set(needed) for row in numbers):
            raise ValueError(f"expected a number in each field of {', '.join(needed)}")
        return numbers
    except (ValueError, csv.Error) as error:
        raise SqakdError(f"{file} is damaged ({error})", topic="report.csv_damaged") from error

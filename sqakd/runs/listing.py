"""Lists of runs in which a damaged file of one run does not stop the others: that run is left out and named."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from sqakd.errors import SqakdError
from sqakd.runs.folder import RunFolder, find_finished
from sqakd.runs.record import Record, read_record
from sqakd.runs.spec import identity

# Cells with quantizer.outer=released. Earlier versions had another default for all cells.
OUTER = "quantizer.outer"
OUTER_DATASET, OUTER_QUANTIZERS = "tiny_imagenet", ("pact_released", "lsq_released", "dorefa_released")

Omit = Callable[[SqakdError], None]  # takes the error of what is left out


def strictly(error: SqakdError) -> None:
    """Leave nothing out: raise the error."""
    raise error


@contextmanager
def omitting(omit: Omit) -> Iterator[None]:
    """Give an error of the block, which reads the files of one run, to a function."""
    try:
        yield
    except SqakdError as error:
        omit(error)


def read_finished(runs: Path, omit: Omit = strictly) -> list[tuple[RunFolder, Record]]:
    """Return all finished runs below a folder of runs with their records, in the order of their names.

    Args:
        runs: folder of runs.
        omit: takes the error of a damaged record, whose run is left out.

    Raises:
        SqakdError: if a record is damaged and `omit` raises its error.
    """
    found = []
    for folder in find_finished(runs):
        with omitting(omit):
            found.append((folder, _with_former_default(folder, read_record(folder.record))))
    return found


def _with_former_default(folder: RunFolder, record: Record) -> Record:
    """Return a record that lists a value as changed if the value was its cell's default only when the run was made."""
    if record.dataset != OUTER_DATASET or record.quantizer not in OUTER_QUANTIZERS or OUTER in record.changes:
        return record
    if not folder.config.is_file():
        return record
    outer = identity(folder.read_config()).get(OUTER)
    return record if outer == "released" else replace(record, changes={**record.changes, OUTER: outer})

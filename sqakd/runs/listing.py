"""Lists of runs in which a damaged file of one run does not stop the others: that run is left out and named."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sqakd.errors import SqakdError
from sqakd.runs.folder import RunFolder, find_finished
from sqakd.runs.record import Record, read_record

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
            found.append((folder, read_record(folder.record)))
    return found

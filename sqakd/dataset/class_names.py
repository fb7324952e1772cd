"""The names of classes that a user gives, in the order of the teacher's logits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqakd.dataset.errors import DataError
from sqakd.errors import some
from sqakd.terminal import printable


def read_class_names(classes: Any) -> list[str]:
    """Return names from a list, or from a text file with one name per line. Empty lines at the end do not count.

    Args:
        classes: a list of names (numbers too, because class folders may be called 0, 1, ...), or the path of a file.

    Raises:
        DataError: if the file cannot be read, if a name is empty, or if there are fewer than two.
    """
    source = "classes"
    if isinstance(classes, str | Path):
        source, classes = str(classes), _lines(Path(classes))
    if not isinstance(classes, Sequence) or not all(type(name) in (str, int) for name in classes):
        raise DataError(f"classes={classes!r}: expected a list of names, or a file with one name per line")
    names = [str(name).strip() for name in classes]
    if "" in names:
        raise DataError(f"{source}: name {names.index('') + 1} of {len(names)} is empty; expected one name per class")
    if len(names) < 2:
        raise DataError(f"{source}: found {len(names)} class name(s); expected at least two, one per class")
    return names


def in_order_of(names: Sequence[str], folders: Sequence[str]) -> list[str]:
    """Return the names of class folders in the given order.

    Args:
        names: the names in the wanted order.
        folders: names of the class folders.

    Raises:
        DataError: if the names are not those of the folders.
    """
    unknown, missing = sorted({*names} - {*folders}), sorted({*folders} - {*names})
    if unknown or missing or len(names) != len(folders):
        parts = [f"lack {some(missing)}" * bool(missing), f"add {some(unknown)}" * bool(unknown)]
        twice = f"have {len(names)} names for {len(folders)} folders"
        found = " and ".join(part for part in parts if part) or twice
        raise DataError(f"the given classes {found}; expected each name of a class folder once", topic="data.classes")
    return list(names)


def _lines(file: Path) -> list[str]:
    try:
        return [printable(line) for line in file.read_text(encoding="utf-8-sig").rstrip().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise DataError(f"cannot read the class names in {file}: {reason}") from error

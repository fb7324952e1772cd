"""The files that the report may write: their names, and how a file of an earlier report is recognised.

Names of tables come from records and from paper.csv, which others may have written. So a file name consists of letters,
digits, dots, dashes and underscores, with all other characters as %XX, and an output replaces a file only if the report
wrote it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from sqakd.errors import SqakdError
from sqakd.report.headline import COST_LABEL

# Names of other files in the folder of the tables, without their suffix and in small letters.
RESERVED = frozenset({"ours", "paper", "readme", "report"})
LONGEST = 120  # characters; file systems allow 255 bytes
LOOKED_AT = 2000  # bytes at the beginning of a file


def stem(name: str, taken: Iterable[str] = ()) -> str:
    """Return the file name, without a suffix, of a table. Different names have different results.

    Args:
        name: any text, e.g. the name of a data set.
        taken: names that belong to other tables.

    Example:
        >>> stem("digits16"), stem("../../x y"), stem("paper"), stem("table4", ["table4"])
        ('digits16', '%2E.%2F..%2Fx%20y', '%70aper', '%74able4')

    Raises:
        SqakdError: if the name is longer than file systems allow.
    """
    escaped = quote(name, safe="", errors="backslashreplace").replace("~", "%7E")
    if not name or name.startswith(".") or name.lower() in RESERVED or name in taken:
        first = "".join(f"%{byte:02X}" for byte in name[:1].encode(errors="backslashreplace"))
        escaped = (first or "%") + quote(name[1:], safe="", errors="backslashreplace").replace("~", "%7E")
    if len(escaped) > LONGEST:
        raise SqakdError(f"the name {name[:20]!r}... of a table has {len(name)} characters, too many for a file name")
    return escaped


@dataclass(frozen=True)
class Kind:
    """A kind of output.

    Attributes:
        name: in messages.
        beginning: pattern of the first characters of such a file, also of those of earlier versions.
    """

    name: str
    beginning: re.Pattern[str]

    def check(self, file: Path) -> None:
        """Refuse an output that would replace a file that the report did not write.

        Raises:
            SqakdError: if the file exists, is not empty, and begins differently, or cannot be read.
        """
        if not file.exists():
            return
        try:
            with file.open("rb") as opened:
                found = opened.read(LOOKED_AT)
        except OSError as error:
            raise SqakdError(f"cannot replace {file}: {error.strerror}") from error
        if found and not self.beginning.match(found.decode(errors="replace")):
            raise SqakdError(f"{file} is not replaced: it does not begin like {self.name}, so something else wrote it")


MARKDOWN = Kind("a table of the report", re.compile(r"# [^\n]*\n\nTop-1 in percent"))
CSV = Kind("a table of the report", re.compile(r"dataset,model,quantizer,w_bits,a_bits,kd,"))
BITS, COST = (
    Kind("a picture of the report", re.compile(rf'<svg [^>]*aria-label="{re.escape(label)}'))
    for label in ("accuracy against bits for each quantizer", COST_LABEL)
)


def check_outputs(outputs: Iterable[tuple[Path, Kind | None]]) -> None:
    """Refuse outputs before any of them is written.

    Args:
        outputs: each file with its kind; None for a file of the user in which only some lines are replaced.

    Raises:
        SqakdError: if a folder does not exist, two outputs are the same file, or another file would be replaced.
    """
    seen: set[Path] = set()
    for file, kind in outputs:
        if not file.parent.is_dir():
            raise SqakdError(f"cannot write {file}: the folder {file.parent} does not exist")
        place = file.parent.resolve() / file.name
        if place in seen:
            raise SqakdError(f"two outputs are the same file {file}: expected another name for one of them")
        seen.add(place)
        if kind is not None:
            kind.check(file)

"""Tables of all finished runs next to the published numbers, and one page that needs no other file.

    python -m sqakd.report [--runs runs] [--results results] [--html FILE] [--title TEXT] [--readme FILE]
        [--picture FILE] [--cost FILE]

The seeds of a cell are summarised as mean ± standard deviation (number of seeds). A run that differs from its cell in
any value has a row of its own, which shows the difference, and is never compared with a published number.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sqakd.interrupts import errors_in_one_line, exit_on_interrupt

if __name__ == "__main__":
    exit_on_interrupt("the same command starts again")

from sqakd.advice import left_out
from sqakd.errors import SqakdError
from sqakd.report.readme import names, read_markdown
from sqakd.report.write import write_report
from sqakd.terminal import printable, program

README = Path("README.md")


def command_line() -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    parser = argparse.ArgumentParser(
        prog=program("python -m sqakd.report"),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--runs", type=Path, action="append", help="folder of runs (runs); may be given several times")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder with paper.csv, for the tables")
    parser.add_argument("--html", type=Path, nargs="?", help="the page (report.html in the folder of results)")
    parser.add_argument("--title", default="sqakd: results", help="title of the page")
    parser.add_argument("--readme", type=Path, help="Markdown file with markers (README.md, if it has any)")
    parser.add_argument("--picture", type=Path, help="SVG file for accuracy against bits")
    parser.add_argument("--cost", type=Path, help="SVG file for accuracy against size and bit-operations")
    return parser


def main() -> None:
    """Run the command line."""
    options = command_line().parse_args()
    with errors_in_one_line():
        files = write_report(
            options.runs or [Path("runs")],
            options.results,
            html=options.html,
            title=options.title,
            readme=options.readme or _own_readme(),
            skip_unknown=options.readme is None,
            picture=options.picture,
            cost=options.cost,
            omit=left_out,
        )
    for path in files:
        print(printable(path))  # noqa: T201


def _own_readme() -> Path | None:
    """Return README.md if it has markers. Wrong markers are reported, and the file is left as it is."""
    if not README.is_file():
        return None
    text = read_markdown(README)
    try:
        return README if names(text) else None
    except SqakdError as error:
        print(printable(f"{README} is left as it is: {error}"), file=sys.stderr)  # noqa: T201
        return None


if __name__ == "__main__":
    main()

"""Tables of all finished runs, the paper's numbers beside ours, and a page that shows them.

    python -m sqakd.report [--runs runs] [--results results]

A cell's seeds are put together as mean ± standard deviation (n). A run that differs from its cell in any value is a row
of its own, which says in what, and never stands in the paper's.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from sqakd.report.write import write_report


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, action="append", help="folder of runs; may be given several times")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder with paper.csv, for the tables")
    options = parser.parse_args()
    try:
        for path in write_report(options.runs or [Path("runs")], options.results):
            print(path)  # noqa: T201
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()

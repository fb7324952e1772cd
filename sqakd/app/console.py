"""Terminal output of a run: its own lines, once, without the libraries' messages.

This file imports no large package, because a command prints its first line before it imports any.
"""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path
from typing import TextIO

from lightning_utilities.core.rank_zero import rank_zero_only

from sqakd.terminal import printable
from sqakd.warning import SqakdWarning

PACKAGE = Path(__file__).parents[1]
PLAIN_WARNING = warnings.showwarning  # Python's own
FLOAT_FIRST = "the float network comes first: "  # a sweep finds this line in a job's log
# Variables in which launchers give a process its rank; Lightning takes the first one that is set.
RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")


def quiet_libraries() -> None:
    """Hide the libraries' tips and known false warnings; Lightning's other warnings stay visible."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    # A damaged image is named by this project, in one line; pillow's warnings would add lines of Python.
    warnings.filterwarnings("ignore", module=r"PIL\b")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated")
    # The logged values come from torchmetrics, which has already reduced them over the ranks.
    warnings.filterwarnings("ignore", message="It is recommended to use .self.log")


def show_warnings_as_lines() -> None:
    """Print this project's own warnings as lines of the command; Python would add the place in the source."""
    warnings.showwarning = _show_warning


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    if issubclass(category, SqakdWarning) or Path(filename).is_relative_to(PACKAGE):
        say(f"warning: {message}")
    else:
        PLAIN_WARNING(message, category, filename, lineno, file, line)


def first_process() -> bool:
    """Return whether this is rank 0: of the processes that train one network, the one that decides and writes."""
    rank = getattr(rank_zero_only, "rank", None)
    if rank is None:  # Lightning, which sets it, is not imported yet
        rank = next((int(os.environ[name]) for name in RANKS if name in os.environ), 0)
    return not rank


def say(text: str) -> None:
    """Print a line from rank 0 alone; names from files in it cannot control the terminal."""
    if first_process():
        print(printable(text), flush=True)  # noqa: T201

"""Terminal output of a run: its own lines, once, without the libraries' messages."""

from __future__ import annotations

import logging
import warnings

from pytorch_lightning.utilities import rank_zero_only

from sqakd.terminal import printable


def quiet_libraries() -> None:
    """Hide the libraries' tips and known false warnings; Lightning's other warnings stay visible."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    # A damaged image is named by this project, in one line; pillow's warnings would add lines of Python.
    warnings.filterwarnings("ignore", module=r"PIL\b")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated")
    # The logged values come from torchmetrics, which has already reduced them over the ranks.
    warnings.filterwarnings("ignore", message="It is recommended to use .self.log")


def first_process() -> bool:
    """Return whether this is rank 0: of the processes that train one network, the one that decides and writes."""
    return not getattr(rank_zero_only, "rank", 0)


@rank_zero_only
def say(text: str) -> None:
    """Print a line from rank 0 alone; names from files in it cannot control the terminal."""
    print(printable(text), flush=True)  # noqa: T201

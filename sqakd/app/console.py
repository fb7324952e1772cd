"""What a run says to the person who waits: its own lines, once, and no library's chatter."""

from __future__ import annotations

import logging
import warnings

from pytorch_lightning.utilities import rank_zero_only


def quiet_libraries() -> None:
    """Leave the terminal to what the run has to say; Lightning's warnings stay, its tips and its own slips go."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated")
    # What is logged comes out of torchmetrics, which has already put the ranks' shares together.
    warnings.filterwarnings("ignore", message="It is recommended to use .self.log")


def first_process() -> bool:
    """Whether this is the process that decides and writes, of all that train one network together."""
    return not getattr(rank_zero_only, "rank", 0)


@rank_zero_only
def say(text: str) -> None:
    """A line for the person who waits; one process speaks."""
    print(text, flush=True)  # noqa: T201

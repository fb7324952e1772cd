"""The commands that an installation provides: sqakd-train, sqakd-export, sqakd-predict, sqakd-sensitivity and others.

Each function imports its program only after Ctrl-C is handled, because the import takes seconds.
"""

from __future__ import annotations

import os

from sqakd.interrupts import exit_on_interrupt
from sqakd.terminal import PROGRAM

AGAIN = "the same command starts again"


def train() -> None:
    """Run sqakd-train, which is train.py of a checkout."""
    exit_on_interrupt("the same command continues")
    os.environ[PROGRAM] = "sqakd-train"  # also for the processes of a sweep
    from sqakd.app.hydra_main import run_train

    run_train()


def export() -> None:
    """Run sqakd-export, which is export.py of a checkout."""
    exit_on_interrupt("nothing was replaced, the same command starts again")
    os.environ[PROGRAM] = "sqakd-export"
    from sqakd.app.hydra_main import run_export

    run_export()


def predict() -> int:
    """Run sqakd-predict, which is `python -m sqakd.predict`, and return the exit status."""
    exit_on_interrupt(AGAIN)
    os.environ[PROGRAM] = "sqakd-predict"
    from sqakd.predict import main

    return main()


def sensitivity() -> None:
    """Run sqakd-sensitivity, which is `python -m sqakd.sensitivity`."""
    os.environ[PROGRAM] = "sqakd-sensitivity"
    from sqakd.sensitivity import main

    main()


def report() -> None:
    """Run sqakd-report, which is `python -m sqakd.report`."""
    exit_on_interrupt(AGAIN)
    os.environ[PROGRAM] = "sqakd-report"
    from sqakd.report.__main__ import main

    main()


def dashboard() -> None:
    """Run sqakd-dashboard, which is `python -m sqakd.dashboard`."""
    exit_on_interrupt(AGAIN)
    os.environ[PROGRAM] = "sqakd-dashboard"
    from sqakd.dashboard.__main__ import main

    main()

"""The sensitivity of the layers of a float network to fewer bits, as a command.

    python -m sqakd.sensitivity run=runs/digits-resnet20-none-w32a32-none/seed0

This module can be called: `sqakd.sensitivity(model, images)` is `sqakd.library.measuring.sensitivity`.
"""

from __future__ import annotations

import os

from sqakd.face import make_callable
from sqakd.interrupts import exit_on_interrupt
from sqakd.terminal import PROGRAM


def main() -> None:
    """Run the command."""
    exit_on_interrupt("the same command starts again")
    os.environ.setdefault(PROGRAM, "python -m sqakd.sensitivity")
    from sqakd.app.hydra_main import run_sensitivity

    run_sensitivity()


if __name__ == "__main__":
    main()
else:
    make_callable(__name__)

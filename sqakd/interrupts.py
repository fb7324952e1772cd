"""How a command ends after Ctrl-C or an expected error: with one line and a status, not with a traceback.

Commands import this file first, before packages that take seconds, so it imports none of them.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from sqakd.advice import explain
from sqakd.errors import SqakdError
from sqakd.files import ENVIRONMENT

INTERRUPT_STATUS = 130  # exit status after Ctrl-C: 128 + 2, as in a shell
EXITS = "exit_on_interrupt"  # name of the handler


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Exit with the message and the advice of an expected error instead of a traceback; the same for Ctrl-C.

    Raises:
        SystemExit: after an error that a user can cause, or one of the environment, or Ctrl-C.
    """
    catch_interrupts()
    try:
        yield
    except (SqakdError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in ENVIRONMENT:
            raise
        raise SystemExit(f"error: {explain(error)}") from error
    except KeyboardInterrupt:
        print("stopped by Ctrl-C; the same command starts again", file=sys.stderr, flush=True)  # noqa: T201
        raise SystemExit(INTERRUPT_STATUS) from None


def exit_on_interrupt(stopped: str) -> None:
    """Let Ctrl-C end this process with one line from now on, until `catch_interrupts`.

    For the seconds in which packages are imported and nothing is written. An exception would not do: imports catch it.

    Args:
        stopped: what the user can do after Ctrl-C.
    """

    def stop(number: int, frame: object) -> None:
        print(f"stopped by Ctrl-C; {stopped}", file=sys.stderr, flush=True)  # noqa: T201
        os._exit(INTERRUPT_STATUS)

    stop.__qualname__ = EXITS
    signal.signal(signal.SIGINT, stop)


def ignore_interrupts() -> None:
    """Ignore Ctrl-C from now on: the work is done, and while a process ends it would only print a traceback."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def catch_interrupts() -> None:
    """Let Ctrl-C raise KeyboardInterrupt again."""
    if getattr(signal.getsignal(signal.SIGINT), "__qualname__", "") == EXITS:
        signal.signal(signal.SIGINT, signal.default_int_handler)

"""From an exception to what a user reads: one line for an expected error, a traceback for a mistake in the code."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.types import RunMode

from sqakd.advice import explain
from sqakd.app.console import first_process
from sqakd.app.sweep.process import SIGTERM_STATUS
from sqakd.errors import SqakdError, is_out_of_memory
from sqakd.files import ENVIRONMENT, WriteError
from sqakd.interrupts import INTERRUPT_STATUS

FULL_ERROR = "HYDRA_FULL_ERROR"  # set to 1 by a user who wants tracebacks
ONE_LINE = "SQAKD_ERRORS_IN_ONE_LINE"  # FULL_ERROR was set by this project, not by the user
OUT_OF_MEMORY = (
    "out of memory; a smaller recipe.batch_size needs less, and recipe.accumulate=N adds up the gradients of N batches"
)
# Further advice for the runs of a sweep, by topic.
IN_SWEEP = {
    "run.other": "in a sweep, let the name contain what is different in each run, e.g. 'name=${cell}-lr${recipe.lr}'"
}
CONTINUES = "the same command continues"  # a training
FROM_CHECKPOINT = "; a training continues from its last checkpoint"
SIGTERM_ERROR = "SIGTERMException"  # of Lightning, which need not be imported to recognise it


class RunFailed(CompactHydraException):
    """Raised when one run of a sweep fails for a reason the user can fix. The other runs continue."""

    is_user_error = True


def report_errors(action: Callable[[], float | None], *, stopped: str = CONTINUES) -> float | None:
    """Run `action` and report expected user errors in one line instead of a traceback.

    Args:
        action: the command.
        stopped: what the user can do after Ctrl-C.

    Raises:
        SystemExit: after an expected error, Ctrl-C or SIGTERM.
        RunFailed: after an expected error in a sweep.
    """
    try:
        return action()
    except KeyboardInterrupt:
        raise _interrupted(stopped) from None
    except SystemExit as error:
        if type(error).__name__ == SIGTERM_ERROR:
            if first_process():
                saved = str(error) or "the state is saved"
                print(f"stopped by SIGTERM; {saved}, the same command continues", file=sys.stderr)  # noqa: T201
            raise SystemExit(SIGTERM_STATUS) from None
        if not isinstance(error.__context__, KeyboardInterrupt):
            raise
        raise _interrupted(stopped) from None  # Lightning's own exit has another status and no message
    except (SqakdError, OSError, MemoryError, RuntimeError) as error:
        if os.environ.get(FULL_ERROR) == "1" and ONE_LINE not in os.environ:
            raise
        if isinstance(error, OSError) and error.errno not in ENVIRONMENT:
            raise
        if isinstance(error, RuntimeError) and not is_out_of_memory(error):
            raise
        message = f"error: {explain(error) if isinstance(error, SqakdError | OSError) else OUT_OF_MEMORY}"
        if isinstance(error, WriteError) and stopped == CONTINUES:
            message += FROM_CHECKPOINT
        if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
            if further := IN_SWEEP.get(getattr(error, "topic", None) or ""):
                message = f"{message}; {further}"
            print(message, file=sys.stderr, flush=True)  # noqa: T201
            raise RunFailed(message) from error
        raise SystemExit(message) from error


def _interrupted(stopped: str) -> SystemExit:
    """Print that Ctrl-C ended the command, and return the exit with the status that a shell expects."""
    if first_process():
        print(f"stopped by Ctrl-C; {stopped}", file=sys.stderr, flush=True)  # noqa: T201
    return SystemExit(INTERRUPT_STATUS)

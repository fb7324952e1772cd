"""From an exception to what a user reads: one line for an expected error, a traceback for a mistake in the code."""

from __future__ import annotations

import sys
from collections.abc import Callable

from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.types import RunMode
from pytorch_lightning.utilities.exceptions import SIGTERMException

from sqakd.advice import explain
from sqakd.app.console import quiet_libraries
from sqakd.app.sweep.process import SIGTERM_STATUS
from sqakd.errors import SqakdError


class RunFailed(CompactHydraException):
    """Raised when one run of a sweep fails for a reason the user can fix. The other runs continue."""

    is_user_error = True


def report_errors(action: Callable[[], float | None]) -> float | None:
    """Run `action` and report expected user errors in one line instead of a traceback.

    Raises:
        SystemExit: after an expected error or SIGTERM.
        RunFailed: after an expected error in a sweep.
    """
    quiet_libraries()
    try:
        return action()
    except SIGTERMException:
        print("stopped by SIGTERM; the state is saved, the same command continues", file=sys.stderr)  # noqa: T201
        raise SystemExit(SIGTERM_STATUS) from None
    except SqakdError as error:
        message = f"error: {explain(error)}"
        if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
            print(message, file=sys.stderr, flush=True)  # noqa: T201
            raise RunFailed(message) from error
        raise SystemExit(message) from error

"""The command line around Hydra: paths are taken as typed, and Hydra's refusals become one line."""

from __future__ import annotations

import atexit
import gc
import os
import re
import sys
import traceback
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path

import hydra
import omegaconf
from hydra._internal.utils import get_args_parser
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from sqakd.advice import explain
from sqakd.app.compose import PATHS
from sqakd.app.console import say
from sqakd.app.errors import FULL_ERROR, ONE_LINE
from sqakd.app.quoting import parsed, quoted
from sqakd.app.resolvers import home
from sqakd.app.suggestions import either, suggestion
from sqakd.errors import SqakdError
from sqakd.files import ENVIRONMENT
from sqakd.interrupts import ignore_interrupts
from sqakd.terminal import printable

HYDRA_FOLDERS = tuple(str(Path(package.__file__ or "").parent) for package in (hydra, omegaconf))
SWEEP = r"(table|hparams)=(?!null$)"  # overrides that choose the runs of a sweep
# Keys whose value may contain what Hydra's grammar of overrides gives another meaning.
PATH_KEYS = [f"{group}.{key}" if group else key for group, key in PATHS]


def run_command(main: Callable[[], object], config_folder: Path) -> None:
    """Run an application of Hydra with the arguments of this process.

    With the environment variable HYDRA_FULL_ERROR=1 all errors keep their tracebacks.

    Args:
        main: function decorated with `hydra.main`.
        config_folder: the application's folder of configurations.

    Raises:
        SystemExit: with one line, if the command line is wrong.
    """
    atexit.register(gc.freeze)  # Python ends with a search for garbage, which takes a second with torch and Lightning
    sys.argv[1:] = [as_typed(argument) for argument in sys.argv[1:]]
    if os.environ.get(FULL_ERROR) == "1" and ONE_LINE not in os.environ:
        main()
    else:
        _run_in_one_line(main, config_folder)
    ignore_interrupts()


def _run_in_one_line(main: Callable[[], object], config_folder: Path) -> None:
    """Run an application of Hydra, and exit with one line if the command line is wrong."""
    arguments = get_args_parser().parse_known_args()[0]
    check_options(arguments.overrides, config_folder)
    if _starts_sweep(arguments):
        say(f"sweep: {' '.join(arguments.overrides)}")  # the number of runs is known seconds later
    os.environ |= {FULL_ERROR: "1", ONE_LINE: "1"}  # Hydra raises its errors then, instead of printing them
    try:
        main()
    except (HydraException, OmegaConfBaseException) as error:
        raise SystemExit(f"error: {printable(refusal(error, sys.argv[1:], config_folder))}") from error
    except OSError as error:  # Hydra writes a file for each sweep
        if error.errno not in ENVIRONMENT:
            raise
        raise SystemExit(f"error: {explain(error)}") from error
    except (ValueError, TypeError, AssertionError) as error:
        if not traceback.extract_tb(error.__traceback__)[-1].filename.startswith(HYDRA_FOLDERS):
            raise
        raise SystemExit(f"error: {printable(refusal(error, sys.argv[1:], config_folder))}") from error


def as_typed(argument: str) -> str:
    """Return an argument with the home folder for ~, and with quotes around a path that Hydra could not read.

    Example:
        >>> as_typed("dataset.folder=/data/my=photos"), as_typed("dataset.folder=/data/a,/data/b")
        ("dataset.folder='/data/my=photos'", 'dataset.folder=/data/a,/data/b')
    """
    key, equals, value = argument.partition("=")
    if not equals or key.lstrip("+") not in PATH_KEYS:
        return argument
    value = ",".join(map(home, value.split(",")))
    if "," not in value and parsed(f"{key}={value}") is None:  # a comma separates the values of a sweep
        value = re.sub(r"(\\*)('|$)", lambda match: 2 * match[1] + (match[2] and r"\'"), value)
        value = f"'{value}'"
    return f"{key}={value}"


def check_options(arguments: Sequence[str], config_folder: Path) -> None:
    """Refuse wrong options whose message from Hydra would be unclear, such as recipe=null, quantizer=1, =2 and bits.

    Args:
        arguments: overrides of the command line.
        config_folder: the application's folder of configurations.

    Raises:
        SystemExit: naming the options.
    """
    sweeps = [argument for argument in arguments if re.match(SWEEP, argument)]
    if len({argument.partition("=")[0] for argument in sweeps}) > 1:
        raise SystemExit(f"error: {printable(' '.join(sweeps))}: each chooses the runs of a sweep; use one of them")
    for argument in arguments:
        if re.match(r"([^~=][^=]*$)|=", argument):
            raise SystemExit(f"error: {printable(argument)}: expected KEY=VALUE")
        override = parsed(argument)
        if override is None or override.is_delete() or override.is_sweep_override():
            continue
        group, value = override.key_or_group, override.value()
        if not (config_folder / group).is_dir():
            continue
        if override.is_add():  # Hydra would ignore it
            raise SystemExit(f"error: {printable(argument)}: omit the plus sign; the group has an option already")
        if not isinstance(value, str | list):
            raise SystemExit(f"error: {printable(argument)}: expected {either(_options(config_folder / group))}")
        if group == "plus" and isinstance(value, list) and (twice := [one for one in value if value.count(one) > 1]):
            raise SystemExit(
                f"error: {printable(argument)}: {printable(twice[0])} is there twice; name each option once"
            )


def _starts_sweep(arguments: Namespace) -> bool:
    """Return whether a command line, parsed by Hydra, is about many runs and does not only print configurations."""
    prints = arguments.help or arguments.hydra_help or arguments.cfg or arguments.info or arguments.shell_completion
    sweeps = arguments.multirun or any(re.match(SWEEP, one) for one in arguments.overrides)
    return bool(sweeps and not prints)


def refusal(error: Exception, arguments: Sequence[str], config_folder: Path) -> str:
    """Return the cause of an error of Hydra as one line.

    Args:
        error: the error.
        arguments: of the command line.
        config_folder: the application's folder of configurations.
    """
    if isinstance(error, OverrideParseException):
        return f"{error.override}: Hydra cannot read this override; to give text, quote it: {quoted(error.override)}"
    if isinstance(error, MissingConfigException) and "/" in str(error.missing_cfg_file):
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        return f"{group}={name}: no such option{suggestion(name, _options(config_folder / group))}"
    if own := _of_a_resolver(error):
        return str(own)
    cause = error.__cause__
    if isinstance(error, ConfigCompositionException) and isinstance(cause, ConfigAttributeError | ConfigKeyError):
        key = str(cause.full_key)
        known = [str(name) for name in cause.parent_node] if cause.parent_node is not None else []
        last = key.rpartition(".")[2]
        return f"{_typed(key, arguments)}: no such key{suggestion(last, known)}"
    text = " ".join(str(error).split()) or type(error).__name__
    return text.partition(" Check that it's in your config search path")[0].removesuffix(".")


def _of_a_resolver(error: BaseException | None) -> SqakdError | None:
    """Return the error of this project's own resolver that OmegaConf has wrapped, if there is one."""
    while error is not None and not isinstance(error, SqakdError):
        error = error.__context__
    return error


def _options(group: Path) -> list[str]:
    return sorted(file.stem for file in group.glob("*.yaml"))


def _typed(key: str, arguments: Sequence[str]) -> str:
    """Return the argument that sets a key, or else the key."""
    return next((a for a in arguments if a.lstrip("+~").partition("=")[0] == key), key)

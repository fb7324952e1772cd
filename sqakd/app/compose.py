"""Where Hydra ends: words become a sentence of plain data, and what a user can do wrong becomes one line.

Everything behind this file gets objects and plain data.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException, InstantiationException
from hydra.types import RunMode
from lightning_fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.utilities.exceptions import SIGTERMException

from sqakd.app.advice import explain
from sqakd.app.console import quiet_libraries
from sqakd.app.resolvers import added
from sqakd.app.sweep.job import SIGTERM_STATUS
from sqakd.quantization.convert import Scheme
from sqakd.runs.folder import Run
from sqakd.runs.spec import Sentence, identity
from sqakd.training.callbacks.divergence import DivergenceError


class Told(CompactHydraException):
    """A run of a sweep that failed for a reason that its message tells; the others go on."""

    told = True


def told(action: Callable[[], float | None]) -> float | None:
    """Do it; what a user can do wrong is told in one sentence."""
    quiet_libraries()
    try:
        return action()
    except SIGTERMException:
        print("stopped by SIGTERM; the state is saved, the same command continues", file=sys.stderr)  # noqa: T201
        raise SystemExit(SIGTERM_STATUS) from None
    except (ValueError, DivergenceError, InstantiationException, MisconfigurationException) as error:
        message = f"error: {explain(root_cause(error))}"
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            print(message, file=sys.stderr, flush=True)  # noqa: T201
            raise Told(message) from error
        raise SystemExit(message) from error


def root_cause(error: BaseException) -> BaseException:
    """Hydra wraps what a constructor says; the constructor's own words are what helps."""
    while isinstance(error, InstantiationException) and error.__cause__ is not None:
        error = error.__cause__
    return error


def read(cfg: DictConfig, hydra: Any, *, complete: bool = True) -> Sentence:
    """Plain data of a composed configuration; `hydra` is its Hydra node.

    Raises:
        ValueError: if it is to be complete, and a value that must be typed is not there.
    """
    config = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=False)
    assert isinstance(config, dict)
    config.pop("hydra", None)
    plus = config.pop("plus", {})
    if names := added(plus):
        config["plus"] = {name: plus[name] for name in names}
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing and complete:
        raise ValueError(f"no value for {', '.join(missing)}; type {missing[0]}=VALUE")
    choices = {str(k): str(v) for k, v in hydra.runtime.choices.items() if not str(k).startswith("hydra/")}
    choices.pop("plus", None)  # Hydra leaves it out where several options are chosen
    if names:
        choices["plus"] = "+".join(names)
    return Sentence({str(k): v for k, v in config.items()}, choices, tuple(hydra.overrides.task))


def parse(words: list[str], *, complete: bool = True) -> Sentence:
    """Compose another sentence while one is running; needs Hydra to be initialised on `conf`."""
    cfg = compose("train", overrides=words, return_hydra_config=True)
    holder = HydraConfig.instance()
    running = holder.cfg
    holder.set_config(cfg)
    try:
        plain = OmegaConf.masked_copy(cfg, [str(k) for k in cfg if k != "hydra"])
        return read(plain, cfg.hydra, complete=complete)
    finally:
        holder.cfg = running


def run_of(sentence: Sentence) -> Run:
    """Where a sentence's run is kept."""
    config = sentence.config
    return Run(Path(config["paths"]["runs"]) / config["name"] / f"seed{config['seed']}", config)


def changes(sentence: Sentence) -> dict[str, Any]:
    """What a sentence has besides its choices: {key: value}, empty for a cell as the project defines it."""
    plain = identity(parse(sentence.plain(), complete=False).config)
    own = identity(sentence.config)
    keys = sorted(key for key in plain.keys() | own.keys() if plain.get(key) != own.get(key))
    return {key: own.get(key) for key in keys if key not in ("name", "seed", "bits")}


def check_bits(config: dict[str, Any], scheme: Scheme | None) -> None:
    """Refuse bits that no quantizer takes.

    Raises:
        ValueError: with what to type.
    """
    if scheme is not None:
        scheme.check()
    elif (config["w_bits"], config["a_bits"]) != (32, 32):
        raise ValueError(
            f"quantizer=none trains the float network, but bits are w{config['w_bits']} a{config['a_bits']}:"
            f" leave bits away, or choose a quantizer, e.g. quantizer=ewgs"
        )

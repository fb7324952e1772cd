"""The best trial of a search with Optuna, shown at the end of the search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

OPTUNA = "optuna"  # option of hydra/sweeper
FILE = "optimization_results.yaml"  # written by the sweeper into the folder of the sweeps


class ShowBest(Callback):
    """The hook by which Hydra announces the end of a sweep, also of one that is no search."""

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Show the best trial if the sweep was a search."""
        if config.hydra.runtime.choices.get("hydra/sweeper") != OPTUNA:
            return
        from sqakd.app.console import say  # Hydra imports this file at each start

        say(best_trial(Path(config.hydra.sweep.dir) / FILE))


def best_trial(file: Path) -> str:
    """Return the overrides and the score of the best trial, and the file that has them, as one line.

    Args:
        file: results of the sweeper. A search with several directions has no best trial, but several solutions.
    """
    found = yaml.safe_load(file.read_text(encoding="utf-8"))
    if "best_params" not in found:
        return f"best trials: {file}"
    overrides = " ".join(f"{key}={value}" for key, value in found["best_params"].items())
    return f"best trial: {overrides}, score {100 * found['best_value']:.2f}% ({file})"

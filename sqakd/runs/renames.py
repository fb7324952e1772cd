"""Import paths that runs of older versions wrote into their configurations, and what they are called now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqakd.runs.spec import OWN, TARGET

# Longer paths come first where one begins like another.
RENAMED = {
    "sqakd.callbacks.progress.Progress": "sqakd.training.callbacks.progress_bar.ProgressBar",
    "sqakd.callbacks": "sqakd.training.callbacks",
    "sqakd.dataset.augment": "sqakd.dataset.transforms.augment",
    "sqakd.dataset.colour": "sqakd.dataset.transforms.colour",
    "sqakd.dataset.cutmix": "sqakd.dataset.transforms.cutmix",
    "sqakd.dataset.resize": "sqakd.dataset.transforms.resize",
    "sqakd.dataset.trivial": "sqakd.dataset.transforms.trivial",
    "sqakd.kd.base.Objective": "sqakd.kd.objective.Objective",
    "sqakd.loggers": "sqakd.training.loggers",
    "sqakd.quantize": "sqakd.quantization.convert",
    "sqakd.quantizers": "sqakd.quantization.quantizers",
    "sqakd.recipe": "sqakd.training.recipe",
    "sqakd.schedule": "sqakd.training.schedule",
}


def with_current_paths(saved: Any) -> Any:
    """Return a saved configuration with today's import paths in place of old ones.

    Example:
        >>> with_current_paths({"kd": {"_target_": "sqakd.kd.base.Objective", "kl": 1.0}})
        {'kd': {'_target_': 'sqakd.kd.objective.Objective', 'kl': 1.0}}
    """
    if isinstance(saved, Mapping):
        return {
            key: current_path(value) if key == TARGET and isinstance(value, str) else with_current_paths(value)
            for key, value in saved.items()
        }
    return [with_current_paths(value) for value in saved] if isinstance(saved, list) else saved


def current_path(path: str) -> str:
    """Return today's import path of a class; a path that was never renamed is returned unchanged."""
    if path.startswith(OWN):
        for old, new in RENAMED.items():
            if path == old or path.startswith(f"{old}."):
                return new + path.removeprefix(old)
    return path

"""OmegaConf resolvers of this project's configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import joblib
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf


def register() -> None:
    """Register every resolver; a second call changes nothing."""
    own: dict[str, Callable[..., Any]] = {
        "joined": lambda *parts: "_".join(str(p) for p in parts if p),
        "plus": lambda parts: "-" + "+".join(names) if (names := addon_names(parts)) else "",
        "added": addon_names,
        "pick": lambda key, values, otherwise: values.get(key, otherwise),
        "jobs": lambda: torch.cuda.device_count() or joblib.cpu_count(),
        "gpus": lambda: int(torch.cuda.is_available()),
        "typed": _typed,
    }
    for name, resolver in own.items():
        OmegaConf.register_new_resolver(name, resolver, replace=True)


def _typed(group: str, sign: str) -> str:
    chosen = [word.partition("=")[2] for word in HydraConfig.get().overrides.task if word.startswith(f"{group}=")]
    return sign + chosen[-1] if chosen else ""


def addon_names(plus: Mapping[str, Any] | None) -> list[str]:
    """Return the names of the chosen add-ons, sorted."""
    return sorted(name for name, part in (plus or {}).items() if "_target_" in part)

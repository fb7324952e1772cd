"""Readers of the golden vectors, and the rule that fills a network's parameters from a seed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

FOLDER = Path(__file__).parents[1] / "golden"


def load(name: str) -> dict[str, Any]:
    """Return the arrays of one golden file by name."""
    with np.load(FOLDER / f"{name}.npz") as file:
        return dict(file)


def names(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.json").read_text())


def error(got: Tensor | np.ndarray | float, reference: np.ndarray) -> float:
    """Return the largest difference relative to the reference array's largest magnitude."""
    got = got.detach().double().numpy() if isinstance(got, Tensor) else np.asarray(got, np.float64)
    reference = np.asarray(reference, np.float64)
    assert got.shape == reference.shape, (got.shape, reference.shape)
    return float(np.abs(got - reference).max() / max(np.abs(reference).max(), 1e-12))


def close_sum(got: Tensor, reference: np.ndarray) -> bool:
    """Compare two sums over a whole tensor; they cancel in float32, so the tolerance has an absolute part."""
    return bool(abs(float(got) - float(reference)) <= 3e-4 * abs(float(reference)) + 3e-4)


def fill(model: nn.Module, layers: list[dict[str, Any]], seed: int) -> None:
    """Set the listed tensors, in order, from numpy's generator seeded by [seed, position]."""
    state = model.state_dict()
    for i, layer in enumerate(layers):
        n = np.random.default_rng([seed, i]).standard_normal(layer["shape"])
        kind = layer["kind"]
        if kind == "weight":
            n = np.sqrt(2 / np.prod(layer["shape"][1:])) * n
        elif kind == "norm_weight":
            n = 1 + 0.1 * n
        elif kind in ("bias", "running_mean"):
            n = 0.1 * n
        else:
            assert kind == "running_var", kind
            n = 1 + 0.1 * np.abs(n)
        state[layer["name"]].copy_(torch.from_numpy(n))


def images(shape: np.ndarray, seed: int, *, calibration: bool) -> Tensor:
    n = np.random.default_rng([seed, 10001 if calibration else 10000]).standard_normal(tuple(shape))
    return torch.from_numpy(n.astype(np.float32))

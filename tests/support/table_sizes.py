"""The numbers of docs/tables.md, computed from the cells of each table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

# Training images of each data set.
IMAGES = {"cifar10": 50_000, "cifar100": 50_000, "tiny_imagenet": 100_000}
RATE = 10_000  # images per second, for the arithmetic


@dataclass(frozen=True)
class Training:
    """One run of a table; `epochs` includes those of a stage before the training."""

    network: str
    is_float: bool
    epochs: int
    images: int


def trainings(cells: Iterable[Any]) -> dict[str, Training]:
    """Every run that a table's cells need, their float runs too, by name."""
    found = {}
    for cfg in cells:
        dataset, network = cfg.hydra.runtime.choices.dataset, f"{cfg.hydra.runtime.choices.dataset} {cfg.model.name}"
        stage = (cfg.kd.feature_loss or {}).get("pretrain_epochs", 0)
        for name, is_float, epochs in (
            (cfg.name, False, cfg.recipe.epochs + stage),
            (f"{dataset}-{cfg.model.name}-none-w32a32-none", True, cfg.teacher.recipe.epochs),
        ):
            found[name] = Training(network, is_float, epochs, epochs * IMAGES[dataset])
    return found


def counts(runs: Iterable[Training]) -> list[str]:
    """Cells, float runs, million images, hours."""
    runs = list(runs)
    floats, images = sum(run.is_float for run in runs), sum(run.images for run in runs)
    return [str(len(runs) - floats), str(floats), f"{images / 1e6:,.0f}", f"{images / RATE / 3600:.1f}"]


def by_network(runs: dict[str, Training]) -> list[str]:
    """Lines of a table's own Markdown table, the sum last."""
    lines = []
    for network in dict.fromkeys(run.network for run in runs.values()):
        own = [run for run in runs.values() if run.network == network]
        epochs = " or ".join(f"{n:,}" for n in sorted({run.epochs for run in own}))
        cells, floats, *rest = counts(own)
        lines.append(_line([network, cells, floats, epochs, *rest]))
    cells, floats, *rest = counts(runs.values())
    return [*lines, _line(["all", cells, floats, "", *rest])]


def in_one_line(name: str, runs: dict[str, Training]) -> str:
    """A table's line among all tables."""
    return _line([name, *counts(runs.values())])


def recipe(row: str, quantized: Any, unquantized: Any) -> str:
    """A row's line among all recipes, from the configuration of a quantized run and of its float run."""
    lines = [f"`{row}`", f"{quantized.epochs:,}", str(quantized.batch_size)]
    lines += [f"{quantized.lr:g}", f"{quantized.quantizer_lr:g}", f"{quantized.weight_decay:g}"]
    return _line([*lines, f"{unquantized.lr:g}", f"{unquantized.weight_decay:g}"])


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"

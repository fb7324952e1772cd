"""The cells of the tables as plain data, and the numbers of docs/tables.md, computed from these cells."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import command
import yaml

from sqakd.app.tables import table_cells
from sqakd.runs.length import length_of

CONF = command.ROOT / "conf"
TABLES = sorted(file.stem for file in (CONF / "table").glob("*.yaml"))
# Training images of each data set.
IMAGES = {"cifar10": 50_000, "cifar100": 50_000, "tiny_imagenet": 100_000}
RATE = 10_000  # images per second, for the arithmetic

Cell = dict[str, str]  # the overrides of one cell: {"model": "resnet20", ...}
Settings = Mapping[str, Any]  # the composed configuration of one cell


@cache
def sweeper(table: str) -> dict[str, Any]:
    """Return `rows` and `params` of a file in conf/table."""
    found: dict[str, Any] = yaml.safe_load((CONF / "table" / f"{table}.yaml").read_text(encoding="utf-8"))
    settings: dict[str, Any] = found["hydra"]["sweeper"]
    return settings


def cells(table: str, *typed: str) -> list[Cell]:
    """Return the overrides of each cell of a table; `typed` narrows it."""
    found = table_cells(sweeper(table)["rows"], sweeper(table)["params"], typed)
    return [dict(override.split("=", 1) for override in cell) for cell in found]


def name(cell: Cell) -> str:
    """Return the name of a cell's run, from its overrides; only for tables that have no add-ons."""
    bits = f"w{cell['bits']}a{cell['bits']}"
    return "-".join([cell["dataset"], cell["model"], cell["quantizer"], bits, cell["kd"]])


def float_name(cell: Cell) -> str:
    """Return the name of the float run that a cell needs."""
    return f"{cell['dataset']}-{cell['model']}-none-w32a32-none"


@dataclass(frozen=True)
class Training:
    """One run of a table; `epochs` includes those of a stage before the training."""

    network: str
    is_float: bool
    epochs: int
    images: int


def trainings(cells: Iterable[Cell], settings: Callable[[str, str, str], Settings]) -> dict[str, Training]:
    """Return every run that a table's cells need, float runs too, by name.

    Args:
        cells: see `cells`.
        settings: the configuration of a data set, a model and a kd; no recipe has epochs that depend on the rest.
    """
    found = {}
    for cell in cells:
        config = settings(cell["dataset"], cell["model"], cell["kd"])
        length = length_of(config)
        for run, is_float, epochs in (
            (name(cell), False, length.stage + length.training),
            (float_name(cell), True, config["teacher"]["recipe"]["epochs"]),
        ):
            network = f"{cell['dataset']} {cell['model']}"
            found[run] = Training(network, is_float, epochs, epochs * IMAGES[cell["dataset"]])
    return found


def counts(runs: Iterable[Training]) -> list[str]:
    """Return cells, float runs, million images, and hours."""
    runs = list(runs)
    floats, images = sum(run.is_float for run in runs), sum(run.images for run in runs)
    return [str(len(runs) - floats), str(floats), f"{images / 1e6:,.0f}", f"{images / RATE / 3600:.1f}"]


def by_network(runs: dict[str, Training]) -> list[str]:
    """Return the lines of a table's own Markdown table, the sum last."""
    lines = []
    for network in dict.fromkeys(run.network for run in runs.values()):
        own = [run for run in runs.values() if run.network == network]
        epochs = " or ".join(f"{n:,}" for n in sorted({run.epochs for run in own}))
        number, floats, *rest = counts(own)
        lines.append(_line([network, number, floats, epochs, *rest]))
    number, floats, *rest = counts(runs.values())
    return [*lines, _line(["all", number, floats, "", *rest])]


def in_one_line(title: str, runs: dict[str, Training]) -> str:
    """Return a table's line among all tables."""
    return _line([title, *counts(runs.values())])


def recipe(row: str, quantized: Settings, unquantized: Settings) -> str:
    """Return a row's line among all recipes, from the recipes of a quantized run and of its float run."""
    line = [f"`{row}`", f"{quantized['epochs']:,}", str(quantized["batch_size"])]
    line += [f"{quantized[key]:g}" for key in ("lr", "quantizer_lr", "weight_decay")]
    return _line([*line, *(f"{unquantized[key]:g}" for key in ("lr", "weight_decay"))])


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"

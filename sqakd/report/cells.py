"""A cell: what one number of a table is about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqakd.runs.names import BUDGET_UNITS
from sqakd.runs.paper import RELEASED, PaperRow
from sqakd.runs.record import Record, changes_text
from sqakd.terminal import printable

FLOAT_BITS = 32
START, STARTS = "quantizer.start", ("quantizer.input.start", "quantizer.weight.start")
# Values of a budget that are part of the name of the bits it chose.
NAMED = tuple(f"budget.{key}" for key in (*BUDGET_UNITS, "criterion"))
OF_LOSS, OF_ADD_ONS = "kd.", "plus."  # beginnings of the values that a training method may change
# Values of the loss that follow those of the recipe. They belong to the method only where they differ from them.
OF_RECIPE = {"kd.label_smoothing": "recipe.label_smoothing"}


@dataclass(frozen=True)
class Cell:
    """A network with its quantizer, bits and training method; runs of one cell differ in their seeds.

    Attributes:
        dataset: data set.
        model: network.
        quantizer: quantizer, with "+RULE" for another rounding rule than its own.
        w_bits: bits of the weights; 32 for a float run.
        a_bits: bits of the activations; 32 for a float run.
        kd: distillation loss, with "+NAME" for each add-on.
        changes: other values that differ, "key=value, key=value"; empty for a cell as the project defines it.
        chosen_bits: the budget that chose the bits of each layer, e.g. "auto+40kB"; w_bits and a_bits are then rounded
            averages, those of the first seed. Empty without a budget.
    """

    dataset: str
    model: str
    quantizer: str
    w_bits: int
    a_bits: int
    kd: str
    changes: str = ""
    chosen_bits: str = ""

    @property
    def is_float(self) -> bool:
        """Whether the cell's network is not quantized."""
        return self.w_bits == FLOAT_BITS

    @property
    def bits(self) -> str:
        """The bits in one word, e.g. "W2A4", "float", or the budget that chose them."""
        return "float" if self.is_float else self.chosen_bits or f"W{self.w_bits}A{self.a_bits}"

    @property
    def network(self) -> tuple[str, str]:
        """Data set and model."""
        return self.dataset, self.model

    @property
    def published_cell(self) -> Cell:
        """The cell of the paper with which this cell is compared: itself, or without `_released`."""
        return replace(self, quantizer=self.quantizer.removesuffix(RELEASED), kd=self.kd.removesuffix(RELEASED))

    @property
    def key(self) -> Cell:
        """What the seeds of a cell have in common: a budget may choose other bits for each of them."""
        return replace(self, w_bits=0, a_bits=0) if self.chosen_bits else self

    @property
    def order(self) -> tuple[Any, ...]:
        """The sort key: the float run first, then by quantizer, bits and kd."""
        bits = (self.w_bits, self.a_bits, self.chosen_bits)
        return (*self.network, self.quantizer != "none", self.quantizer, *bits, self.kd, self.changes)

    def __str__(self) -> str:
        parts = (self.dataset, self.model, self.quantizer, self.bits, self.kd, self.changes)
        return " ".join(part for part in parts if part)


def cell_of(record: Record) -> Cell:
    """Return the cell that a run belongs to."""
    named = NAMED if record.chosen_bits else ()
    changes = {key: value for key, value in record.changes.items() if key not in named}
    return Cell(
        dataset=printable(record.dataset),
        model=printable(record.model),
        quantizer=printable("+".join(filter(None, [record.quantizer, record.rounding]))),
        w_bits=record.w_bits,
        a_bits=record.a_bits,
        kd=printable("+".join(filter(None, [record.kd, record.add_ons]))),
        changes=printable(changes_text(_short(changes, record.quantizer))),
        chosen_bits=printable(record.chosen_bits or ""),
    )


def with_method(record: Record, kd: str, add_ons: str) -> Cell:
    """Return the cell that differs from a run's cell in its training method only.

    The cell lacks the run's changed values of the loss, and of add-ons unless the add-ons are the same.

    Args:
        record: of the run.
        kd: the loss of the cell.
        add_ons: the add-ons of the cell, joined by "+".
    """
    own = OF_LOSS if add_ons == record.add_ons else (OF_LOSS, OF_ADD_ONS)
    changes = {
        key: value
        for key, value in record.changes.items()
        if not key.startswith(own) or (key in OF_RECIPE and record.changes.get(OF_RECIPE[key]) == value)
    }
    return cell_of(replace(record, choices={**record.choices, "kd": kd, "plus": add_ons}, changes=changes))


def _short(changes: Mapping[str, Any], quantizer: str) -> dict[str, Any]:
    """Return the changes with one key in place of the same start of weights and inputs.

    PACT has a range for its inputs alone.

    Example:
        >>> _short({"quantizer.input.start": "mse", "quantizer.weight.start": "mse", "recipe.lr": 0.1}, "lsq")
        {'quantizer.start': 'mse', 'recipe.lr': 0.1}
    """
    keys = STARTS[:1] if quantizer.startswith("pact") else STARTS
    start, *others = (changes.get(key) for key in keys)
    if start is None or any(other != start for other in others):
        return dict(changes)
    left = {key: value for key, value in changes.items() if key not in keys}
    return dict(sorted({**left, START: start}.items()))


def paper_cell(row: PaperRow) -> Cell:
    """Return the cell of a published number."""
    return Cell(row.dataset, row.model, row.quantizer, row.bits, row.bits, row.kd)

"""The cells of a table: its rows, each combined with all its parameters, as far as the command line narrows it.

    rows: ["dataset=cifar10 model=resnet20,vgg8", "dataset=cifar100 model=vgg13"]
    params: {bits: "1,2", kd: "none,sqakd"}

are three rows of four cells each. A row is fixed: `model=vgg8` on the command line keeps the rows with that network. A
parameter is a default: `bits=3` replaces it. Any other override, e.g. `kd.temperature=2`, is added to every cell.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser

from sqakd.errors import SqakdError


class TableError(SqakdError):
    """A table whose rows do not fit together, or a command that no row of the table fits."""


def table_cells(
    rows: Sequence[str], params: Mapping[str, Any], typed: Sequence[str], loader: Any = None
) -> list[list[str]]:
    """Return the overrides of each cell of a table.

    Seeds vary slowest, so that the whole table is there with one seed before the next one begins.

    Args:
        rows: overrides that belong together, separated by spaces; comma-separated values are rows of their own.
        params: {key: comma-separated values}, combined with every row.
        typed: overrides of the command line.
        loader: Hydra's config loader, for `glob(*)` in overrides of groups.

    Raises:
        TableError: if the rows have different keys, or if no row has what was typed.

    Example:
        >>> table_cells(["model=vgg8,vgg13"], {"kd": "none,sqakd"}, ["kd=none", "seed=0,1", "model=vgg8"])
        [['seed=0', 'model=vgg8', 'kd=none'], ['seed=1', 'model=vgg8', 'kd=none']]
    """
    all_rows = [row for text in rows for row in _combinations(_values(text.split(), loader))]
    keys = all_rows[0].keys() if all_rows else {}
    for row in all_rows:
        if row.keys() != keys:
            raise TableError(f"all rows of a table need the same keys: found {_text(all_rows[0])} and {_text(row)}")
    asked = _values(typed, loader)
    narrow = {key: values for key, values in asked.items() if key in keys}
    others = _values([f"{key}={values}" for key, values in params.items()], loader) | asked
    others = {key: values for key, values in others.items() if key not in keys}
    seeds = {"seed": others.pop("seed")} if "seed" in others else {}
    kept = _narrowed(all_rows, narrow)
    return [
        [f"{key}={value}" for key, value in (seed | row | other).items()]
        for seed in _combinations(seeds)
        for row in kept
        for other in _combinations(others)
    ]


def _narrowed(rows: Sequence[dict[str, str]], narrow: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    """Return the rows that have one of the values of every key in `narrow`."""
    for key, values in narrow.items():
        there = list(dict.fromkeys(row[key] for row in rows))
        for value in values:
            if value not in there:
                raise TableError(f"no row of this table has {key}={value}; its rows have {key}={','.join(there)}")
    kept = [row for row in rows if all(row[key] in values for key, values in narrow.items())]
    if not kept:
        wanted = " ".join(f"{key}={','.join(values)}" for key, values in narrow.items())
        combinations = "; ".join(dict.fromkeys(_text({key: row[key] for key in narrow}) for row in rows))
        raise TableError(f"no row of this table has {wanted} together; its rows have: {combinations}")
    return kept


def _values(overrides: Iterable[str], loader: Any) -> dict[str, list[str]]:
    """Return the values of each key: bits=1,2 gives {"bits": ["1", "2"]}; of several overrides of a key the last."""
    found = {}
    for override in OverridesParser.create(config_loader=loader).parse_overrides(list(overrides)):
        key = override.get_key_element()
        if not override.is_sweep_override():
            found[key] = [override.get_value_element_as_str()]
        elif override.is_discrete_sweep():
            found[key] = [str(value) for value in override.sweep_string_iterator()]
        else:
            raise TableError(f"{override.input_line}: a table needs single values, not an interval")
    return found


def _combinations(values: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    """Return every combination of one value for each key; the last key varies fastest."""
    return [dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values())]


def _text(row: Mapping[str, str]) -> str:
    return " ".join(f"{key}={value}" for key, value in row.items())

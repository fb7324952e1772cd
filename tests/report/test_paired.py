"""Comparisons with SQAKD: their bases, the seeds that both sides have, and the test over several quantizers."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from made_runs import Made, make_grid, make_run

from sqakd.report.paired import Pair, paired_table, paired_together, pairs
from sqakd.report.results import read_results
from sqakd.report.statistics import mean_std, paired_difference
from sqakd.report.table import Table
from sqakd.report.write import readme_tables, texts_by_file

MSE = {"quantizer.input.start": "mse", "quantizer.weight.start": "mse"}


def make(
    runs: Path, kd: str, changes: Mapping[str, Any] = MappingProxyType({}), *, seeds: int = 3, plus: str = ""
) -> None:
    """Make the runs of one cell; `changes` are its changed values."""
    for seed in range(seeds):
        made = Made("digits16", "resnet20", "ewgs", 1, "+".join([kd, plus, *map(str, changes.values())]), seed)
        choices = {"dataset": "digits16", "quantizer": "ewgs", "kd": kd, "plus": plus}
        make_run(runs, made, choices=choices, changes=dict(changes), labels_used=kd == "none")


def found(runs: Path) -> list[Pair]:
    return pairs(read_results([runs]).cells)


def names(runs: Path) -> list[tuple[str, str, str, int]]:
    return [(pair.cell.kd, pair.cell.changes.count("mse") * "+mse", pair.base, len(pair.runs)) for pair in found(runs)]


def records(table: Table) -> list[dict[str, str]]:
    return [dict(zip(table.header, row, strict=True)) for row in table.rows]


def test_a_method_is_compared_with_sqakd_from_the_same_ranges_and_from_those_of_the_paper(tmp_path: Path) -> None:
    make(tmp_path, "sqakd")
    make(tmp_path, "sqakd", MSE)
    make(tmp_path, "reconstruction", MSE)
    make(tmp_path, "squat")
    assert names(tmp_path) == [
        ("reconstruction", "+mse", "sqakd", 3),
        ("reconstruction", "+mse", "sqakd, ranges of the paper", 3),
        ("sqakd", "+mse", "sqakd, ranges of the paper", 3),
        ("squat", "", "sqakd", 3),
    ]


def test_values_of_the_method_and_its_add_ons_are_on_one_side_only(tmp_path: Path) -> None:
    make(tmp_path, "sqakd")
    make(tmp_path, "sqakd", {"plus.ema.epochs": 2.0}, plus="ema")
    make(tmp_path, "reconstruction", {"kd.feature": 1.0})
    assert [(kd, base) for kd, _, base, _ in names(tmp_path)] == [("reconstruction", "sqakd"), ("sqakd+ema", "sqakd")]


def test_label_smoothing_of_the_recipe_is_on_both_sides(tmp_path: Path) -> None:
    smoothed = {"kd.label_smoothing": 0.1, "recipe.label_smoothing": 0.1}
    make(tmp_path, "sqakd", smoothed)
    make(tmp_path, "squat", smoothed)
    assert names(tmp_path) == [("squat", "", "sqakd", 3)]


@pytest.mark.parametrize("changes", [{"recipe.epochs": 6}, {"teacher.checkpoint": "other.pt"}])
def test_other_values_have_to_be_equal(changes: dict[str, Any], tmp_path: Path) -> None:
    make(tmp_path, "sqakd")
    make(tmp_path, "squat", changes)
    assert found(tmp_path) == []


def test_labels_are_not_compared_here(tmp_path: Path) -> None:
    make_grid(tmp_path, kds=("none", "sqakd"))
    assert found(tmp_path) == []


def test_only_seeds_that_both_sides_have_count(tmp_path: Path) -> None:
    make(tmp_path, "sqakd", seeds=2)
    make(tmp_path, "squat", seeds=3)
    (pair,) = found(tmp_path)
    assert [(ours.seed, base.seed) for ours, base in pair.runs] == [(0, 0), (1, 1)]
    assert [ours.record.kd for ours, _ in pair.runs] == ["squat", "squat"]


def test_the_difference_is_that_of_the_seeds(tmp_path: Path) -> None:
    make(tmp_path, "sqakd")
    make(tmp_path, "squat")
    (pair,) = found(tmp_path)
    values = [ours - base for ours, base in pair.scores("top1")]
    (row,) = records(paired_table([pair]))
    assert row["n"] == "3"
    assert row["top-1"] == f"{mean_std(values)[0]:+.2f} (se {mean_std(values)[1] / 3**0.5:.2f})"
    assert row["agreement"].startswith(f"{pair.difference('agreement').value:+.2f}")  # type: ignore[union-attr]


def test_pairs_ignore_what_both_sides_have_in_common() -> None:
    together = paired_difference([(90.0, 89.0), (70.0, 69.0), (80.0, 79.1)])
    assert together is not None
    assert together.value == pytest.approx(0.9667, abs=1e-4)
    assert together.standard_error == pytest.approx(0.0333, abs=1e-4)
    assert (together.verdict, together.freedom) == ("better", 2)
    single = paired_difference([(2.0, 1.0)])
    assert single is not None
    assert (single.verdict, single.p) == ("-", None)
    assert paired_difference([]) is None


def test_pact_has_no_range_of_weights_and_is_the_same_method(tmp_path: Path) -> None:
    for quantizer in ("pact", "lsq"):
        for kd in ("sqakd", "squat"):
            starts = {"quantizer.input.start": "mse"} if quantizer == "pact" else MSE
            made = Made("digits16", "resnet20", quantizer, 1, kd, 0)
            make_run(tmp_path, made, changes=starts | {"recipe.lr": 0.1}, labels_used=False)
        make_run(tmp_path, Made("digits16", "resnet20", quantizer, 1, "sqakd", 1), changes={"recipe.lr": 0.1})
    (row,) = records(paired_together(found(tmp_path)))
    assert (row["kd"], row["quantizers"]) == ('squat (quantizer.start="mse", recipe.lr=0.1)', "2")


def test_all_quantizers_together_are_tested_by_changing_signs(tmp_path: Path) -> None:
    make_grid(tmp_path, quantizers=("ewgs", "lsq"), bits=(1,), kds=("sqakd", "squat"))
    comparisons = found(tmp_path)
    (row,) = records(paired_together(comparisons))
    assert (row["kd"], row["quantizers"], row["n"]) == ("squat", "2", "6")
    values = [ours - base for pair in comparisons for ours, base in pair.scores("top1")]
    assert row["top-1"] == f"{sum(values) / 6:+.2f}"
    sums = [sum(s * v for s, v in zip(signs, values, strict=True)) for signs in product((1, -1), repeat=6)]
    p = sum(abs(total) >= abs(sum(values)) - 1e-9 for total in sums) / 2**6
    assert row["top-1: p (Holm)"] == f"{p:.2g} ({p:.2g})"


def test_the_report_has_both_tables_and_only_where_there_is_anything(tmp_path: Path) -> None:
    make_grid(tmp_path / "a", kds=("none", "sqakd"))
    make_grid(tmp_path / "b", kds=("none", "sqakd", "squat"))
    title = "## Without labels, compared with SQAKD"
    results = {name: read_results([tmp_path / name]) for name in ("a", "b")}
    counts = {name: texts_by_file(found)["digits16.md"].count(title) for name, found in results.items()}
    assert counts == {"a": 0, "b": 1}
    assert "digits16-sqakd" not in readme_tables(results["a"])
    tables = readme_tables(results["b"])["digits16-sqakd"]
    assert tables.count("| compared with |") == 2

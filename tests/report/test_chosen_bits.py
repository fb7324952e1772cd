"""Runs whose bits a budget chose: one name in all tables, no place on an axis of bits, and a place in those of cost."""

from __future__ import annotations

import csv
import io
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
from made_runs import Made, make_run

from sqakd.errors import SqakdError
from sqakd.report.headline import cost_picture, headline
from sqakd.report.panels import PANELS
from sqakd.report.results import Results, read_results, without_shared_changes
from sqakd.report.write import readme_tables, texts_by_file
from sqakd.runs.record import Record, read_record

PARTS = {"dataset.holdout": 0.2, "trainer.precision": "bf16-mixed"}
BUDGETS = {"budget.size": "40kB", "budget.criterion": "curvature"}
NAMES = ("auto+40kB+curvature", "auto+50kB")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Two bits and two budgets with equal rounded averages, each with two seeds, and their float run."""
    runs = tmp_path_factory.mktemp("made")
    made = Made("digits16", "resnet20", "lsq", 2, "sqakd", 0, layers=1)
    make_run(runs, made.float_run)
    for seed in (0, 1):
        make_run(runs, replace(made, seed=seed), changes=PARTS)
        for budget, changes in zip(NAMES, (BUDGETS, {"budget.size": "50kB"}), strict=True):
            own = {"chosen_bits": budget, "layer_bits": {"a": [1, 3]}, "changes": {**PARTS, **changes}}
            make_run(runs / budget, replace(made, seed=seed), packed_bytes=int(40_000 + len(budget)), **own)
    return read_results([runs, *(runs / budget for budget in NAMES)])


def tips(picture: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(picture).iter() if element.tag.endswith("title")]


def test_each_budget_is_a_row_of_its_own(results: Results) -> None:
    text = texts_by_file(results)["digits16.md"]
    rows = [line.split(" | ") for line in text.splitlines() if "lsq" in line]
    assert [row[3] for row in rows] == ["W2A2", *NAMES]
    assert all("(2)" in row[5] for row in rows)
    assert "budget." not in text, "the bits name the budget"
    assert text.count("holdout") == 1, "stated once for all"
    lines = list(csv.DictReader(io.StringIO(texts_by_file(results)["digits16.csv"])))
    assert [line["chosen_bits"] for line in lines if line["quantizer"] == "lsq"] == ["", *NAMES]
    assert all(name in readme_tables(results)["digits16-summary"] for name in NAMES)


def test_budgets_are_drawn_against_cost_and_not_against_bits(results: Results) -> None:
    for name in ("bits", "agreement"):
        assert not [tip for tip in tips(f"<div>{PANELS[name](results)}</div>") if "auto" in tip]
    assert not [tip for tip in tips(headline(results)) if "auto" in tip]
    for picture in (f"<div>{PANELS['pareto'](results)}</div>", cost_picture(results)):
        assert all(any(name in tip for tip in tips(picture)) for name in NAMES)


def test_a_picture_names_only_what_differs(results: Results) -> None:
    drawn = cost_picture(results)
    assert "sqakd, bits=auto<" in drawn
    assert "float run<" in drawn
    assert "holdout" not in drawn
    assert 'aria-label="accuracy against cost"' in drawn


def test_the_seeds_of_a_budget_are_one_cell_whatever_it_chose(tmp_path: Path) -> None:
    made = Made("digits16", "resnet20", "lsq", 1, "sqakd", 0, layers=1)
    for seed, bits in enumerate((1, 2, 2)):
        own = {"chosen_bits": "auto+40kB", "w_bits": bits, "packed_bytes": 39_000 + 300 * seed}
        make_run(tmp_path, replace(made, seed=seed), **own)
    (cell,) = (found := read_results([tmp_path])).cells
    assert len(found.cells[cell]) == 3
    (line,) = csv.DictReader(io.StringIO(texts_by_file(found)["ours.csv"]))
    assert (line["n"], line["packed_bytes"]) == ("3", "39300")
    assert any("39.3 kB" in tip for tip in tips(cost_picture(found)))


def test_float_runs_keep_the_changes_that_students_share(tmp_path: Path) -> None:
    made = Made("digits16", "resnet20", "lsq", 2, "sqakd", 0, layers=1)
    make_run(tmp_path / "a", made.float_run)
    make_run(tmp_path / "b", made.float_run, changes=PARTS)
    make_run(tmp_path / "b", made, changes=PARTS)
    found = read_results([tmp_path / "a", tmp_path / "b"])
    assert len(found.cells) == 3
    assert [cell.changes for cell in without_shared_changes(found).cells if not cell.is_float] == [""]
    assert len(without_shared_changes(found).cells) == 3


def test_the_divergence_is_in_the_csv_file(tmp_path: Path) -> None:
    score = {"top1": {"last": 0.9, "best": 0.9, "mean_of_last_5": 0.9}}
    for seed, kl in enumerate((0.25, 0.75)):
        made = Made("digits16", "resnet20", "lsq", 2, "sqakd", seed, layers=1)
        make_run(tmp_path, made, scores=score | {"kl": {"last": kl, "best": kl, "mean_of_last_5": kl}})
    (line,) = csv.DictReader(io.StringIO(texts_by_file(read_results([tmp_path]))["ours.csv"]))
    assert (line["kl_last_mean"], line["kl_last_std"]) == ("0.500000", "0.353553")


def test_only_budgets_leave_nothing_to_draw_against_bits(results: Results) -> None:
    chosen = replace(results, cells={cell: runs for cell, runs in results.cells.items() if cell.chosen_bits})
    assert "No quantized network has been trained with the same bits for all layers." in PANELS["bits"](chosen)
    with pytest.raises(SqakdError, match="no picture of accuracy against bits"):
        headline(chosen)
    assert "float run<" not in cost_picture(chosen)
    with pytest.raises(SqakdError, match="no picture of accuracy against cost"):
        cost_picture(replace(results, cells={}))


def test_a_record_keeps_its_budget_and_may_lack_it(results: Results, tmp_path: Path) -> None:
    records = [run.record for run in results.runs]
    assert all(Record.from_dict(record.to_dict()) == record for record in records)
    make_run(tmp_path, Made("digits16", "resnet20", "lsq", 2, "sqakd", 0))
    assert "chosen_bits" not in read_record(next(tmp_path.glob("*/*/record.json"))).to_dict()

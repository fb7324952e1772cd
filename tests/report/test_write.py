"""Tables of runs: means over seeds, published numbers next to ours, and published cells without a run."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from sqakd.errors import SqakdError
from sqakd.report.cells import Cell
from sqakd.report.results import read_results
from sqakd.report.write import write_report

PAPER = """table,dataset,model,quantizer,bits,kd,top1,top5,source,reference
table9,cifar10,net,ewgs,2,sqakd,91.50,99.25,paper,here
table9,cifar10,net,ewgs,1,sqakd,88.00,,second-hand,there
table9,cifar10,net,ewgs,4,sqakd,,,unknown,nowhere
"""


def record(name: str, seed: int, top1: float, **changes: Any) -> dict[str, Any]:
    dataset, model, quantizer, _, kd = name.split("-")
    return {
        "name": name,
        "seed": seed,
        "choices": {"dataset": dataset, "quantizer": quantizer, "kd": kd},
        "changes": {},
        "command": f"python train.py quantizer={quantizer}",
        "model": model,
        "w_bits": 2,
        "a_bits": 2,
        "epochs": 10,
        "scores": {"top1": {"last": top1, "best": top1 + 0.01, "mean_of_last_5": top1}},
        "packed_bytes": 1000,
        "bit_operations": 10,
        "commit": "abc",
        "training_seconds": 50.0,
    } | changes


def store(runs: Path, content: dict[str, Any]) -> None:
    folder = runs / content["name"] / f"seed{content['seed']}"
    folder.mkdir(parents=True)
    (folder / "record.json").write_text(json.dumps(content))


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    runs, results = tmp_path / "runs", tmp_path / "results"
    results.mkdir()
    (results / "paper.csv").write_text(PAPER)
    for seed, top1 in ((0, 0.90), (1, 0.92), (10, 0.94)):
        store(runs, record("cifar10-net-ewgs-w2a2-sqakd", seed, top1))
    store(runs, record("cifar10-net-lsq-w2a2-sqakd", 0, 0.5))
    store(runs, record("digits-net-lsq-w2a2-none", 0, 0.75))
    return runs, results


def table(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def markdown(file: Path, heading: str = "# ") -> list[dict[str, str]]:
    """The table below a heading."""
    part = file.read_text().partition(heading)[2].partition("\n## ")[0]
    lines = [line[2:-2].split(" | ") for line in part.splitlines() if line.startswith("|")]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]


def test_a_table_has_the_published_number_ours_and_the_difference(folders: tuple[Path, Path]) -> None:
    write_report(*folders)
    first, second, third, extra = markdown(folders[1] / "table9.md")
    assert (first["paper"], first["ours, last"], first["ours, best"]) == (
        "91.50",
        "92.00 ± 2.00 (3)",
        "93.00 ± 2.00 (3)",
    )
    assert (first["difference"], first["epochs"], first["bits"]) == ("+0.50 (se 1.15)", "10", "W2A2")
    assert (first["paper, top-5"], first["ours, top-5"]) == ("99.25", "-")
    assert (second["bits"], second["paper"], second["ours, last"], second["difference"]) == ("W1A1", "88.00¹", "-", "-")
    assert (third["bits"], third["paper"], third["ours, last"]) == ("W4A4", "-", "-")
    assert (extra["quantizer"], extra["paper"], extra["ours, last"]) == ("lsq", "-", "50.00 (1)")
    assert "changed" not in first, "nothing is"


def test_a_csv_table_has_plain_numbers(folders: tuple[Path, Path]) -> None:
    write_report(*folders)
    first, second, third, extra = table(folders[1] / "table9.csv")
    assert (float(first["paper_top1"]), float(first["top1_last_mean"]), float(first["top1_last_std"])) == (91.5, 92, 2)
    assert (first["paper_source"], first["n"], first["seeds"], float(first["difference"])) == (
        "paper",
        "3",
        "0 1 10",
        0.5,
    )
    assert (second["paper_source"], second["n"], second["top1_last_mean"], second["difference"]) == (
        "second-hand",
        "0",
        "",
        "",
    )
    assert (third["paper_top1"], third["paper_source"]) == ("", "unknown")
    assert (extra["top1_last_mean"], extra["top1_last_std"]) == ("50.0000", ""), "one seed has no deviation"


def test_a_changed_run_is_never_compared_with_a_published_number(folders: tuple[Path, Path]) -> None:
    name = "cifar10-net-ewgs-w2a2-sqakd"
    for seed, changes in ((7, {"recipe.lr": 0.5}), (8, {"recipe.lr": 0.5}), (9, {"quantizer.per_channel": True})):
        content = record(name, seed, 0.1, changes=changes)
        folder = folders[0] / f"mine{seed}" / f"seed{seed}"
        folder.mkdir(parents=True)
        (folder / "record.json").write_text(json.dumps(content | {"name": f"mine{seed}"}))
    write_report(*folders)
    rows = markdown(folders[1] / "table9.md")
    assert rows[0]["ours, last"] == "92.00 ± 2.00 (3)"
    assert [(row["changed"], row["ours, last"]) for row in rows if row["changed"]] == [
        ("quantizer.per_channel=true", "10.00 (1)"),
        ("recipe.lr=0.5", "10.00 ± 0.00 (2)"),
    ]


def test_a_run_repeated_under_another_name_counts_once(folders: tuple[Path, Path]) -> None:
    content = record("cifar10-net-ewgs-w2a2-sqakd", 0, 0.9)
    folder = folders[0] / "zz-again" / "seed0"
    folder.mkdir(parents=True)
    (folder / "record.json").write_text(json.dumps(content | {"name": "zz-again"}))
    omitted: list[SqakdError] = []
    write_report(*folders, omit=omitted.append)
    assert [str(error).split()[0] for error in omitted] == [str(folder)]
    assert table(folders[1] / "table9.csv")[0]["seeds"] == "0 1 10"


def test_another_rounding_rule_is_another_quantizer(folders: tuple[Path, Path]) -> None:
    name = "cifar10-net-ewgs-w2a2-sqakd"
    command = "python train.py quantizer=ewgs quantizer/rounding=ste"
    store(folders[0], record(name, 0, 0.3, command=command) | {"name": "other"})
    write_report(*folders)
    rows = markdown(folders[1] / "table9.md")
    assert rows[0]["ours, last"] == "92.00 ± 2.00 (3)"
    assert [row["ours, last"] for row in rows if row["quantizer"] == "ewgs+ste"] == ["30.00 (1)"]


def test_a_rounding_rule_within_a_quoted_override_does_not_count(folders: tuple[Path, Path]) -> None:
    name = "cifar10-net-ewgs-w2a2-sqakd"
    quoted = "python train.py quantizer=ewgs 'dataset.folder=my quantizer/rounding=ste' 'quantizer/rounding=ewgs'"
    store(folders[0], record(name, 0, 0.3, command=quoted) | {"name": "other"})
    store(folders[0], record(name, 0, 0.2, command="python train.py dataset.folder=it's") | {"name": "zz-again"})
    found = read_results([folders[0]], omit=lambda _: None).cells
    ours = Cell("cifar10", "net", "ewgs", 2, 2, "sqakd")
    assert {"ewgs", "ewgs+ewgs", "lsq"} == {cell.quantizer for cell in found}
    assert [run.record.name for run in found[ours]] == [name] * 3, "written without quotes, by an earlier version"


def test_the_released_reading_is_compared_with_the_cell_of_the_paper(folders: tuple[Path, Path]) -> None:
    store(folders[0], record("cifar10-net-ewgs_released-w2a2-sqakd_released", 0, 0.9))
    store(folders[0], record("cifar10-net-ewgs_released-w2a2-none_matched", 0, 0.8))
    write_report(*folders)
    rows = {(row["quantizer"], row["kd"]): row for row in markdown(folders[1] / "table9.md")}
    row = rows["ewgs_released", "sqakd_released"]
    assert (row["paper"], row["difference"]) == ("91.50³", "-1.50")
    assert rows["ewgs_released", "none_matched"]["paper"] == "-"


def test_networks_of_no_published_table_have_a_table_of_their_data_set(folders: tuple[Path, Path]) -> None:
    store(folders[0], record("cifar10-other-ewgs-w2a2-sqakd", 0, 0.6))
    write_report(*folders)
    (row,) = markdown(folders[1] / "digits.md")
    assert row["kd"] == "none"
    assert (row["last"], row["agreement with the teacher, last"], row["kB"]) == ("75.00 (1)", "-", "1.0")
    (other,) = markdown(folders[1] / "cifar10.md")
    assert (other["model"], other["last"]) == ("other", "60.00 (1)")


def test_ours_csv_has_every_cell(folders: tuple[Path, Path]) -> None:
    write_report(*folders)
    rows = table(folders[1] / "ours.csv")
    assert [(row["dataset"], row["quantizer"], row["n"], row["seeds"]) for row in rows] == [
        ("cifar10", "ewgs", "3", "0 1 10"),
        ("cifar10", "lsq", "1", "0"),
        ("digits", "lsq", "1", "0"),
    ]
    assert float(rows[0]["top1_last_mean"]) == pytest.approx(92)
    assert float(rows[0]["top1_last_std"]) == pytest.approx(2)


def test_different_numbers_of_epochs_are_shown(folders: tuple[Path, Path]) -> None:
    store(folders[0], record("digits-net-lsq-w2a2-none", 1, 0.7, epochs=3))
    write_report(*folders)
    assert table(folders[1] / "digits.csv")[0]["epochs"] == "3 10"


def test_a_damaged_record_is_named(folders: tuple[Path, Path]) -> None:
    file = folders[0] / "digits-net-lsq-w2a2-none" / "seed0" / "record.json"
    file.write_text("{}")
    with pytest.raises(ValueError, match=f"{file} is not a record of a run"):
        read_results([folders[0]])


def test_bits_of_a_cell() -> None:
    assert [Cell("d", "m", "q", *bits, "k").bits for bits in ((32, 32), (1, 4))] == ["float", "W1A4"]


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_an_empty_report_overwrites_nothing(name: str, folders: tuple[Path, Path], tmp_path: Path) -> None:
    write_report(*folders)
    before = (folders[1] / "ours.csv").read_text()
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=f"no finished run in {tmp_path / name}: expected"):
        write_report(tmp_path / name, folders[1])
    assert (folders[1] / "ours.csv").read_text() == before

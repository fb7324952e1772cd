"""Tables from records: means over seeds, the paper's number beside ours, empty cells that stay visible."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from sqakd.plan import Plan, duration
from sqakd.report import Cell, mean_std, read_records, show, write_report
from sqakd.runs import Run

PAPER = """table,dataset,model,quantizer,bits,kd,top1,top5,kind,source
table9,cifar10,net,ewgs,2,sqakd,91.50,,paper,here
table9,cifar10,net,ewgs,1,sqakd,88.00,,second-hand,there
"""


def record(name: str, seed: int, top1: float, **changes: Any) -> dict[str, Any]:
    dataset, model, quantizer, _, kd = name.split("-")
    return {
        "name": name,
        "seed": seed,
        "choices": {"dataset": dataset, "quantizer": quantizer, "kd": kd},
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


def test_a_table_has_paper_ours_and_difference(folders: tuple[Path, Path]) -> None:
    write_report(*folders)
    first, second, third = table(folders[1] / "table9.csv")
    assert (first["paper"], first["ours, last"], first["ours, best"]) == (
        "91.50",
        "92.00 ± 2.00 (3)",
        "93.00 ± 2.00 (3)",
    )
    assert (first["difference"], first["epochs"], first["bits"]) == ("+0.50", "10", "W2A2")
    assert (second["bits"], second["paper"], second["ours, last"], second["difference"]) == ("W1A1", "88.00¹", "-", "-")
    assert (third["quantizer"], third["paper"], third["ours, last"]) == ("lsq", "-", "50.00 (1)")


def test_a_data_set_without_published_numbers_has_its_own_table(folders: tuple[Path, Path]) -> None:
    write_report(*folders)
    (row,) = table(folders[1] / "digits.csv")
    assert (row["top-1, last"], row["agreement"], row["kB"]) == ("75.00 (1)", "-", "1.0")
    text = (folders[1] / "digits.md").read_text()
    assert "| digits | net | lsq | W2A2 | none | 75.00 (1) |" in text


def test_every_cell_is_in_ours(folders: tuple[Path, Path]) -> None:
    write_report(*folders)
    rows = table(folders[1] / "ours.csv")
    assert [(row["dataset"], row["quantizer"], row["n"], row["seeds"]) for row in rows] == [
        ("cifar10", "ewgs", "3", "0 1 10"),
        ("cifar10", "lsq", "1", "0"),
        ("digits", "lsq", "1", "0"),
    ]
    assert float(rows[0]["top1_last_mean"]) == pytest.approx(92)
    assert float(rows[0]["top1_last_std"]) == pytest.approx(2)


def test_different_lengths_show(folders: tuple[Path, Path]) -> None:
    store(folders[0], record("digits-net-lsq-w2a2-none", 1, 0.7, epochs=3))
    write_report(*folders)
    assert table(folders[1] / "digits.csv")[0]["epochs"] == "3 10"


def test_mean_and_deviation() -> None:
    assert mean_std([3.0]) == (3.0, 0.0)
    mean, std = mean_std([1.0, 2.0, 4.0])
    assert mean == pytest.approx(7 / 3)
    assert std == pytest.approx(math.sqrt(((4 / 3) ** 2 + (1 / 3) ** 2 + (5 / 3) ** 2) / 2))
    assert show([]) == "-"


def test_a_file_that_is_no_record_is_named(folders: tuple[Path, Path]) -> None:
    file = folders[0] / "digits-net-lsq-w2a2-none" / "seed0" / "record.json"
    file.write_text("{}")
    with pytest.raises(ValueError, match=f"{file} is no record of a run"):
        read_records(folders[0])


def test_bits_of_a_cell() -> None:
    assert [Cell("d", "m", "q", *bits, "k").bits for bits in ((32, 32), (1, 4))] == ["float", "W1A4"]


def test_a_plan_knows_how_long_from_finished_runs(tmp_path: Path) -> None:
    name = "digits-net-ewgs-w2a2-sqakd"
    store(tmp_path, record(name, 0, 0.9))
    plan = Plan()
    network = {"dataset": {"_target_": "digits"}, "model": {"net": {"blocks": 3}}}
    config = {"name": name, "quantizer": {"bits": 2}, "recipe": {"epochs": 100}, **network}
    (tmp_path / name / "seed0" / "config.yaml").write_text(yaml.safe_dump(config))
    assert plan.add(Run(tmp_path / name / "seed0", config)) == f"done     {tmp_path / name / 'seed0'}"
    assert plan.add(Run(tmp_path / name / "seed0", config)) is None
    line = plan.add(Run(tmp_path / name / "seed1", config))
    assert line == f"train    {tmp_path / name / 'seed1'}  about {duration(500)}"
    other = Run(tmp_path / "digits-net-none-w32a32-none" / "seed0", config | {"quantizer": None})
    assert plan.add(other) == f"train    {other.folder}"
    assert plan.total().startswith("3 runs: 1 done, 2 train; about 8 min on one device; 1 of unknown length")

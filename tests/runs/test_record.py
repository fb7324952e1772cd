"""What a run leaves behind as numbers: no score is invented, none is lost."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sqakd.quantization.cost import Cost
from sqakd.runs import record as module
from sqakd.runs.record import commit, main_score, make_record, numbers, spread, summary
from sqakd.runs.spec import Sentence

SENTENCE = Sentence(
    {"name": "small", "seed": 3, "w_bits": 1, "a_bits": 4, "model": {"name": "net"}},
    {"kd": "sqakd"},
    ("bits=1", "seed=3"),
)
COST = Cost(parameters=1000, packed_bytes=1250, bit_operations=8000)


def row(rate: float, **scores: float) -> dict[str, float]:
    return {"epoch": 0.0, "train/loss": 9.0, "images_per_second": rate} | {f"val/{k}": v for k, v in scores.items()}


def make(
    rows: list[dict[str, float]],
    float_record: dict[str, Any] | None = None,
    paper: dict[str, Any] | None = None,
) -> dict[str, Any]:
    return make_record(
        SENTENCE,
        rows,
        changes={"recipe.epochs": 3},
        cost=COST,
        labels_used=False,
        float_record=float_record,
        paper=paper,
        training_seconds=1.23456,
        device=torch.device("cpu"),
    )


FLOAT: dict[str, Any] = make([row(100, top1=0.5), row(100, top1=0.25)]) | {"name": "float", "more": "not kept"}
PAPER: dict[str, Any] = {"top1": 0.625, "kind": "re-run", "table": "table4", "cell": "its own"}
LABELLED = [row(300, top1=0.75, agreement=0.5), row(100, top1=0.0, agreement=0.5), row(200, top1=0.125, agreement=1)]


def test_spread() -> None:
    assert spread([0.5], best=max) == {"last": 0.5, "best": 0.5, "mean_of_last_5": 0.5}
    assert spread([1, 0.5], best=max) == {"last": 0.5, "best": 1, "mean_of_last_5": 0.75}
    assert spread([9, 1, 2, 3, 4, 0], best=max) == {"last": 0, "best": 9, "mean_of_last_5": 2}
    assert spread([9, 1, 2, 3, 4, 2], best=min) == {"last": 2, "best": 1, "mean_of_last_5": 12 / 5}


def test_more_bits_than_asked_for_are_no_result() -> None:
    early = row(100, top1=1.0, agreement=1.0) | {"preliminary": 1.0}
    last = row(100, top1=0.25, agreement=0.5) | {"preliminary": 0.0}
    record = make([early, early, last, last | {"val/top1": 0.125}])
    assert record["scores"]["top1"] == {"last": 0.125, "best": 0.25, "mean_of_last_5": 0.1875}
    assert record["scores"]["agreement"]["best"] == 0.5
    assert record["epochs"] == 4


def test_a_record_says_what_ran_and_what_came_out() -> None:
    record = make(LABELLED, FLOAT)
    assert record["scores"]["top1"] == {"last": 0.125, "best": 0.75, "mean_of_last_5": 0.875 / 3}
    assert record["scores"].keys() == {"top1", "agreement"}
    assert record["drop_from_float"] == 0.25 - 0.125
    assert record["float_run"] == {"name": "float", "seed": 3, "scores": FLOAT["scores"]}
    expected = {"name": "small", "seed": 3, "w_bits": 1, "a_bits": 4, "choices": {"kd": "sqakd"}, "epochs": 3}
    expected |= {
        "device": record["device"],
        "devices": 1,
        "labels_used": False,
        "parameters": 1000,
        "packed_bytes": 1250,
        "bit_operations": 8000,
    }
    expected |= {"images_per_second": 200, "training_seconds": 1.23, "command": "python train.py bits=1 seed=3"}
    assert {key: record[key] for key in expected} == expected
    assert {"torch", "lightning", "python", "sqakd"} == record["versions"].keys()
    assert json.loads(json.dumps(record)) == record


def test_a_records_command_can_be_pasted_into_a_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("dataset.folder=my photos", "plus=[bn,ema]", "quantizer/rounding=stochastic", "name=it's", "bits=1")
    monkeypatch.setattr(sys.modules[__name__], "SENTENCE", replace(SENTENCE, overrides=words))
    said = make(LABELLED)["command"]
    done = subprocess.run(
        ["sh", "-c", said.replace("python train.py", "printf '%s\n'")], capture_output=True, text=True
    )
    assert said.startswith("python train.py ")
    assert tuple(done.stdout.splitlines()) == words
    assert "'plus=[bn,ema]'" in said, "some shells read brackets as a pattern"


def test_the_best_divergence_is_the_smallest() -> None:
    record = make([row(1, kl=0.5, top1=0.5), row(1, kl=0.25, top1=0.75), row(1, kl=1.0, top1=0.25)])
    assert record["scores"]["kl"]["best"] == 0.25
    assert record["scores"]["top1"]["best"] == 0.75


def test_without_labels_or_float_run_there_is_no_drop() -> None:
    unlabelled = make([row(1, agreement=0.5, kl=0.1)], FLOAT)
    unknown = make(LABELLED, None)
    other_kind = make(LABELLED, make([row(1, agreement=0.5)]))
    assert "drop_from_float" not in unlabelled | unknown | other_kind
    assert "top1" not in unlabelled["scores"]
    assert unknown["float_run"] is None


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ({"top1": 0.5, "agreement": 0.75}, 0.5),
        ({"top1": 0.0, "agreement": 0.75}, 0.0),
        ({"agreement": 0.75, "kl": 0.1}, 0.75),
        ({"agreement": 0.0}, 0.0),
        ({}, None),
    ],
)
def test_main_score(scores: dict[str, float], expected: float | None) -> None:
    assert main_score(make([row(1, **dict.fromkeys(scores, 0.9)), row(1, **scores)])) == expected


def test_summary() -> None:
    assert summary(make(LABELLED, FLOAT)) == (
        "small seed 3, top-1 12.50% (best 75.00%), float 25.00%, agrees with its teacher on 100.00%, 1.2 kB packed"
    )
    assert summary(make(LABELLED)) == (
        "small seed 3, top-1 12.50% (best 75.00%), agrees with its teacher on 100.00%, 1.2 kB packed"
    )
    assert summary(make([row(1, agreement=0.0)], FLOAT)) == (
        "small seed 3, agrees with its teacher on 0.00%, 1.2 kB packed"
    )


def test_the_papers_number_stands_beside_ours() -> None:
    record = make(LABELLED, FLOAT, PAPER)
    assert record["paper"] == PAPER
    assert record["difference_from_paper"] == 0.125 - 0.625
    assert "12.50% (best 75.00%), paper 62.50%, float 25.00%," in summary(record)
    logged = numbers(record)
    assert (logged["record/paper/top1"], logged["record/difference_from_paper"]) == (0.625, -0.5)
    beside = make(LABELLED, FLOAT, PAPER | {"cell": "without _released"})
    assert "paper 62.50% (without _released), float" in summary(beside)


def test_without_a_published_number_there_is_no_difference() -> None:
    record = make(LABELLED, FLOAT)
    assert record["paper"] is None
    assert "difference_from_paper" not in record
    assert "paper" not in summary(record)
    assert not any("paper" in name for name in numbers(record))
    unlabelled = make([row(1, agreement=0.5)], FLOAT, PAPER)
    assert "difference_from_paper" not in unlabelled


def test_records_of_earlier_versions_have_no_such_key() -> None:
    record = make(LABELLED, FLOAT)
    old = {key: value for key, value in record.items() if key != "paper"}
    assert (summary(old), numbers(old)) == (summary(record), numbers(record))


def test_numbers_for_a_logger() -> None:
    single = {"packed_bytes": 1250, "bit_operations": 8000, "images_per_second": 1, "training_seconds": 1.23}
    expected = {f"agreement/{kind}": 0.5 for kind in ("last", "best", "mean_of_last_5")} | single
    assert numbers(make([row(1, agreement=0.5)])) == {f"record/{name}": value for name, value in expected.items()}
    assert numbers(make(LABELLED, FLOAT))["record/drop_from_float"] == 0.125


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package lies in a folder that belongs to no checkout."""
    monkeypatch.setattr(module, "__file__", str(tmp_path / "record.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_no_commit_outside_a_checkout(outside: Path) -> None:
    assert commit() is None


def test_no_commit_without_git(outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(outside))
    assert commit() is None


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_a_commit_and_whether_files_differ_from_it(outside: Path) -> None:
    def git(*words: str) -> str:
        identity = ["-c", "user.name=n", "-c", "user.email=n@example.org"]
        return subprocess.run(
            ["git", *identity, *words], cwd=outside, capture_output=True, text=True, check=True
        ).stdout

    git("init")
    (outside / "record.py").write_text("text")
    git("add", ".")
    git("commit", "-m", "first")
    head = git("rev-parse", "HEAD").strip()
    assert len(head) == 40
    assert commit() == head
    (outside / "record.py").write_text("another text")
    assert commit() == f"{head}+"

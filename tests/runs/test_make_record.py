"""From epochs to a record: no score is invented and none is lost."""

from __future__ import annotations

import subprocess
from dataclasses import asdict, replace
from typing import Any

import pytest
import torch

from sqakd.quantization.cost import Cost
from sqakd.runs.make_record import make_record, score_of
from sqakd.runs.record import Published, Record, Score
from sqakd.runs.spec import Spec

SPEC = Spec(
    {
        "name": "small",
        "seed": 3,
        "w_bits": 1,
        "a_bits": 4,
        "model": {"name": "net"},
        "trainer": {"precision": "32-true"},
    },
    {"dataset": "digits", "quantizer": "ewgs", "kd": "sqakd"},
    ("bits=1", "seed=3"),
)
COST = Cost(parameters=1000, packed_bytes=1250, bit_operations=8000)


def row(rate: float, **scores: float) -> dict[str, float]:
    return {"epoch": 0.0, "train/loss": 9.0, "images_per_second": rate} | {f"val/{k}": v for k, v in scores.items()}


def make(
    rows: list[dict[str, float]],
    float_record: Record | None = None,
    paper: Published | None = None,
    spec: Spec = SPEC,
    initial: dict[str, float] | None = None,
    float_precision: str | None = None,
    stage_epochs: int = 0,
) -> Record:
    return make_record(
        spec,
        rows,
        changes={"recipe.epochs": 3},
        cost=COST,
        labels_used=False,
        float_record=float_record,
        float_precision=float_precision,
        paper=paper,
        training_seconds=1.23456,
        device=torch.device("cpu"),
        stage_epochs=stage_epochs,
        initial=initial,
    )


FLOAT = replace(make([row(100, top1=0.5), row(100, top1=0.25)]), name="float")
PAPER = Published(top1=0.625, source="re-run", table="table4", compared_with="its own")
LABELLED = [row(300, top1=0.75, agreement=0.5), row(100, top1=0.0, agreement=0.5), row(200, top1=0.125, agreement=1)]


def test_a_spread_is_the_last_and_best_value_and_the_mean_of_the_last_five() -> None:
    assert score_of([0.5], best=max) == Score(last=0.5, best=0.5, mean_of_last_5=0.5)
    assert score_of([1, 0.5], best=max) == Score(last=0.5, best=1, mean_of_last_5=0.75)
    assert score_of([9, 1, 2, 3, 4, 0], best=max) == Score(last=0, best=9, mean_of_last_5=2)
    assert score_of([9, 1, 2, 3, 4, 2], best=min) == Score(last=2, best=1, mean_of_last_5=12 / 5)


def test_epochs_with_more_bits_than_the_run_are_not_a_result() -> None:
    early = row(100, top1=1.0, agreement=1.0) | {"preliminary": 1.0}
    last = row(100, top1=0.25, agreement=0.5) | {"preliminary": 0.0}
    record = make([early, early, last, last | {"val/top1": 0.125}])
    assert record.scores["top1"] == Score(last=0.125, best=0.25, mean_of_last_5=0.1875)
    assert record.scores["agreement"].best == 0.5
    assert record.epochs == 4


def test_epochs_of_a_stage_count_where_anything_was_trained() -> None:
    assert make(LABELLED, stage_epochs=2).epochs == 5
    assert make([], initial={"top1": 0.125}, stage_epochs=2).epochs == 0


def test_without_a_training_the_initial_scores_are_the_result() -> None:
    record = make([], FLOAT, initial={"top1": 0.125, "agreement": 0.5, "kl": float("nan")})
    assert record.epochs == 0
    assert record.images_per_second is None
    assert record.scores["top1"] == Score(last=0.125, best=0.125, mean_of_last_5=0.125)
    assert record.scores.keys() == {"top1", "agreement"}, "what is not finite is left out"
    assert record.drop_from_float == 0.125
    assert Record.from_dict(record.to_dict()) == record


def test_initial_scores_are_kept_next_to_the_result() -> None:
    record = make(LABELLED, initial={"top1": 0.25, "agreement": 0.375})
    assert (record.top1_before_training, record.agreement_before_training) == (0.25, 0.375)
    assert record.scores["top1"].last == 0.125
    logged = record.metrics()
    assert (logged["record/before_training/top1"], logged["record/before_training/agreement"]) == (0.25, 0.375)
    assert "top1_before_training" not in make(LABELLED).to_dict()


def test_a_record_holds_what_ran_and_what_came_out() -> None:
    record = make(LABELLED, FLOAT)
    assert record.scores["top1"] == Score(last=0.125, best=0.75, mean_of_last_5=0.875 / 3)
    assert record.scores.keys() == {"top1", "agreement"}
    assert record.drop_from_float == 0.25 - 0.125
    assert record.float_run is not None
    assert record.float_run.to_dict() == {"name": "float", "seed": 3, "scores": asdict(FLOAT)["scores"]}
    expected: dict[str, Any] = {"name": "small", "seed": 3, "w_bits": 1, "a_bits": 4, "epochs": 3, "model": "net"}
    expected |= {"choices": SPEC.choices, "changes": {"recipe.epochs": 3}, "devices": 1, "labels_used": False}
    expected |= {"parameters": 1000, "packed_bytes": 1250, "bit_operations": 8000}
    expected |= {"images_per_second": 200, "training_seconds": 1.23, "command": "python train.py bits=1 seed=3"}
    assert {key: getattr(record, key) for key in expected} == expected
    assert record.device


def test_the_command_of_a_record_can_be_pasted_into_a_shell() -> None:
    overrides = ("dataset.folder=my photos", "plus=[bn,ema]", "quantizer/rounding=stochastic", "name=it's", "bits=1")
    record = make(LABELLED, spec=replace(SPEC, overrides=overrides))
    done = subprocess.run(
        ["sh", "-c", record.command.replace("python train.py", "printf '%s\n'")], capture_output=True, text=True
    )
    assert record.command.startswith("python train.py ")
    assert tuple(done.stdout.splitlines()) == overrides
    assert "'plus=[bn,ema]'" in record.command, "some shells read brackets as a pattern"
    assert record.rounding == "stochastic"


def test_the_best_divergence_is_the_smallest() -> None:
    record = make([row(1, kl=0.5, top1=0.5), row(1, kl=0.25, top1=0.75), row(1, kl=1.0, top1=0.25)])
    assert record.scores["kl"].best == 0.25
    assert record.scores["top1"].best == 0.75


def test_there_is_no_drop_without_labels_or_without_a_float_run() -> None:
    unlabelled = make([row(1, agreement=0.5, kl=0.1)], FLOAT)
    unknown = make(LABELLED, None)
    float_run_without_labels = make(LABELLED, make([row(1, agreement=0.5)]))
    for record in (unlabelled, unknown, float_run_without_labels):
        assert record.drop_from_float is None
        assert "drop_from_float" not in record.to_dict()
    assert "top1" not in unlabelled.scores
    assert unknown.float_run is None


def test_another_precision_of_the_float_run_is_recorded() -> None:
    bf16 = replace(SPEC, config=SPEC.config | {"trainer": {"precision": "bf16-mixed"}})
    student = make(LABELLED, FLOAT, spec=bf16, float_precision="32-true")
    assert student.float_run is not None
    assert student.float_run.precision == "32-true"
    assert Record.from_dict(student.to_dict()) == student
    for spec, precision in ((SPEC, "32-true"), (bf16, "bf16-mixed"), (bf16, None)):
        record = make(LABELLED, FLOAT, spec=spec, float_precision=precision)
        assert "precision" not in record.to_dict()["float_run"]


def test_a_published_number_gives_a_difference_where_there_are_labels() -> None:
    assert make(LABELLED, FLOAT, PAPER).difference_from_paper == 0.125 - 0.625
    assert make([row(1, agreement=0.5)], FLOAT, PAPER).difference_from_paper is None
    assert make(LABELLED, FLOAT).difference_from_paper is None


@pytest.mark.parametrize(
    ("rates", "expected"),
    [([3.0, 1.0, 2.0], 2.0), ([1.0, 2.0], 2.0), ([float("nan"), 4.0], 4.0), ([float("nan")], None)],
)
def test_an_epoch_without_a_measured_rate_does_not_count(rates: list[float], expected: float | None) -> None:
    assert make([row(rate, top1=0.5) for rate in rates]).images_per_second == expected

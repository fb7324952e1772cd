"""A student uses its float run in its own precision, or else a finished one in float32."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import command
import pytest
import yaml

from sqakd.app.precision import available_float_run, precision_note
from sqakd.runs.folder import RunFolder
from sqakd.runs.record import Record, write_record
from sqakd.runs.spec import Spec

OLD_RUN = command.ROOT / "tests/old_runs/version1/digits16-resnet20-ewgs-w2a2-sqakd/seed0/record.json"


def float_run(runs: Path, precision: str, **changes: Any) -> Spec:
    config = {"name": "float", "seed": 0, "paths": {"runs": str(runs)}, "recipe": {"lr": 0.1, "calibration_batches": 1}}
    return Spec(config | {"trainer": {"precision": precision}} | changes, {}, ())


def finish(spec: Spec) -> None:
    folder = RunFolder.of_spec(spec)
    folder.path.mkdir(parents=True)
    folder.config.write_text(yaml.safe_dump(spec.saved))
    write_record(folder.record, Record.from_dict(json.loads(OLD_RUN.read_text())))


def test_a_finished_float32_run_serves_a_student_in_bf16(tmp_path: Path) -> None:
    own, float32 = float_run(tmp_path, "bf16-mixed"), float_run(tmp_path, "32-true")
    finish(float32)
    found = available_float_run(own)
    assert found.identity == float32.identity
    assert precision_note(own, found) == "float run in precision 32-true, student in bf16-mixed"


def test_a_float_run_in_the_students_own_precision_serves(tmp_path: Path) -> None:
    own = float_run(tmp_path, "bf16-mixed")
    finish(own)
    assert available_float_run(own) is own
    assert precision_note(own, own) == ""


@pytest.mark.parametrize(
    "changes",
    [{"recipe": {"lr": 0.2, "calibration_batches": 1}}, {"trainer": {"precision": "32-true", "benchmark": True}}],
)
def test_a_float32_run_of_another_row_does_not_serve(changes: dict[str, Any], tmp_path: Path) -> None:
    finish(float_run(tmp_path, "32-true", **changes))
    own = float_run(tmp_path, "bf16-mixed")
    assert available_float_run(own) is own


def test_a_float32_run_on_other_images_does_not_serve(tmp_path: Path) -> None:
    finish(Spec(float_run(tmp_path, "32-true").config, {}, (), {"images": "a"}))
    own = float_run(tmp_path, "bf16-mixed")
    assert available_float_run(own, {"images": "b"}) is own
    assert available_float_run(own, {"images": "a"}) is not own


def test_an_unfinished_float32_run_does_not_serve(tmp_path: Path) -> None:
    float32, own = float_run(tmp_path, "32-true"), float_run(tmp_path, "bf16-mixed")
    finish(float32)
    RunFolder.of_spec(float32).record.unlink()
    assert available_float_run(own) is own


def test_a_student_in_float32_never_uses_another_precision(tmp_path: Path) -> None:
    finish(float_run(tmp_path, "bf16-mixed"))
    own = float_run(tmp_path, "32-true")
    assert available_float_run(own) is own

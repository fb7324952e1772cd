"""The files of an export in Weights & Biases: only for a run that was logged there, and offline without a login."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import wandb
import wandb_file

from sqakd.app.artifact import check_logged, log_artifact
from sqakd.errors import SqakdError
from sqakd.runs.export_record import ExportRecord
from sqakd.runs.folder import RunFolder

RECORD = cast(
    ExportRecord,
    SimpleNamespace(
        name="my cell-bn+ema", seed=3, profile="exact", w_bits=2, a_bits=2, verify=[SimpleNamespace(agreement=1.0)]
    ),
)


def config() -> dict[str, Any]:
    """Return the part of a run's configuration that names its logger; the folder is not where the run lies now."""
    node = {"project": "sqakd", "name": "cell", "seed": 3, "group": "g", "job_type": None, "tags": [], "plus": []}
    return {
        "logger": {
            "wandb": {"_target_": "sqakd.training.loggers.wandb.wandb_logger", **node, "folder": "runs/cell/seed3"}
        }
    }


def test_the_files_are_an_artifact_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "model.onnx").write_bytes(b"model")
    (tmp_path / "export" / "record.json").write_text("{}")
    try:
        name = log_artifact(config(), RECORD, RunFolder(tmp_path / "run"), tmp_path / "export")
        assert wandb.run is None, "it is closed"
    finally:
        wandb.teardown()
    assert name == "my-cell-bn-ema-seed3-exact"
    assert not (tmp_path / "runs").exists(), "no second folder of the run"
    assert wandb_file.read(tmp_path / "run").artifacts == {name: ["model.onnx", "record.json"]}


@pytest.mark.parametrize("logger", [None, {}, {"tensorboard": {}}])
def test_a_run_without_that_logger_is_refused(logger: dict[str, Any] | None, tmp_path: Path) -> None:
    with pytest.raises(SqakdError, match=r"was not logged to Weights & Biases; train it with logger=wandb"):
        check_logged({"logger": logger}, RunFolder(tmp_path))


def test_a_foreign_logger_is_not_constructed(tmp_path: Path) -> None:
    with pytest.raises(SqakdError, match="was not logged to Weights & Biases"):
        check_logged({"logger": {"wandb": {"_target_": "os.system"}}}, RunFolder(tmp_path))
    check_logged(config(), RunFolder(tmp_path))

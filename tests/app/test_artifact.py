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
    SimpleNamespace(name="cell", seed=3, profile="exact", w_bits=2, a_bits=2, verify=[SimpleNamespace(agreement=1.0)]),
)


def config(folder: Path) -> dict[str, Any]:
    """Return the part of a run's configuration that names its logger."""
    node = {"project": "sqakd", "name": "cell", "seed": 3, "group": "g", "job_type": None, "tags": [], "plus": []}
    return {
        "logger": {"wandb": {"_target_": "sqakd.training.loggers.wandb.wandb_logger", **node, "folder": str(folder)}}
    }


def test_the_files_are_an_artifact_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_MODE", "offline")
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "model.onnx").write_bytes(b"model")
    (tmp_path / "export" / "record.json").write_text("{}")
    try:
        name = log_artifact(config(tmp_path / "run"), RECORD, tmp_path / "export")
        assert wandb.run is None, "it is closed"
    finally:
        wandb.teardown()
    assert name == "cell-seed3-exact"
    assert wandb_file.read(tmp_path / "run").artifacts == {name: ["model.onnx", "record.json"]}


@pytest.mark.parametrize("logger", [None, {}, {"tensorboard": {}}])
def test_a_run_without_that_logger_is_refused(logger: dict[str, Any] | None, tmp_path: Path) -> None:
    with pytest.raises(SqakdError, match=r"was not logged to Weights & Biases; train it with logger=wandb"):
        check_logged({"logger": logger}, RunFolder(tmp_path))


def test_a_foreign_logger_is_not_constructed(tmp_path: Path) -> None:
    with pytest.raises(SqakdError, match="was not logged to Weights & Biases"):
        check_logged({"logger": {"wandb": {"_target_": "os.system"}}}, RunFolder(tmp_path))
    check_logged(config(tmp_path), RunFolder(tmp_path))

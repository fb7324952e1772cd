"""A finished run, read for export and checked."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

import sqakd
from sqakd.export.errors import ExportError
from sqakd.runs.folder import RunFolder
from sqakd.runs.record import Record, read_record
from sqakd.runs.run_weights import load_run_weights
from sqakd.runs.spec import identity
from sqakd.runs.targets import CONSTRUCTED, check_targets


@dataclass(frozen=True)
class Source:
    """The files of a run.

    Attributes:
        folder: the run's folder.
        config: resolved configuration, plain data.
        record: results of the run.
        weights: tensors by name.
        facts: facts in the weights file, such as class names.
    """

    folder: RunFolder
    config: dict[str, Any]
    record: Record
    weights: dict[str, Tensor]
    facts: dict[str, Any]

    @property
    def config_hash(self) -> str:
        """A hash of everything that decides what the run computed."""
        text = json.dumps(identity(self.config), sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def float_run(self) -> RunFolder | None:
        """The folder of the float run that this run started from, if it still exists and is finished."""
        origin = self.record.float_run
        folder = None if origin is None else self.folder.sibling(origin.name, origin.seed)
        return folder if folder is not None and folder.finished and folder.weights.exists() else None


def read_run(path: Path) -> Source:
    """Read a run that is finished, quantized, of this version and unchanged.

    Raises:
        ExportError: if the run is not like this.
        CheckpointError: if its weights cannot be read safely.
        SqakdError: if its configuration or its record is damaged, or the configuration names foreign classes.
    """
    folder = RunFolder(path)
    if not path.is_dir():
        raise ExportError(f"no run at {path}", topic="export.no_run")
    if not folder.config.is_file():
        raise ExportError(f"{path} is not the folder of a run: it has no config.yaml", topic="export.no_run")
    if not folder.finished:
        raise ExportError(f"the run {path} is not finished: it has no record.json", topic="export.unfinished")
    config, record = folder.read_config(), read_record(folder.record)
    missing = [key for key in CONSTRUCTED if key not in config]
    missing += [f"model.{key}" for key in ("net", "first") if key not in config.get("model", {})]
    if not missing and not isinstance(config["model"]["net"], dict):
        missing.append("model.net")
    if missing:
        raise ExportError(f"{folder.config} lacks {', '.join(missing)}: it is not the configuration of a run")
    check_targets(config, CONSTRUCTED, file=folder.config)
    trained_with = record.versions.get("sqakd", "of an unknown version")
    if _series(trained_with) != _series(sqakd.__version__):
        raise ExportError(
            f"{path} was trained with sqakd {trained_with} and this is {sqakd.__version__}, where its configuration"
            f" may have another meaning",
            topic="export.other_version",
            commit=record.commit,
        )
    if config["quantizer"] is None:
        raise ExportError(
            f"{path} is a float run, so there are no integers to export", topic="export.no_quantized_layer"
        )
    weights, facts = load_run_weights(folder, record)
    _check_unchanged(folder, record, facts)
    return Source(folder, config, record, weights, facts)


def _series(version: str) -> tuple[str, ...]:
    """Return the part of a version within which configurations keep their meaning; before 1.0 the first two numbers."""
    parts = version.split(".")
    return tuple(parts[:2]) if parts[0] == "0" else tuple(parts[:1])


def _check_unchanged(folder: RunFolder, record: Record, facts: dict[str, Any]) -> None:
    """Check that weights.pt is the file that the run wrote together with its record.

    Raises:
        ExportError: if it is another file.
    """
    file = folder.weights
    own = facts.get("record")
    if not isinstance(own, dict) or own.get("scores") != record.to_dict()["scores"]:
        raise ExportError(
            f"{file} belongs to another run than the record.json next to it", topic="export.changed_weights"
        )
    missing = [key for key in ("num_classes", "class_names", "mean", "std") if key not in facts]
    if missing:
        raise ExportError(f"{file} lacks {', '.join(missing)}: it was not written by a finished run")

"""A finished run, read back for export; whatever is wrong with it is one sentence."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

import sqakd
from sqakd.export.errors import ExportError
from sqakd.files import sha256
from sqakd.runs.checkpoint import load_weights
from sqakd.runs.record import Record, read_record
from sqakd.runs.spec import identity


@dataclass(frozen=True)
class Source:
    """What a run left behind.

    Attributes:
        folder: of the run.
        config: resolved, plain data.
        record: its results.
        weights: tensors by name.
        facts: what the weights file says of itself.
    """

    folder: Path
    config: dict[str, Any]
    record: Record
    weights: dict[str, Tensor]
    facts: dict[str, Any]

    @property
    def config_hash(self) -> str:
        """Of everything that decides what the run computed."""
        text = json.dumps(identity(self.config), sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def float_weights(self) -> Path | None:
        """Weights of the float network that the run started from, if they are still there."""
        origin = self.record.float_run
        if origin is None:
            return None
        file = self.folder.parent.parent / origin.name / f"seed{origin.seed}" / "weights.pt"
        return file if file.is_file() else None


def read_run(folder: Path) -> Source:
    """Read a run that is finished, quantized, of this version, and as it was left.

    Raises:
        ExportError: if it is not.
        CheckpointError: if its weights cannot be read safely.
    """
    if not folder.is_dir():
        raise ExportError(f"no run at {folder}; type run=runs/NAME/seed0, the folder of a finished run")
    if not (folder / "config.yaml").is_file():
        raise ExportError(f"{folder} is not the folder of a run: it has no config.yaml; type run=runs/NAME/seed0")
    if not (folder / "record.json").is_file():
        raise ExportError(f"the run {folder} is not finished: it has no record.json; the command that began it goes on")
    try:
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        parts = config["model"]["net"], config["dataset"]
    except (ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise ExportError(f"config.yaml of {folder} is damaged ({type(error).__name__}: {error})") from error
    del parts
    record = read_record(folder / "record.json")
    trained_with = record.versions.get("sqakd", "(unknown)")
    if _series(trained_with) != _series(sqakd.__version__):
        raise ExportError(
            f"{folder} was trained with sqakd {trained_with} and this is {sqakd.__version__}, where its configuration"
            f" may mean something else; export it with the version that trained it (commit {record.commit})"
        )
    if config["quantizer"] is None:
        raise ExportError(f"{folder} is a float run; export is for runs with a quantizer, e.g. quantizer=ewgs bits=2")
    weights, facts = load_weights(folder / "weights.pt")
    _check_untouched(folder, record, facts)
    return Source(folder, config, record, weights, facts)


def _series(version: str) -> tuple[str, ...]:
    """Versions before 1.0 promise nothing across their second number."""
    parts = version.split(".")
    return tuple(parts[:2]) if parts[0] == "0" else tuple(parts[:1])


def _check_untouched(folder: Path, record: Record, facts: dict[str, Any]) -> None:
    if record.weights_sha256 is not None and sha256(folder / "weights.pt") != record.weights_sha256:
        raise ExportError(
            f"{folder / 'weights.pt'} is not the file that the run wrote (its checksum is another one than in"
            f" record.json); put the original back, or train again under another name"
        )
    own = facts.get("record")
    if not isinstance(own, dict) or own.get("scores") != record.to_dict()["scores"]:
        raise ExportError(
            f"{folder / 'weights.pt'} belongs to another run than record.json beside it; put its own back"
        )
    missing = [key for key in ("num_classes", "class_names", "mean", "std") if key not in facts]
    if missing:
        raise ExportError(f"{folder / 'weights.pt'} lacks {', '.join(missing)}: it was not written by a finished run")

"""The files of an export as an artifact of the run in Weights & Biases."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from sqakd.errors import SqakdError
from sqakd.runs.export_record import ExportRecord
from sqakd.runs.folder import RunFolder

LONGEST = 128  # letters of an artifact's name
TARGET = "sqakd.training.loggers.wandb.wandb_logger"  # nothing else that a configuration names is called


def check_logged(config: dict[str, Any], run: RunFolder) -> None:
    """Refuse a run that was not logged to Weights & Biases, before anything is exported.

    Args:
        config: of the run.
        run: its folder.

    Raises:
        SqakdError: if the run has no such logger.
    """
    node = (config.get("logger") or {}).get("wandb") or {}
    if node.get("_target_") != TARGET:
        raise SqakdError(
            f"artifact=true: {run.path} was not logged to Weights & Biases; train it with logger=wandb, or export it"
            " without artifact=true"
        )


def artifact_name(text: str) -> str:
    """Return a text as the name of an artifact, which has only letters, digits and -_., and at most 128 of them.

    Example:
        >>> artifact_name("my run-w2a2-bn+ema"), len(artifact_name("x" * 200))
        ('my-run-w2a2-bn-ema', 128)
    """
    name = re.sub(r"[^A-Za-z0-9._-]", "-", text)
    if len(name) <= LONGEST:
        return name
    return f"{name[: LONGEST - 9]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def log_artifact(config: dict[str, Any], record: ExportRecord, run: RunFolder, folder: Path) -> str:
    """Add the files of an export to the run, online with a login and offline without one.

    Args:
        config: of the run.
        record: of the export.
        run: folder of the run, where an offline run lies.
        folder: of the export.

    Returns:
        The name of the artifact.
    """
    import wandb  # only if it is asked for

    from sqakd.training.loggers.wandb import WandbRun

    own = {key: config["logger"]["wandb"][key] for key in ("project", "name", "seed", "folder")}
    logger = WandbRun(**own, place=str(run.path))
    name = artifact_name(f"{record.name}-seed{record.seed}-{record.profile}")
    metadata = {"bits": [record.w_bits, record.a_bits], "agreement": [v.agreement for v in record.verify]}
    artifact = wandb.Artifact(name, type="model", metadata=metadata)
    artifact.add_dir(str(folder))
    logger.experiment.log_artifact(artifact)
    logger.finalize("success")  # waits until the files are sent, or written offline
    return name

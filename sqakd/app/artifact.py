"""The files of an export as an artifact of the run in Weights & Biases."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqakd.app.compose import make
from sqakd.errors import SqakdError
from sqakd.runs.export_record import ExportRecord
from sqakd.runs.folder import RunFolder
from sqakd.runs.targets import check_targets

if TYPE_CHECKING:
    from sqakd.training.loggers.wandb import WandbRun


def check_logged(config: dict[str, Any], run: RunFolder) -> None:
    """Refuse a run that was not logged to Weights & Biases, before anything is exported.

    Args:
        config: of the run.
        run: its folder.

    Raises:
        SqakdError: if the run has no such logger.
    """
    if "wandb" not in (config.get("logger") or {}):
        raise SqakdError(
            f"artifact=true: {run.path} was not logged to Weights & Biases; train it with logger=wandb, or export it"
            " without artifact=true"
        )
    check_targets(config, ("logger",), file=run.config)


def log_artifact(config: dict[str, Any], record: ExportRecord, folder: Path) -> str:
    """Add the files of an export to the run, online with a login and offline without one.

    Args:
        config: of the run.
        record: of the export.
        folder: of the export.

    Returns:
        The name of the artifact.
    """
    import wandb  # only if it is asked for

    logger: WandbRun = make(config["logger"]["wandb"], "logger.wandb")
    name = f"{record.name}-seed{record.seed}-{record.profile}"
    metadata = {"bits": [record.w_bits, record.a_bits], "agreement": [v.agreement for v in record.verify]}
    artifact = wandb.Artifact(name, type="model", metadata=metadata)
    artifact.add_dir(str(folder))
    logger.experiment.log_artifact(artifact)
    logger.finalize("success")  # waits until the files are sent, or written offline
    return name

"""The checkpoints of a training: the last one and the last but one, and which of them a training continues from.

An interrupted training ends in the same bits whichever checkpoint it continues from. So the last but one is as good as
the last, if the last is damaged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from sqakd.files import is_there
from sqakd.runs.checkpoint import CheckpointError, read_checkpoint
from sqakd.runs.state_files import previous

# What Lightning and the task put into each checkpoint.
PARTS: Mapping[str, type] = {
    "epoch": int,
    "global_step": int,
    "state_dict": dict,
    "loops": dict,
    "callbacks": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
    "pytorch-lightning_version": str,
    "rng": Tensor,
}
RUN = "run"  # key of the name of the run; earlier versions lack it


@dataclass(frozen=True)
class Start:
    """Where a training begins.

    Attributes:
        file: the checkpoint to continue from; None to begin with the first epoch.
        note: why the last checkpoint is not used; else "".
    """

    file: Path | None
    note: str = ""


def find_start(file: Path, *, run: str) -> Start:
    """Return the newest checkpoint that is whole.

    Args:
        file: the last checkpoint.
        run: name of the run, as written into its checkpoints.

    Raises:
        CheckpointError: if there are checkpoints, but none is whole.
        ReadError: if one cannot be read at present. The one before would not do: the training would replace this one.
    """
    problems: list[str] = []
    for candidate in filter(is_there, (file, previous(file))):
        try:
            epoch = _check(candidate, run)
        except CheckpointError as error:
            problems.append(str(error))
            continue
        note = f"{problems[0]}; the run continues from {candidate.name} (epoch {epoch})" if problems else ""
        return Start(candidate, note)
    if problems:
        raise CheckpointError("; ".join(problems), topic="checkpoint.no_state", folder=file.parent, name=file.stem)
    return Start(None)


def _check(file: Path, run: str) -> int:
    """Check that a file is a whole checkpoint of this run, and return its epoch.

    Raises:
        CheckpointError: naming the file and the reason.
        ReadError: if the file cannot be read at present.
    """
    try:
        content: Any = read_checkpoint(file)
    except CheckpointError as error:
        if error.topic != "checkpoint.unsafe":
            raise
        raise CheckpointError(f"{file} is damaged: it is not a checkpoint of this project") from error
    parts = content if isinstance(content, dict) else {}
    wrong = [key for key, kind in PARTS.items() if not isinstance(parts.get(key), kind)]
    # Lightning restores as many optimizers as it finds, without a warning.
    wrong += [key for key in ("state_dict", "optimizer_states") if key not in wrong and not parts[key]]
    if wrong:
        raise CheckpointError(f"{file} is not the checkpoint of a training: it lacks {', '.join(wrong)}")
    if (other := content.get(RUN, run)) != run:
        raise CheckpointError(f"{file} is the checkpoint of another run, {other}")
    return int(content["epoch"])

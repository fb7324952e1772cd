"""The weights of a finished run, read only if they are those that the run wrote."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sqakd.files import read_errors, sha256
from sqakd.runs.checkpoint import CheckpointError, load_weights
from sqakd.runs.folder import RunFolder
from sqakd.runs.record import Record


def load_run_weights(folder: RunFolder, record: Record) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors by name and the facts of a finished run.

    Args:
        folder: of the run.
        record: of the run; early records lack the checksum of the weights.

    Raises:
        CheckpointError: if the file is missing, damaged, or another one than the run wrote.
        ReadError: if the file cannot be read at present.
    """
    file = folder.weights
    if not file.exists():
        problem = f"{folder.path} has a record, but no {file.name}"
    else:
        try:
            with read_errors(file):
                found = sha256(file)
        except OSError as error:
            raise CheckpointError(f"cannot read {file}: {error.strerror or error}") from error
        if record.weights_sha256 in (None, found):
            return load_weights(file)
        problem = f"{file} is not the file that the run wrote: its checksum differs from the one in record.json"
    raise CheckpointError(problem, topic="run.weights", file=file, record=folder.record)

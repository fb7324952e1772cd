"""The file format of checkpoints: written whole, with a checksum."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning_fabric.utilities.types import _PATH

from sqakd.files import WriteError, replacing, write_errors
from sqakd.runs.seal import sealed
from sqakd.runs.state_files import previous


class CheckpointFile(TorchCheckpointIO):
    """Writes a checkpoint with its checksum and keeps the one before.

    Lightning's own class writes into the system's temporary folder first, which may be full or on another disk.

    Args:
        keep: whether the file that is there is worth keeping as the last but one checkpoint.
    """

    def __init__(self, *, keep: bool) -> None:
        self.keep = keep

    def save_checkpoint(self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any = None) -> None:
        """Write a checkpoint; a kill at any moment leaves a whole one, under the file's name or as the previous one.

        If there is no room for three, the last but one is deleted first.

        Raises:
            WriteError: if the file cannot be written. The checkpoint before is still there.
        """
        file, content = Path(path), sealed(checkpoint)
        with write_errors(file):
            file.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._replace(file, content)
        except WriteError:
            if not (self.keep and file.exists() and previous(file).exists()):
                raise
            previous(file).unlink()
            self._replace(file, content)
        self.keep = True

    def _replace(self, file: Path, content: memoryview) -> None:
        with replacing(file, size=len(content)) as temporary:
            temporary.write_bytes(content)
            if self.keep and file.exists():
                file.replace(previous(file))

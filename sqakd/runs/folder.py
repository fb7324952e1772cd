"""A run on disk: what it is, whether it is done, and what came out.

    runs/<name>/seed<k>/  config.yaml  metrics.csv  record.json  weights.pt  checkpoints/last.ckpt

The folder is named by *what* runs. The same configuration again is skipped if it is finished and resumed if it is not;
a different one is refused, so that nothing is ever overwritten.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from sqakd.errors import SqakdError
from sqakd.files import write_text
from sqakd.runs.record import Record, read_record, write_record
from sqakd.runs.spec import differences, identity


class RunError(SqakdError):
    """A run folder that cannot be used; the message says why and what to type."""


class Run:
    """One run's folder.

    Args:
        folder: where it lives.
        config: resolved configuration, plain data.
    """

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        self.folder, self.config = folder, config
        self.checkpoint = folder / "checkpoints" / "last.ckpt"
        self.pretraining = folder / "checkpoints" / "pretrain.ckpt"
        self.weights = folder / "weights.pt"
        self.record_file = folder / "record.json"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder; a second process that wants the same run waits here until the first is done or dead."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / ".lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                print(f"{self.folder} is being trained by another process; waiting for it", flush=True)  # noqa: T201
                lock.acquire()
        except OSError as error:
            raise RunError(
                f"cannot write to {self.folder}: {error.strerror}; make it writable or type paths.runs=FOLDER"
            ) from error
        try:
            yield
        finally:
            lock.release()

    def record(self) -> Record | None:
        """The finished run's record, or None."""
        return read_record(self.record_file) if self.record_file.exists() else None

    def check(self) -> None:
        """Refuse a folder that belongs to another configuration.

        Raises:
            RunError: with the keys that differ.
        """
        file = self.folder / "config.yaml"
        if not file.exists():
            return
        changes = differences(identity(yaml.safe_load(file.read_text())), identity(self.config))
        if changes:
            raise RunError(
                f"{self.folder} holds another run: {'; '.join(changes)}. Its files stay as they are:"
                f" type name=ANOTHER_NAME to keep both, or delete that folder"
            )

    def claim(self) -> None:
        """Make the folder this configuration's.

        Raises:
            RunError: if it belongs to another one, or cannot be written.
        """
        self.check()
        file = self.folder / "config.yaml"
        if file.exists():
            return
        try:
            write_text(file, yaml.safe_dump(self.config, sort_keys=False))
        except OSError as error:
            raise RunError(f"cannot write {file}: {error.strerror}; type paths.runs=FOLDER") from error

    def finish(self, record: Record) -> None:
        """Write the record last: its existence says that everything else is complete."""
        write_record(self.record_file, record)

"""The folder of one run, and the only place that knows where a run and its files lie.

    runs/<name>/seed<k>/  config.yaml  metrics.csv  record.json  weights.pt  weights.safetensors  README.md
                           checkpoints/last.ckpt  export-<profile>/

The folder is named after the run's choices. The same configuration again is skipped if it is finished and resumed if it
is not; a different one is refused, so nothing is ever overwritten.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml
from filelock import FileLock, Timeout

from sqakd.errors import SqakdError, some
from sqakd.files import ReadError, read_errors, write_text
from sqakd.runs.plain import check_plain, read_limited
from sqakd.runs.record import Record, read_record, write_record
from sqakd.runs.renames import with_current_paths
from sqakd.runs.spec import LAYER_BITS, Spec, differences, identity, with_added_keys, with_recorded_classes
from sqakd.runs.state_files import has_state
from sqakd.terminal import printable

NAMES = {type(None): "nothing", list: "a list", str: "text", int: "a number", float: "a number", bool: "a flag"}
# Keys of a configuration that hold further keys.
GROUPS = ("dataset", "model", "teacher", "kd", "recipe", "trainer", "paths", "choices", "inputs")
AWAITED = " is being trained by another process; waiting for it"  # a sweep finds this line in a job's log
WAITING = 60.0  # seconds between two signs of life of a process that waits for another one
LONGEST_NAME = 200  # bytes; file systems allow 255, and temporary names are longer than the name


def is_folder_name(name: str) -> bool:
    """Return whether a text can be the name of a run's folder; a hidden folder would not be found again.

    Example:
        >>> [is_folder_name(name) for name in ("a b", "", " a", "..", "a/b", ".x", "x" * 300)]
        [True, False, False, False, False, False, False]
    """
    is_one_part = name.isprintable() and not {"/", os.sep} & set(name) and not name.startswith(".")
    return is_one_part and name == name.strip() and 0 < len(name.encode()) <= LONGEST_NAME


class RunError(SqakdError):
    """A run folder that cannot be used."""


@dataclass(frozen=True)
class RunFolder:
    """The files of one run.

    Attributes:
        path: the folder; it need not exist.
    """

    path: Path

    @classmethod
    def of(cls, runs: Path | str, name: str, seed: int) -> Self:
        """Return the folder of a run below a folder of runs."""
        return cls(Path(runs) / name / f"seed{seed}")

    @classmethod
    def of_spec(cls, spec: Spec) -> Self:
        """Return the folder of a specified run.

        Raises:
            RunError: if the run's name is not a name for a folder.
        """
        name = spec.name
        if not is_folder_name(name):
            raise RunError(
                f"name={name!r}: expected the name of a folder: printable, without slashes and outer spaces, not"
                f" hidden, and at most {LONGEST_NAME} bytes long",
                topic="run.name",
            )
        return cls.of(spec.config["paths"]["runs"], name, spec.seed)

    @property
    def runs(self) -> Path:
        """The folder of all runs that this run is one of."""
        # The parts of a short relative path such as "seed0" lie in the current folder's own path.
        path = self.path if len(self.path.parts) > 2 else self.path.absolute()
        return path.parent.parent

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.csv"

    @property
    def quantizers(self) -> Path:
        return self.path / "quantizers.csv"

    @property
    def record(self) -> Path:
        return self.path / "record.json"

    @property
    def weights(self) -> Path:
        return self.path / "weights.pt"

    @property
    def shared_weights(self) -> Path:
        """A second file with the tensors of `weights`, for other programs."""
        return self.path / "weights.safetensors"

    @property
    def card(self) -> Path:
        """The model card."""
        return self.path / "README.md"

    @property
    def picture(self) -> Path:
        return self.path / "picture.png"

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoints" / "last.ckpt"

    @property
    def pretraining(self) -> Path:
        """Checkpoint of the stage before the training, which some feature losses have."""
        return self.path / "checkpoints" / "pretrain.ckpt"

    @property
    def compilation(self) -> Path:
        """The file with the decision about compilation, until the run is finished."""
        return self.path / "checkpoints" / "compilation.json"

    @property
    def pretraining_compilation(self) -> Path:
        """The same of the stage before the training."""
        return self.path / "checkpoints" / "pretrain-compilation.json"

    def export(self, profile: str) -> Path:
        """Return the folder of an export of this run."""
        return self.path / f"export-{profile}"

    @property
    def inner_records(self) -> list[Path]:
        """The record.json of each folder inside, e.g. of an export, whose folder may have any name.

        A hidden folder is an export that is being written, or what a killed process left of one.
        """
        return sorted(file for file in self.path.glob("*/record.json") if not file.parent.name.startswith("."))

    def sibling(self, name: str, seed: int) -> Self:
        """Return the folder of another run below the same folder of runs."""
        return type(self).of(self.runs, name, seed)

    @property
    def finished(self) -> bool:
        """Whether the run is complete: its record is the last file written."""
        return self.record.exists()

    @property
    def epochs_done(self) -> int:
        """The number of whole epochs in metrics.csv; 0 if it cannot be read."""
        try:
            return max(len(self.metrics.read_text(encoding="utf-8").splitlines()) - 1, 0)
        except (OSError, ValueError):
            return 0

    def finished_record(self, spec: Spec) -> Record | None:
        """Return the record of a finished run, or None; refuse a folder that belongs to another configuration.

        Raises:
            SqakdError: if the folder is another run's, or its record cannot be read.
        """
        self.check(spec)
        return self.read_record()

    def read_record(self) -> Record | None:
        """Return the finished run's record, or None if the run is not finished.

        Raises:
            SqakdError: if the record cannot be read.
        """
        return read_record(self.record) if self.finished else None

    def read_config(self) -> dict[str, Any]:
        """Return the content of config.yaml, with today's import paths of our classes and keys that were added since.

        Raises:
            RunError: if the file is missing or damaged.
            ReadError: if the file cannot be read at present.
        """
        try:
            with read_errors(self.config):
                saved = yaml.safe_load(read_limited(self.config))
            check_plain(saved)
        except ReadError:
            raise
        except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
            reason = getattr(error, "strerror", None) or " ".join(str(error).split())
            raise RunError(f"cannot read {self.config}: {reason}", topic="run.config_damaged") from error
        if not isinstance(saved, dict):
            raise RunError(
                f"{self.config} holds {NAMES.get(type(saved), 'another value')}, expected the keys of a configuration",
                topic="run.config_damaged",
            )
        for group in GROUPS:
            if group in saved and not isinstance(saved[group], dict):
                raise RunError(
                    f"{self.config} has {group}: {saved[group]!r:.40}, expected a group of keys",
                    topic="run.config_damaged",
                )
        return with_added_keys(with_current_paths(saved))

    @contextmanager
    def locked(self, *, waiting: Callable[[], object] = lambda: None, interval: float = WAITING) -> Iterator[None]:
        """Hold the folder for one process. A second process waits until the first one is done or dead.

        Args:
            waiting: called again and again while another process holds the folder.
            interval: seconds between two calls.

        Raises:
            RunError: if the folder cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / ".lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                sys.stdout.write(f"{printable(self.path)}{AWAITED}\n")
                sys.stdout.flush()
                while not lock.is_locked:
                    waiting()
                    with suppress(Timeout):
                        lock.acquire(timeout=interval)
        except OSError as error:
            raise RunError(f"cannot write to {self.path}: {error.strerror}", topic="run.unwritable") from error
        try:
            yield
        finally:
            lock.release()

    def check(self, spec: Spec) -> None:
        """Refuse a folder that belongs to another configuration, or that has files of a run but no configuration.

        Raises:
            RunError: naming the keys that differ, or the files.
        """
        if not self.config.exists():
            files = [self.metrics, self.quantizers, self.record, self.weights, self.picture]
            states = [self.checkpoint, self.pretraining]
            found = [file.name for file in files if file.exists()] + [s.name for s in states if has_state(s)]
            # Asked again, because another process may have claimed the folder and written files in the meantime.
            if found and not self.config.exists():
                raise RunError(
                    f"{self.path} holds {some(found)}, but no config.yaml that says which run they belong to. Its files"
                    " stay as they are",
                    topic="run.other",
                )
            return
        saved = with_recorded_classes(self.read_config(), spec.classes)
        if changes := differences(identity(saved), spec.with_layer_bits(self.chosen_layer_bits(spec)).identity):
            raise RunError(
                f"{self.path} holds another run: {'; '.join(changes)}. Its files stay as they are",
                topic="run.other",
            )

    def chosen_layer_bits(self, spec: Spec) -> dict[str, Any]:
        """Return the bits of the layers that this folder's run has chosen, by key of `LAYER_BITS`.

        The result is empty if the specification has nothing to be chosen, or if nothing is chosen yet.

        Raises:
            RunError: if the folder's configuration cannot be read.
        """
        if not spec.undecided or not self.config.exists():
            return {}
        quantizer = self.read_config().get("quantizer")
        if not isinstance(quantizer, dict):
            return {}
        return {key: bits for key in LAYER_BITS if isinstance(bits := quantizer.get(key), dict) and bits}

    def claim(self, spec: Spec) -> None:
        """Write the configuration, so that the folder belongs to it.

        Raises:
            RunError: if the folder belongs to another configuration.
            WriteError: if the folder cannot be written.
        """
        self.check(spec)
        if self.config.exists():
            return
        write_text(self.config, yaml.safe_dump(spec.saved, sort_keys=False))

    def finish(self, record: Record) -> None:
        """Write the record last: its existence says that all other files are complete."""
        write_record(self.record, record)


def find_finished(runs: Path) -> list[RunFolder]:
    """List the folders of all finished runs below a folder of runs, in the order of their names."""
    return [folder for folder in find_runs(runs) if folder.finished]


def find_runs(runs: Path) -> list[RunFolder]:
    """List the folders of all runs below a folder of runs, finished or not, in the order of their names."""
    return [RunFolder(path) for path in sorted(runs.glob("*/seed*")) if path.is_dir()]

"""How the option `trainer.compile` belongs to a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import command
import pytest
from hydra import initialize_config_dir

from sqakd.app.compose import compose_spec
from sqakd.app.train import _compilation
from sqakd.runs.folder import RunFolder

MODES = ("auto", "true", "false")


@pytest.fixture(autouse=True)
def configurations() -> Iterator[None]:
    with initialize_config_dir(str(command.ROOT / "conf"), version_base="1.3"):
        yield


def mode_of(runs: Path, value: str, *, started: str | None = None) -> object:
    """Return the mode of a run with a value of `trainer.compile`, which may have been started with another value."""
    spec = compose_spec([f"trainer.compile={value}", f"paths.runs={runs}"])
    folder = RunFolder.of_spec(spec)
    if started is not None:
        folder.path.mkdir(parents=True)
        folder.claim(compose_spec([f"trainer.compile={started}", f"paths.runs={runs}"]))
    return _compilation(spec, folder, folder.compilation).mode


def test_compilation_is_no_part_of_the_identity() -> None:
    first, *others = (compose_spec([f"trainer.compile={mode}"]).identity for mode in MODES)
    assert all(other == first for other in others)


def test_auto_is_the_default() -> None:
    assert compose_spec([]).config["trainer"]["compile"] == "auto"


@pytest.mark.parametrize("started", MODES)
def test_auto_continues_a_run_as_it_was_started(started: str, tmp_path: Path) -> None:
    assert mode_of(tmp_path, "auto", started=started) == mode_of(tmp_path / "new", started)


def test_true_and_false_are_taken_also_for_a_run_that_was_started_otherwise(tmp_path: Path) -> None:
    assert mode_of(tmp_path, "true", started="false") is True
    assert mode_of(tmp_path / "other", "false", started="auto") is False

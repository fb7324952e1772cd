"""The commit in a record: that of the checkout, with a mark if files differ from it, and none elsewhere."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from sqakd.runs import environment
from sqakd.runs.environment import commit, training_versions


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder outside of any checkout that seems to hold the package."""
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "environment.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_there_is_no_commit_outside_a_checkout(outside: Path) -> None:
    assert commit() is None


def test_there_is_no_commit_without_git(outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(outside))
    assert commit() is None


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_commit_ends_in_a_plus_if_files_differ_from_it(outside: Path) -> None:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=n", "-c", "user.email=n@example.org"]
        return subprocess.run(
            ["git", *identity, *arguments], cwd=outside, capture_output=True, text=True, check=True
        ).stdout

    git("init")
    (outside / "environment.py").write_text("text")
    git("add", ".")
    git("commit", "-m", "first")
    head = git("rev-parse", "HEAD").strip()
    assert len(head) == 40
    assert commit() == head
    (outside / "environment.py").write_text("another text")
    assert commit() == f"{head}+"


def test_training_versions_are_those_of_the_packages_that_train() -> None:
    assert {"sqakd", "python", "torch", "lightning"} == training_versions().keys()

"""The commit in a record: that of the checkout, with a mark if files differ from it, and none elsewhere."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from sqakd.runs import environment
from sqakd.runs.environment import CODE, commit, training_versions

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder outside of any checkout that seems to hold the package."""
    file = tmp_path / "sqakd" / "runs" / "environment.py"
    file.parent.mkdir(parents=True)
    file.write_text("text")
    monkeypatch.setattr(environment, "__file__", str(file))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=n", "-c", "user.email=n@example.org"]
    return subprocess.run(
        ["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.fixture
def checkout(outside: Path) -> Path:
    """Commit the package, a result and a README."""
    for name in ("results/ours.csv", "README.md", "conf/train.yaml", "train.py"):
        (outside / name).parent.mkdir(exist_ok=True)
        (outside / name).write_text("text")
    git(outside, "init")
    git(outside, "add", ".")
    git(outside, "commit", "-m", "first")
    return outside


def test_there_is_no_commit_outside_a_checkout(outside: Path) -> None:
    assert commit() is None


def test_there_is_no_commit_without_git(outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(outside))
    assert commit() is None


@needs_git
@pytest.mark.parametrize("name", ["sqakd/runs/environment.py", "sqakd/new.py", "conf/train.yaml", "train.py"])
def test_the_commit_ends_in_a_plus_if_code_differs_from_it(name: str, checkout: Path) -> None:
    head = git(checkout, "rev-parse", "HEAD")
    assert len(head) == 40
    assert commit() == head
    (checkout / name).write_text("another text")
    assert commit() == f"{head}+"


@needs_git
def test_results_and_pages_do_not_change_the_commit(checkout: Path) -> None:
    for name in ("results/ours.csv", "README.md", "results/report.html", "notes.txt"):
        (checkout / name).write_text("written by the report")
    assert git(checkout, "status", "--porcelain")
    assert commit() == git(checkout, "rev-parse", "HEAD")


@needs_git
def test_an_installed_package_below_another_checkout_has_no_commit(checkout: Path) -> None:
    git(checkout, "rm", "--cached", "-r", "sqakd")
    git(checkout, "commit", "-m", "the package is not part of it")
    assert commit() is None


def test_the_documentation_lists_what_counts_as_code() -> None:
    root = Path(__file__).parents[2]
    text = (root / "docs" / "report.md").read_text()
    for name in CODE:
        assert (root / name).exists()
        assert f"`{name}`" in text


def test_training_versions_are_those_of_the_packages_that_train() -> None:
    assert {"sqakd", "python", "torch", "lightning"} == training_versions().keys()

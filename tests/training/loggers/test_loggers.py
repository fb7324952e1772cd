"""Weights & Biases: offline without a login, never a prompt, and each run closed at its end."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pytest
import wandb

from sqakd.runs.login import has_login
from sqakd.training.loggers.wandb import WandbRun, wandb_logger


@pytest.fixture(autouse=True)
def _logged_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")  # monkeypatch then also removes a value that a test sets
    for name in [name for name in os.environ if name.startswith("WANDB")] + ["NETRC"]:
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture
def _no_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> str:
        raise AssertionError("an unattended run must not prompt")

    for question in ("builtins.input", "getpass.getpass", "click.prompt"):
        monkeypatch.setattr(question, fail)


def logger(folder: Path, *, name: str = "digits-ewgs", seed: int = 0) -> WandbRun:
    options: dict[str, Any] = {"group": "digits", "job_type": "table4", "tags": ["w2a2"], "plus": ["bn", "ema"]}
    return wandb_logger(project="sqakd", name=name, seed=seed, folder=str(folder), **options)


def write_netrc(file: Path, host: str) -> None:
    file.write_text(f"machine {host}\n  login user\n  password {'0' * 40}\n")
    file.chmod(0o600)


def test_logger_without_a_login_is_offline(tmp_path: Path) -> None:
    assert not has_login()
    assert logger(tmp_path)._offline


def test_logger_with_a_login_is_online(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert has_login()
    assert not logger(tmp_path)._offline


@pytest.mark.parametrize("mode", ["offline", "disabled", "dryrun"])
def test_offline_mode_overrides_a_key(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_MODE", mode)
    assert not has_login()


@pytest.mark.parametrize(
    ("host", "known"),
    [("api.wandb.ai", True), (urlparse(str(wandb.Settings().base_url)).netloc, True), ("github.com", False)],
)
def test_key_in_the_netrc_file_is_found(
    host: str, known: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_netrc(tmp_path / "home" / ".netrc", host)
    assert has_login() == known
    (tmp_path / "home" / ".netrc").rename(tmp_path / "elsewhere")
    assert not has_login()
    monkeypatch.setenv("NETRC", str(tmp_path / "elsewhere"))
    assert has_login() == known


def test_key_for_a_private_server_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org:8080/path")
    write_netrc(tmp_path / "home" / ".netrc", "api.wandb.ai")
    assert not has_login()
    for host in ("wandb.example.org", "wandb.example.org:8080"):
        write_netrc(tmp_path / "home" / ".netrc", host)
        assert has_login()


def test_unreadable_netrc_file_counts_as_no_login(tmp_path: Path) -> None:
    (tmp_path / "home" / ".netrc").write_text("this is not\na netrc file")
    assert not has_login()


def test_run_id_depends_on_name_seed_and_folder(tmp_path: Path) -> None:
    first = logger(tmp_path / "a")
    assert logger(tmp_path / "a").version == first.version
    assert logger(tmp_path / "a" / "debug").version != first.version
    assert len({logger(tmp_path, name=n, seed=s).version for n in ("x", "y") for s in (0, 1)} | {first.version}) == 5
    assert first._wandb_init["name"] == "digits-ewgs-seed0"
    assert first._wandb_init["tags"] == ["w2a2", "bn", "ema"]


@pytest.mark.usefixtures("_no_prompts")
def test_two_runs_in_one_process_are_separate(tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    try:
        ids = []
        for seed, folder in enumerate(folders):
            run = logger(folder, seed=seed)
            run.log_metrics({"val/top1": 0.5}, step=1)
            assert run.experiment.settings._offline
            ids.append(run.experiment.id)
            assert wandb.run is not None
            run.finalize("success")
            assert wandb.run is None
        assert ids == [logger(folder, seed=seed).version for seed, folder in enumerate(folders)]
        assert ids[0] != ids[1]
        for run_id, folder in zip(ids, folders, strict=True):
            assert [file.name for file in folder.rglob("*.wandb")] == [f"run-{run_id}.wandb"]
    finally:
        wandb.teardown()


@pytest.mark.usefixtures("_no_prompts")
def test_the_logger_is_silent(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = logger(tmp_path)
    assert "anonymous" not in run._wandb_init, "wandb warns of it, but only once in a process"
    run.log_metrics({"val/top1": 0.5}, step=1)
    run.finalize("success")
    wandb.teardown()
    printed = "".join(capfd.readouterr())
    assert "WARNING" not in printed
    assert "anonymous" not in printed


@pytest.mark.usefixtures("_no_prompts")
def test_unused_logger_opens_no_run(tmp_path: Path) -> None:
    run = logger(tmp_path)
    run.finalize("success")
    assert wandb.run is None
    assert list(tmp_path.rglob("*.wandb")) == []

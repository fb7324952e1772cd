"""What the README says to type works as typed: its commands compose, its two files make a quantizer."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import command
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

README = (command.ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, re.DOTALL)
COMMANDS = sorted(
    {line for _, text in BLOCKS for line in text.splitlines() if line.startswith("python train.py")}
    | {word for word in re.findall(r"`([^`\n]+)`", README) if word.startswith("python train.py")}
)
WORDS = sorted({word for word in re.findall(r"`([a-z_@/.]+=[^`\s]+)`", README) if word.isprintable()})
EXPORTS = sorted({line for _, text in BLOCKS for line in text.splitlines() if line.startswith("python export.py")})
EXPORT_KEYS = set(OmegaConf.load(command.ROOT / "conf" / "export.yaml"))
# Shown with a placeholder, or made by the reader.
PLACEHOLDERS = ("VENV=", "FILE", "ANOTHER_NAME", "maxabs", "=cosine", "=0,1,2")


def compose_words(words: list[str], script: str = "train") -> None:
    with initialize_config_dir(str(command.ROOT / "conf"), version_base="1.3"):
        cfg = compose(script, overrides=words, return_hydra_config=True)
        OmegaConf.to_container(OmegaConf.masked_copy(cfg, [str(k) for k in cfg if k != "hydra"]), resolve=False)


def test_there_is_something_to_check() -> None:
    assert len(COMMANDS) >= 4
    assert EXPORTS
    assert len(WORDS) >= 10


@pytest.mark.parametrize(
    "line", [line for line in COMMANDS if "maxabs" not in line and "kd=cosine" not in line and "--cfg" not in line]
)
def test_each_command_composes(line: str) -> None:
    compose_words(shlex.split(line)[2:])


@pytest.mark.parametrize("line", EXPORTS)
def test_each_export_composes(line: str) -> None:
    compose_words(shlex.split(line)[2:], "export")


@pytest.mark.parametrize("word", [word for word in WORDS if not any(p in word for p in PLACEHOLDERS)])
def test_each_word_composes(word: str) -> None:
    if re.split("[.=]", word)[0] in EXPORT_KEYS:
        compose_words(["run=runs/any", word], "export")
        return
    needs = ["dataset=cifar10"] if word.startswith("dataset.") else []
    compose_words([*needs, word])


def test_each_file_that_is_linked_exists() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (command.ROOT / link).exists()] == []


def test_each_make_target_exists() -> None:
    makefile = (command.ROOT / "Makefile").read_text()
    targets = set(re.findall(r"make ([a-z-]+)", README))
    assert {"demo", "test", "help"} <= targets
    assert [target for target in targets if not re.search(rf"^{target}:", makefile, re.MULTILINE)] == []


def project(folder: Path, *files: str) -> None:
    """A copy of the project, with files that the README shows."""
    for part in ("sqakd", "conf", "tests"):
        shutil.copytree(command.ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("train.py", "pyproject.toml"):
        shutil.copy(command.ROOT / name, folder)
    for path in files:
        after = README.split(f"`{path}`:", 1)[1]
        found = re.match(rf"\s*```{'python' if path.endswith('.py') else 'yaml'}\n(.*?)```", after, re.DOTALL)
        assert found, path
        (folder / path).write_text(found[1])


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(folder)}
    return subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_a_quantizer_in_two_files(tmp_path: Path) -> None:
    """It trains, and the contract tests cover it unedited."""
    project(tmp_path, "sqakd/quantizers/maxabs.py", "conf/quantizer/maxabs.yaml")
    trained = run(tmp_path, "train.py", "quantizer=maxabs", "bits=4", *command.SMALL)
    assert trained.returncode == 0, trained.stderr
    record = json.loads((tmp_path / "runs/digits-resnet20-maxabs-w4a4-sqakd/seed0/record.json").read_text())
    assert record["scores"]["agreement"]["last"] > 0.5
    contract = run(tmp_path, "-m", "pytest", "-q", "-k", "maxabs", "tests/test_quantizer_contract.py")
    assert contract.returncode == 0, contract.stdout
    assert re.search(r"[1-9]\d* passed", contract.stdout), contract.stdout


def test_a_loss_in_two_files(tmp_path: Path) -> None:
    project(tmp_path, "sqakd/kd/cosine.py", "conf/kd/cosine.yaml")
    trained = run(tmp_path, "train.py", "kd=cosine", "dataset.limit=200", *command.SMALL)
    assert trained.returncode == 0, trained.stderr
    record = json.loads((tmp_path / "runs/digits-resnet20-ewgs-w2a2-cosine/seed0/record.json").read_text())
    assert not record["labels_used"]
    contract = run(tmp_path, "-m", "pytest", "-q", "-k", "cosine", "tests/kd/test_feature_contract.py")
    assert contract.returncode == 0, contract.stdout
    assert re.search(r"[1-9]\d* passed", contract.stdout), contract.stdout

"""Tests of the advice: every topic that the library names has one, and none is left over."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import command
import pytest

from sqakd.advice import ADVICE, explain
from sqakd.app.console import say
from sqakd.errors import SqakdError

LIBRARY = [file for file in (command.ROOT / "sqakd").rglob("*.py") if "app" not in file.relative_to(command.ROOT).parts]


def topics(file: Path) -> dict[str, set[str]]:
    """Topics that a file's errors name, each with its facts."""
    found: dict[str, set[str]] = {}
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            words = {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg}
            topic = words.pop("topic", None)
            if isinstance(topic, ast.Constant) and isinstance(topic.value, str):
                found.setdefault(topic.value, set()).update(words)
    return found


def test_every_topic_has_advice_and_every_advice_a_topic() -> None:
    named = {topic for file in LIBRARY for topic in topics(file)}
    assert named == set(ADVICE)


def test_every_gap_in_the_advice_is_filled() -> None:
    for file in LIBRARY:
        for topic, facts in topics(file).items():
            gaps = set(re.findall(r"{(\w+)[:}]", ADVICE[topic]))
            assert gaps <= facts, f"{file.name}: {topic}"


def test_an_error_without_a_topic_keeps_its_message() -> None:
    assert explain(SqakdError("bits=9: expected 1 to 8")) == "bits=9: expected 1 to 8"
    assert explain(RuntimeError("other")) == "other"


def test_an_unknown_topic_is_a_mistake_in_the_code() -> None:
    with pytest.raises(KeyError):
        explain(SqakdError("message", topic="no such topic"))


def test_names_in_messages_cannot_control_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    name = "a\x1b[2J\nerror: b\udcff"
    shown = "a\\x1b[2J\\nerror: b\\udcff"
    assert explain(SqakdError(f"no {name}")) == f"no {shown}"
    assert explain(SqakdError(f"no {name}", topic="report.no_run")).startswith(f"no {shown}; use ")
    assert explain(FileNotFoundError(name)) == shown
    say(f"run {name}")
    assert capsys.readouterr().out == f"run {shown}\n"


def test_every_installation_that_is_named_works_in_a_checkout() -> None:
    """The package is not published, so an extra is installed from the checkout; it must exist."""
    extras = tomllib.loads((command.ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    folders = [command.ROOT / name for name in ("sqakd", "hydra_plugins", "conf", "docs", "benchmarks")]
    files = [
        file for folder in folders for file in folder.rglob("*") if file.suffix in (".py", ".md", ".yaml", ".ipynb")
    ]
    text = "\n".join(file.read_text(encoding="utf-8") for file in [*files, *command.ROOT.glob("*.md")])
    named = re.findall(r"""pip install -e '\.\[([a-z,]+)\]'|-e '\.\[([a-z,]+)\]'|install\(["'](\w+)["']\)""", text)
    found = {extra for groups in named for extra in "".join(groups).split(",")}
    assert {"export", "timm", "ray", "slurm", "dashboard", "optuna", "openvino"} <= found <= extras.keys()
    assert "sqakd[" not in text

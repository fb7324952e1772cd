"""Tests of the advice: every topic that the library names has one, and none is left over."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import command
import pytest

from sqakd.advice import ADVICE, errors_in_one_line, explain
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


def test_a_command_exits_with_message_and_advice() -> None:
    with (
        pytest.raises(SystemExit, match=r"^error: no finished run; use --runs FOLDER for another folder of runs$"),
        errors_in_one_line(),
    ):
        raise SqakdError("no finished run", topic="report.no_run")


def test_a_command_exits_with_the_message_of_the_operating_system() -> None:
    with pytest.raises(SystemExit, match=r"^error: disk full$"), errors_in_one_line():
        raise OSError("disk full")


def test_a_mistake_in_the_code_keeps_its_traceback() -> None:
    with pytest.raises(ValueError, match="mistake"), errors_in_one_line():
        raise ValueError("mistake")


def test_ctrl_c_is_one_line_with_the_status_of_a_shell(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, errors_in_one_line():
        raise KeyboardInterrupt
    assert ended.value.code == 130
    assert capsys.readouterr().err == "stopped by Ctrl-C; the same command starts again\n"

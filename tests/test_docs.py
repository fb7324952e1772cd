"""What the documentation says to type works as typed, and what it points at is there.

Every command on every page is checked: sentences compose and their parts can be made, options are known to the program
they are given to, targets and extras exist. A line that is none of these fails, so that nothing is unchecked.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import re
import sys
import tomllib
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import command
import pages
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException
from hydra.utils import instantiate
from omegaconf import OmegaConf

from sqakd.app.checks import check_bits
from sqakd.app.compose import compose_spec

CONF = command.ROOT / "conf"
EXTRAS = tomllib.loads((command.ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
TARGETS = set(re.findall(r"^([a-z-]+):", (command.ROOT / "Makefile").read_text(), re.MULTILINE))
EXPORT_KEYS = set(OmegaConf.load(CONF / "export.yaml"))
# Typed once, before anything of ours runs.
ALLOWED = {"git clone https://github.com/sqakd/sqakd", "cd sqakd", ". .venv/bin/activate"}
# Whose choices a reader can find on some page.
GROUPS = ("quantizer", "quantizer/rounding", "model", "kd", "plus", "dataset", "logger", "trainer", "table", "hparams")
# What a word needs beside it to mean something.
NEEDS = {
    "dataset.folder": "dataset=imagefolder",
    "dataset.unreadable": "dataset=imagefolder",
    "dataset.download": "dataset=cifar10",
    "dataset.root": "dataset=cifar10",
    "hydra.launcher.n_jobs": "hydra/launcher=joblib",
    "model.weights": "model=torchvision",
}
# Of Hydra's own; each takes so many words after it.
FLAGS = {"-m": 0, "--help": 0, "--cfg": 1, "--package": 1}

ALL = [(page, line) for page in pages.PAGES for line in page.commands]
LINES = sorted({line for _, line in ALL})
SENTENCES = sorted({span for page in pages.PAGES for span in page.sentences})


# sentences


def overrides(words: list[str]) -> list[Override]:
    parsed: list[Override] = OverridesParser.create().parse_overrides(words)
    return parsed


def settings(words: list[str]) -> tuple[list[str], list[list[str]]]:
    """Flags, and sentences that have every value of every word once."""
    flags, rest = [], list(words)
    for flag in [word for word in words if word.startswith("-")]:
        assert flag in FLAGS, f"Hydra has no {flag}"
        place = rest.index(flag)
        flags.append(flag)
        del rest[place : place + 1 + FLAGS[flag]]
    values = [
        [f"{word.get_key_element()}={value}" for value in word.sweep_string_iterator()]
        if word.is_sweep_override()
        else [word.input_line or ""]
        for word in overrides(rest)
    ]
    longest = max([1, *map(len, values)])
    return flags, [[own[min(i, len(own) - 1)] for own in values] for i in range(longest)]


@cache
def check_sentence(*words: str) -> None:
    """It composes; its objects can be made as far as that needs no data."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        spec = compose_spec(list(words), complete=False)
    config = spec.config
    missing = "???"
    for part in ("dataset", "kd", "recipe", "callbacks", "quantizer", "plus"):
        if config.get(part) and missing not in str(config[part]):
            made = instantiate(config[part])
            if part == "quantizer":
                check_bits(spec, made)
    with torch.device("meta"):
        instantiate(
            config["model"]["net"], num_classes=10, **({"weights": None} if "weights" in config["model"] else {})
        )


def sweeps_by_itself(words: list[str]) -> bool:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return bool(compose("train", words, return_hydra_config=True).hydra.mode == "MULTIRUN")


def check_train(words: list[str]) -> None:
    flags, sentences = settings(words)
    for sentence in sentences:
        check_sentence(*sentence)
    if len(sentences) > 1 and "-m" not in flags:
        assert sweeps_by_itself(sentences[0]), "several values need -m"


def check_export(words: list[str]) -> None:
    from sqakd.export.options import Options, Timing

    with initialize_config_dir(str(CONF), version_base="1.3"):
        config: Any = OmegaConf.to_container(compose("export", words))
    assert config["run"] != "???", "export.py needs run="
    keys = Options.__dataclass_fields__.keys()
    Options(**{key: config[key] for key in keys} | {"benchmark": Timing(**config["benchmark"])})


# programs


class Accepted(Exception):  # noqa: N818  # it is no error
    """The end of a program that has understood its words."""


def check_program(module: ModuleType, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own parser takes the words; nothing is run."""
    parse_args = argparse.ArgumentParser.parse_args

    def accept(parser: argparse.ArgumentParser, arguments: list[str] | None = None, namespace: Any = None) -> None:
        parse_args(parser, arguments, namespace)
        raise Accepted

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", accept)
    monkeypatch.setattr(sys, "argv", [str(module.__file__), *words])
    with pytest.raises(Accepted):
        module.main()


def module_named(name: str) -> ModuleType:
    found = importlib.util.find_spec(name)
    assert found is not None, f"there is no {name}"
    return importlib.import_module(f"{name}.__main__" if found.submodule_search_locations is not None else name)


def module_of(script: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(script.parent))  # they import one another
    return importlib.import_module(script.stem)


def check_line(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    match pages.words_of(line):
        case ["python", "train.py", *words]:
            check_train(words)
        case ["python", "export.py", *words]:
            check_export(words)
        case ["python", "-m", str(name), *words] if name.startswith("sqakd."):
            check_program(module_named(name), words, monkeypatch)
        case ["python", str(script), *words] if script.startswith("benchmarks/"):
            check_program(module_of(command.ROOT / script, monkeypatch), words, monkeypatch)
        case ["make", *targets]:
            assert targets
            assert set(targets) <= TARGETS
        case ["pip", "install", "-e", str(what)]:
            extras = re.fullmatch(r"\.\[([a-z,]+)\]", what)
            assert extras
            assert set(extras[1].split(",")) <= EXTRAS.keys()
        case _:
            assert line in ALLOWED, "nobody checks this; use ```text for what is not typed"


# tests


def test_there_is_something_to_check() -> None:
    assert len(pages.PAGES) > 8
    assert len([line for line in LINES if line.startswith("python train.py")]) > 30
    assert any(line.startswith("python export.py") for line in LINES)
    assert any("benchmarks/" in line for line in LINES)
    assert len(SENTENCES) > 40


@pytest.mark.parametrize("page", pages.PAGES, ids=str)
def test_blocks_are_of_a_known_kind(page: pages.Page) -> None:
    assert {language for language, _ in page.blocks} <= pages.COMMANDS | pages.OTHERS
    assert page.text.count("\n```") == 2 * len(page.blocks)


@pytest.mark.parametrize("line", [line for line in LINES if not pages.made_elsewhere(line)])
def test_each_command(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check_line(line, monkeypatch)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("python train.py bit=2", ConfigCompositionException),
        ("python train.py bits=9", ValueError),
        ("python train.py bits=1,2", AssertionError),
        ("python export.py run=runs/any profile=int9", ValueError),
        ("python -m sqakd.report --rums x", SystemExit),
        ("make coffee", AssertionError),
        ("ls", AssertionError),
    ],
)
def test_a_wrong_command_is_found(line: str, error: type[BaseException], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(error):
        check_line(line, monkeypatch)


@pytest.mark.parametrize("span", [span for span in SENTENCES if not pages.made_elsewhere(span)])
def test_each_word_that_is_mentioned(span: str) -> None:
    words = span.split()
    keys = [word.partition("=")[0].lstrip("+~") for word in words]
    group, _, choice = span.partition("=")
    if (CONF / group).is_dir() and choice.isidentifier():  # that each of these composes is tested elsewhere
        assert (CONF / group / f"{choice}.yaml").is_file()
        return
    if {key.split(".")[0] for key in keys} <= EXPORT_KEYS:
        check_export([*words, *([] if "run" in keys else ["run=runs/any"])])
        return
    needs = [NEEDS[key] for key in keys if key in NEEDS and NEEDS[key].partition("=")[0] not in keys]
    for sentence in settings([*needs, *words])[1]:
        check_sentence(*sentence)


def test_each_choice_in_a_table_exists() -> None:
    wrong, checked = [], 0
    for page in pages.PAGES:
        for first, *rest in page.rows:
            word = re.fullmatch(r"`([a-z/]+)=`", first)
            if word and (CONF / word[1]).is_dir() and rest:
                options = {file.stem for file in (CONF / word[1]).glob("*.yaml")}
                named = re.findall(r"`([a-z0-9_]+)`", rest[0])
                checked += len(named)
                wrong += [f"{page}: {word[1]}={name}" for name in named if name not in options]
    assert checked > 50
    assert wrong == []


@pytest.mark.parametrize("group", GROUPS)
def test_each_choice_is_documented(group: str) -> None:
    named = {name for page in pages.PAGES for span in page.spans for name in re.split(r"[^a-z0-9_]+", span)}
    assert {file.stem for file in (CONF / group).glob("*.yaml")} - named == set()


@pytest.mark.parametrize("page", pages.PAGES, ids=str)
def test_each_link_leads_somewhere(page: pages.Page) -> None:
    for link in page.links:
        path, _, anchor = link.partition("#")
        target = (page.path.parent / path).resolve() if path else page.path
        assert target.exists(), link
        if anchor:
            assert anchor in pages.Page(target).anchors, link


def test_each_page_is_in_the_index() -> None:
    index = pages.Page(command.ROOT / "docs" / "README.md")
    assert {page.path.name for page in pages.PAGES if page.path.parent == index.path.parent} - {*index.links} == {
        "README.md"
    }


def test_each_file_that_is_named_exists() -> None:
    folders = r"(?:conf|sqakd|tests|docs|benchmarks|results)/[\w/.-]+"
    named = {span for page in pages.PAGES for span in page.spans if re.fullmatch(folders, span)}
    own = {"conf/local/default.yaml", "results/report.html", *pages.FILES}  # made by the reader
    assert len(named) > 10
    assert {name for name in named - own if not (command.ROOT / name).exists()} == set()


def test_the_readers_own_settings_are_taken(tmp_path: Path) -> None:
    text = (command.ROOT / "docs" / "options.md").read_text(encoding="utf-8")
    block = re.search(r"`conf/local/default.yaml`.*?```yaml\n(.*?)```", text, re.DOTALL)
    assert block
    (tmp_path / "conf").mkdir()
    for path in CONF.iterdir():
        if path.name != "local":
            (tmp_path / "conf" / path.name).symlink_to(path)
    (tmp_path / "conf" / "local").mkdir()
    (tmp_path / "conf" / "local" / "default.yaml").write_text(block[1])
    with initialize_config_dir(str(tmp_path / "conf"), version_base="1.3"):
        config = compose_spec([]).config
    assert config["paths"]["data"] == "/scratch/data"
    assert config["dataset"]["_target_"].endswith("Digits")
    assert (config["trainer"]["compile"], config["trainer"]["precision"]) == (True, "bf16-mixed")


def test_the_readme_is_short() -> None:
    assert len((command.ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 150

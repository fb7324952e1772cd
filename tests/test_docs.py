"""Tests of the documentation: its commands work, and its links, files and names exist.

Every command on every page is checked. The overrides of train.py and export.py must compose, and their objects must be
creatable. Other programs must accept their arguments; targets of make and extras of pip must exist. A command of any
other kind fails, so that none remains unchecked.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.util
import json
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
from sqakd.app.command import as_typed
from sqakd.app.compose import compose_spec
from sqakd.app.sensitivity_command import Keys
from sqakd.app.signatures import check_values

CONF = command.ROOT / "conf"
EXTRAS = tomllib.loads((command.ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
TARGETS = set(re.findall(r"^([a-z-]+):", (command.ROOT / "Makefile").read_text(), re.MULTILINE))
EXPORT_KEYS = set(OmegaConf.load(CONF / "export.yaml"))
# Commands of other programs.
ALLOWED = {
    ". .venv/bin/activate",
    "pip install pre-commit",
    "pre-commit install",
    "pip install emx-onnx-cgen",
    # tests/export/test_c_code.py runs these two.
    "emx-onnx-cgen compile --model-name net --input-dim batch=1 --large-weight-threshold 0   "
    " runs/digits-resnet20-ewgs-w2a2-sqakd/seed0/export-exact/model.onnx net.c",
    "cc -O2 -std=c99 -c net.c",
}
# Groups whose options must all be named on some page.
GROUPS = ("quantizer", "quantizer/rounding", "model", "kd", "plus", "dataset", "logger", "trainer", "table", "hparams")
# Overrides that are valid only together with another override.
NEEDS = {
    "quantizer.outer": "quantizer=pact_released",
    "dataset.folder": "dataset=imagefolder",
    "dataset.unreadable": "dataset=imagefolder",
    "dataset.classes": "dataset=imagefolder",
    "dataset.image_size": "dataset=imagefolder",
    "dataset.resize": "dataset=imagefolder",
    "dataset.val_fraction": "dataset=imagefolder",
    "dataset.download": "dataset=cifar10",
    "dataset.root": "dataset=cifar10",
    "hydra.launcher.n_jobs": "hydra/launcher=joblib",
    "model.weights": "model=torchvision",
    "budget.size": "bits=auto",
    "budget.bit_operations": "bits=auto",
    "budget.average_bits": "bits=auto",
    "bits=auto": "budget.size=80kB",
}
# Hydra's own flags, and how many arguments follow each.
FLAGS = {"-m": 0, "--help": 0, "--cfg": 1, "--package": 1}

ALL = [(page, line) for page in pages.PAGES for line in page.commands]
LINES = sorted({line for _, line in ALL})
OVERRIDES = sorted({span for page in pages.PAGES for span in page.overrides})


# overrides


def parse_overrides(arguments: list[str]) -> list[Override]:
    parsed: list[Override] = OverridesParser.create().parse_overrides(arguments)
    return parsed


def flags_and_runs(arguments: list[str]) -> tuple[list[str], list[list[str]]]:
    """Split arguments into flags and overrides.

    Returns:
        The flags; and as many lists of overrides as it takes to use each value of each sweep once.
    """
    flags, rest = [], list(arguments)
    for flag in [argument for argument in arguments if argument.startswith("-")]:
        assert flag in FLAGS, f"Hydra has no {flag}"
        place = rest.index(flag)
        flags.append(flag)
        del rest[place : place + 1 + FLAGS[flag]]
    values = [
        [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
        if override.is_sweep_override()
        else [override.input_line or ""]
        for override in parse_overrides(rest)
    ]
    longest = max([1, *map(len, values)])
    return flags, [[own[min(i, len(own) - 1)] for own in values] for i in range(longest)]


@cache
def construct(net: str) -> None:
    """Construct the network of a node, given as JSON."""
    with torch.device("meta"):
        instantiate(json.loads(net))


@cache
def check_run(*overrides: str) -> None:
    """Compose the overrides, and create all objects that need no data."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        spec = compose_spec(list(overrides), complete=False)
    config = spec.config
    missing = "???"
    for part in ("dataset", "kd", "recipe", "callbacks", "quantizer", "plus"):
        if config.get(part) and missing not in str(config[part]):
            made = instantiate(config[part])
            if part == "quantizer":
                check_bits(spec, made)
    without_download = {"weights": None} if "weights" in config["model"] else {}
    construct(json.dumps(config["model"]["net"] | {"num_classes": 10} | without_download))


def is_multirun(overrides: list[str]) -> bool:
    """Return whether the configuration itself asks for a multirun."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return bool(compose("train", overrides, return_hydra_config=True).hydra.mode == "MULTIRUN")


def check_train(arguments: list[str]) -> None:
    flags, runs = flags_and_runs(arguments)
    for run in runs:
        check_run(*run)
    if len(runs) > 1 and "-m" not in flags:
        assert is_multirun(runs[0]), "several values need -m"


def check_export(overrides: list[str]) -> None:
    from sqakd.export.options import Options, Timing

    with initialize_config_dir(str(CONF), version_base="1.3"):
        config: Any = OmegaConf.to_container(compose("export", overrides))
    assert config["run"] != "???", "export.py needs run="
    keys = Options.__dataclass_fields__.keys()
    Options(**{key: config[key] for key in keys} | {"benchmark": Timing(**config["benchmark"])})


def check_sensitivity(overrides: list[str]) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config: Any = OmegaConf.to_container(compose("sensitivity", overrides))
    check_values({key: value for key, value in config.items() if key != "paths"}, Keys)


# programs


class Accepted(Exception):  # noqa: N818  # this signal is not an error
    """Raised when a program has accepted its arguments, so that nothing is run."""


def check_program(module: ModuleType, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Check that a program's own parser accepts the arguments."""
    parse_args = argparse.ArgumentParser.parse_args

    def accept(parser: argparse.ArgumentParser, arguments: list[str] | None = None, namespace: Any = None) -> None:
        parse_args(parser, arguments, namespace)
        raise Accepted

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", accept)
    monkeypatch.setattr(sys, "argv", [str(module.__file__), *arguments])
    with pytest.raises(Accepted):
        module.main()


def module_named(name: str) -> ModuleType:
    found = importlib.util.find_spec(name)
    assert found is not None, f"there is no {name}"
    return importlib.import_module(f"{name}.__main__" if found.submodule_search_locations is not None else name)


def module_of(script: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(script.parent))  # the scripts of a folder import one another
    return importlib.import_module(script.stem)


def check_line(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    match pages.split_command(line):
        case ["python", "train.py", *arguments]:
            check_train(arguments)
        case ["python", "export.py", *arguments]:
            check_export(arguments)
        case ["python", "-m", "sqakd.sensitivity", *arguments]:
            check_sensitivity(arguments)
        case ["python", "-m", str(name), *arguments] if name.startswith(("sqakd.", "tests.")):
            check_program(module_named(name), arguments, monkeypatch)
        case ["python", str(script), *arguments] if script.startswith(("benchmarks/", "examples/", "tests/")):
            check_program(module_of(command.ROOT / script, monkeypatch), arguments, monkeypatch)
        case ["make", *targets]:
            assert targets
            assert set(targets) <= TARGETS
        case ["pip", "install", "-e", str(package)]:
            extras = re.fullmatch(r"\.\[([a-z,]+)\]", package)
            assert extras
            assert set(extras[1].split(",")) <= EXTRAS.keys()
        case _:
            assert line in ALLOWED, "no test checks this command; use ```text for a block that is not typed"


# tests


def test_pages_have_commands_of_each_kind() -> None:
    assert len(pages.PAGES) > 8
    assert len([line for line in LINES if line.startswith("python train.py")]) > 30
    assert any(line.startswith("python export.py") for line in LINES)
    assert any("benchmarks/" in line for line in LINES)
    assert len(OVERRIDES) > 40


@pytest.mark.parametrize("page", pages.PAGES, ids=str)
def test_blocks_have_a_known_language(page: pages.Page) -> None:
    assert {language for language, _ in page.blocks} <= pages.COMMANDS | pages.OTHERS
    assert len(re.findall(r"^ *```", page.text, re.MULTILINE)) == 2 * len(page.blocks)


@pytest.mark.parametrize("line", [line for line in LINES if not pages.uses_example_part(line)])
def test_command_is_valid(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_invalid_command_is_detected(line: str, error: type[BaseException], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(error):
        check_line(line, monkeypatch)


@pytest.mark.parametrize("span", [span for span in OVERRIDES if not pages.uses_example_part(span)])
def test_override_is_valid(span: str) -> None:
    overrides = [as_typed(override) for override in span.split()]
    keys = [override.partition("=")[0].lstrip("+~") for override in overrides]
    group, _, option = span.partition("=")
    if (CONF / group).is_dir() and option.isidentifier():  # test_configs.py composes each option
        assert (CONF / group / f"{option}.yaml").is_file()
        return
    if {key.split(".")[0] for key in keys} <= EXPORT_KEYS:
        needs = [] if "run" in keys else ["run=runs/any"]
        check_export([*overrides, *needs, *(["format=qonnx"] if keys == ["thresholds"] else [])])
        return
    needs = [NEEDS[key] for key in (*keys, *overrides) if key in NEEDS and NEEDS[key].partition("=")[0] not in keys]
    for run in flags_and_runs([*needs, *overrides])[1]:
        check_run(*run)


def test_options_named_in_tables_exist() -> None:
    wrong, checked = [], 0
    for page in pages.PAGES:
        for first, *rest in page.rows:
            group = re.fullmatch(r"`([a-z/]+)=`", first)
            if group and (CONF / group[1]).is_dir() and rest:
                options = {file.stem for file in (CONF / group[1]).glob("*.yaml")}
                named = re.findall(r"`([a-z0-9_]+)`", rest[0])
                checked += len(named)
                wrong += [f"{page}: {group[1]}={name}" for name in named if name not in options]
    assert checked > 50
    assert wrong == []


@pytest.mark.parametrize("group", GROUPS)
def test_every_option_is_documented(group: str) -> None:
    named = {name for page in pages.PAGES for span in page.spans for name in re.split(r"[^a-z0-9_]+", span)}
    assert {file.stem for file in (CONF / group).glob("*.yaml")} - named == set()


@pytest.mark.parametrize("page", pages.PAGES, ids=str)
def test_links_have_a_target(page: pages.Page) -> None:
    for link in page.links:
        path, _, anchor = link.partition("#")
        target = (page.path.parent / path).resolve() if path else page.path
        assert target.exists(), link
        if anchor:
            assert anchor in pages.Page(target).anchors, link


def test_index_links_every_page() -> None:
    index = pages.Page(command.ROOT / "docs" / "README.md")
    assert {page.path.name for page in pages.PAGES if page.path.parent == index.path.parent} - {*index.links} == {
        "README.md"
    }


def test_named_files_exist() -> None:
    folders = r"(?:conf|sqakd|tests|docs|benchmarks|results)/[\w/.-]+"
    named = {span for page in pages.PAGES for span in page.spans if re.fullmatch(folders, span)}
    own = {
        "conf/local/default.yaml",
        "conf/model/mine.yaml",
        "conf/quantizer/mine.yaml",
        "results/report.html",
        *pages.FILES,
    }  # the reader creates these
    assert len(named) > 10
    assert {name for name in named - own if not (command.ROOT / name).exists()} == set()


def test_documented_local_settings_take_effect(tmp_path: Path) -> None:
    text = "\n".join(page.text for page in pages.PAGES)
    block = re.search(r"`conf/local/default.yaml`[^\n]*\n+```yaml\n(.*?)```", text, re.DOTALL)
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
    assert config["trainer"]["precision"] == "bf16-mixed"


def test_readme_is_short() -> None:
    assert len((command.ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 130


def defined_names(file: Path) -> set[str]:
    """Return the names of a Python file's functions, classes and their methods, as CLASS.METHOD."""
    body = ast.parse(file.read_text(encoding="utf-8")).body
    found = {node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    classes = [node for node in body if isinstance(node, ast.ClassDef)]
    inner = ((c.name, node) for c in classes for node in c.body)
    return found | {f"{name}.{node.name}" for name, node in inner if isinstance(node, ast.FunctionDef)}


def test_architecture_page_names_existing_functions() -> None:
    rows = [row for row in pages.Page(command.ROOT / "docs" / "architecture.md").rows if len(row) == 3]
    checked = 0
    for _, files, names in rows:
        sources = [command.ROOT / name for name in pages.SPAN.findall(files) if name.endswith(".py")]
        defined = set().union(*map(defined_names, sources))
        named = pages.SPAN.findall(names) if sources else []
        checked += len(named)
        assert set(named) <= defined, f"not defined in {files}: {sorted(set(named) - defined)}"
    assert checked > 30


def test_pre_commit_runs_the_commands_of_make_check() -> None:
    makefile = (command.ROOT / "Makefile").read_text(encoding="utf-8")
    recipe = re.search(r"^check:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    assert recipe
    config: Any = OmegaConf.to_container(OmegaConf.load(command.ROOT / ".pre-commit-config.yaml"))
    entries = [hook["entry"] for repository in config["repos"] for hook in repository["hooks"]]
    assert entries == [line.strip().removeprefix("$(BIN)/") for line in recipe[1].splitlines()]

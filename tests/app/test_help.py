"""--help of both commands: short, and made of the configuration files."""

from __future__ import annotations

from pathlib import Path

import command
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from sqakd.app.help import GROUPS, WIDTH, help_text
from sqakd.shipped import conf_folder
from sqakd.terminal import PROGRAM

SCREEN = 24  # lines


@pytest.mark.parametrize("name", ["train", "export"])
def test_the_command_prints_its_help(name: str, tmp_path: Path) -> None:
    done = command.script(f"{name}.py", "--help", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == help_text(name).strip()
    assert len(done.stdout.splitlines()) <= SCREEN


def test_the_groups_of_the_help_exist_and_fit_a_line() -> None:
    lines = help_text("train").splitlines()
    assert max(map(len, lines)) <= WIDTH
    for group in GROUPS:
        (line,) = (line for line in lines if line.startswith(f"{group}="))
        first = line.partition(": ")[2].split(", ")[0]
        assert (conf_folder() / group / f"{first}.yaml").is_file()
    assert {"quantizer", "model", "dataset", "kd", "plus", "recipe", "table"} <= GROUPS.keys()


def test_the_examples_of_the_help_compose() -> None:
    examples = [line.split()[2:] for line in help_text("train").splitlines() if line.startswith("  python train.py")]
    assert len(examples) == 3
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        for words in examples:
            overrides = [word for word in words if "=" in word]
            assert overrides
            for override in OverridesParser.create().parse_overrides(overrides):
                values = list(override.sweep_string_iterator()) if override.is_sweep_override() else [override.value()]
                compose("train", [f"{override.key_or_group}={values[0]}"])


@pytest.mark.parametrize("name", ["export", "sensitivity"])
def test_the_help_of_an_application_lists_its_own_keys_alone(name: str) -> None:
    keys = set(OmegaConf.load(conf_folder() / f"{name}.yaml")) - {"defaults"}
    listed = {line.strip().partition(":")[0] for line in help_text(name).splitlines() if line[2:3].isalpha()}
    assert {str(key) for key in keys} <= listed
    assert not any(group in help_text(name) for group in ("model=", "quantizer=", "dataset="))


def test_an_installed_command_names_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PROGRAM, "sqakd-train")
    assert help_text("train").startswith("sqakd-train [GROUP=OPTION ...]")
    assert "python" not in help_text("train")

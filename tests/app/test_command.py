"""The command line around Hydra: paths as typed, and refusals in one line."""

from __future__ import annotations

import random
import shlex
from pathlib import Path

import command
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from sqakd.app.command import as_typed
from sqakd.app.quoting import parsed, quoted
from sqakd.app.suggestions import LONGEST_LIST

CHARACTERS = "abz/ =~()[]{}'\"\\#%&*?!;:|<>+-_.@é日\t"


def test_any_path_is_read_as_it_was_typed() -> None:
    generator = random.Random(0)
    for _ in range(300):
        path = "/data/" + "".join(generator.choices(CHARACTERS, k=generator.randint(1, 6))) + "x"
        try:
            plain = OverridesParser.create().parse_override(f"dataset.folder={path}").value()
        except HydraException:
            plain = None
        # Hydra gives some text another meaning, e.g. comments and escapes. Such text has to be quoted by the user.
        expected = path if plain is None else plain
        assert OverridesParser.create().parse_override(as_typed(f"dataset.folder={path}")).value() == expected


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("dataset.classes=[zebra,Apple,möwe]", ["zebra", "Apple", "möwe"]),
        ("dataset.classes=[ zebra, l'âne, 'a, b', 3]", ["zebra", "l'âne", "a, b", 3]),
        ("layers=[[möwe,a],b]", [["möwe", "a"], "b"]),
        ("plus.x={names: [möwe, b], y: ö}", {"names": ["möwe", "b"], "y": "ö"}),
        ("name=möwe", "möwe"),
        ("name=[möwe", "[möwe"),
        ('name=ö"\\', 'ö"\\'),
    ],
)
def test_the_advised_quotes_give_the_text_that_hydra_could_not_read(argument: str, value: object) -> None:
    assert parsed(argument) is None
    (typed,) = shlex.split(quoted(argument))
    assert OverridesParser.create().parse_override(typed).value() == value


@pytest.mark.parametrize("argument", ["bits=1,2", "paths.runs=a,b", "folder=null", "kd=at", "x", "run='a b'", "-m"])
def test_what_hydra_understands_stays(argument: str) -> None:
    assert as_typed(argument) == argument


@pytest.mark.parametrize("key", ["paths.runs", "dataset.folder", "+teacher.checkpoint", "run"])
def test_the_home_folder_is_expanded(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert as_typed(f"{key}=~/images") == f"{key}=/home/somebody/images"
    assert as_typed(f"{key}=~") == f"{key}=/home/somebody"
    assert as_typed(f"{key}=~nobody-of-this-name/x") == f"{key}='~nobody-of-this-name/x'"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bit=2"], "bit=2: no such key; did you mean bits?"),
        (["recipe=null"], "recipe=null: expected cifar10, "),
        (["quantizer=1"], "quantizer=1: expected dorefa, "),
        (["kd=recon"], "kd=recon: no such option; expected at, cc, "),
        (["plus=[emma]"], "plus=emma: no such option; did you mean ema? expected "),
        (["plus=[ema,bn,ema]"], "plus=[ema,bn,ema]: ema is there twice; name each option once"),
        (["~kd"], "kd has no option, or several: expected one, e.g. kd=sqakd"),
        (["kd=[sqakd,sqakd]"], "kd has no option, or several: expected one, e.g. kd=sqakd"),
        (["bits"], "bits: expected KEY=VALUE"),
        (["model.net.blocks=(("], "model.net.blocks=((: Hydra cannot read this override; to give text, quote it: "),
        (["+dataset=digits"], "+dataset=digits: omit the plus sign"),
        (["experiment=null"], "experiment=null: expected best_w1a1 or best_w2a2"),
        (["paths.runs=''"], "paths.runs='': expected a path"),
        (["paths.runs=runs/${cell}", "seed=0,1", "-m"], "the folder of a sweep, which is paths.runs unless "),
        (["+trainer.max_steps=3"], "trainer.max_steps=3: expected no such key, because the recipe sets the length; "),
        (["+plus.x=1"], "plus.x=1: expected the values of an add-on; choose add-ons with plus=[NAME]"),
        (["--config-name=foo"], "Cannot find primary config 'foo'"),
        (["--resolve"], "The --resolve flag can only be used in conjunction with --cfg or --help"),
        (["seed=${nothing}"], "Interpolation key 'nothing' not found"),
        (["teacher.recipe.lr=-1"], "teacher.recipe.lr=-1: expected a number >= 0"),
        (["trainer.devices=99"], "trainer.devices=99: expected at most "),
        (["trainer.precision=64-true"], "trainer.precision=64-true: expected 32-true or bf16-mixed"),
        (["table=digits", "hparams=kd"], "table=digits hparams=kd: each chooses the runs of a sweep; use one of them"),
        (["trainer.accelerator=tpu"], "trainer: "),
        (["model.name=../x"], "model.name='../x': expected a part of a folder's name, e.g. resnet20"),
        (["model.name=[a]"], "model.name=['a']: expected a part of a folder's name, e.g. resnet20"),
        (["paths.runs=null"], "paths.runs=null: expected text"),
        (["paths.runs=[a]"], "paths.runs=['a']: expected text"),
        (["name=.hidden"], "name='.hidden': expected the name of a folder: printable, "),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_refused_command_prints_one_line_and_writes_nothing(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    done = command.train(*arguments, runs=tmp_path / "runs")
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {message}")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_no_group_is_too_long_for_a_message_that_lists_its_options() -> None:
    folders = [folder for folder in (command.ROOT / "conf").rglob("*") if folder.is_dir()]
    assert max(len(list(folder.glob("*.yaml"))) for folder in folders) <= LONGEST_LIST


@pytest.mark.parametrize(
    "arguments",
    [
        ["--cfg", "job"],
        ["--info", "searchpath"],
        ["-cn", "train", "--cfg", "hydra"],
        ["--package", "recipe", "--cfg", "job"],
        ["+_scratch=/x", "paths.data=${_scratch}/d", "plan=true"],
        ["+trainer.val_check_interval=1.0", "+trainer.max_epochs=null", "trainer.precision=null", "plan=true"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_flags_with_values_and_helper_keys_are_accepted(arguments: list[str], tmp_path: Path) -> None:
    done = command.train(*arguments, runs=tmp_path / "runs")
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_environment_brings_tracebacks_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    for wrong in ("bit=2", "recipe.lr=-1"):
        done = command.train(wrong, runs=tmp_path / "runs")
        assert done.returncode == 1
        assert "Traceback" in done.stderr

"""The plan of a sweep: the state of each run, and how long the rest will take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import command
import image_sets
import pytest
import yaml
from hydra import initialize_config_dir

from sqakd.app.compose import compose_spec
from sqakd.app.plan import Plan, measure
from sqakd.app.plan_data import Found, PlannedData
from sqakd.dataset.imagefolder import ImageFolder
from sqakd.runs.folder import RunFolder
from sqakd.runs.length import Length, length_of
from sqakd.runs.record import Record, write_record
from sqakd.runs.spec import Spec
from sqakd.terminal import duration
from sqakd.training.callbacks.bits_schedule import BitsSchedule

NAME = "digits-net-ewgs-w2a2-sqakd"
CONFIG: dict[str, Any] = {
    "name": NAME,
    "seed": 0,
    "dataset": {"_target_": "digits", "image_size": 32},
    "model": {"net": {"blocks": 3}},
    "teacher": {"net": {"blocks": 3}},
    "kd": {"kl": 1.0, "feature_loss": None},
    "quantizer": {"bits": 2, "outer": "float", "residual_bits": None},
    "recipe": {"epochs": 100, "batch_size": 64, "calibration_batches": 1},
    "trainer": {"precision": "32-true"},
}
OLD_RUN = command.ROOT / "tests/old_runs/version1/digits16-resnet20-ewgs-w2a2-sqakd/seed0/record.json"


def spec(runs: Path, **changes: Any) -> Spec:
    return Spec(CONFIG | {"paths": {"runs": str(runs)}} | changes, {}, ())


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Return an empty plan over a folder with one finished run of ten epochs in fifty seconds."""
    record = Record.from_dict(json.loads(OLD_RUN.read_text()) | {"epochs": 10, "training_seconds": 50.0})
    folder = RunFolder.of(tmp_path, NAME, 0)
    folder.path.mkdir(parents=True)
    folder.config.write_text(yaml.safe_dump(spec(tmp_path).config))
    write_record(folder.record, record)
    return Plan()


def line(plan: Plan, one: Spec, capsys: pytest.CaptureFixture[str], problem: str = "") -> str:
    plan.add(one, problem, False)
    return capsys.readouterr().out.rstrip("\n")


def test_the_plan_knows_how_long_from_finished_runs(
    plan: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert line(plan, spec(tmp_path), capsys) == f"done     {tmp_path / NAME / 'seed0'}"
    assert line(plan, spec(tmp_path), capsys) == "", "each run once"
    other_seed = line(plan, spec(tmp_path, seed=1), capsys)
    assert other_seed == f"train    {tmp_path / NAME / 'seed1'}  about {duration(500)}"
    smaller = spec(tmp_path, name="smaller", dataset=CONFIG["dataset"] | {"image_size": 16})
    assert line(plan, smaller, capsys) == f"train    {tmp_path / 'smaller' / 'seed0'}", "other work for each image"
    wrong = line(plan, spec(tmp_path, name="wrong"), capsys, problem="bits=9")
    assert wrong == f"refused  {tmp_path / 'wrong' / 'seed0'}  bits=9"
    assert (
        plan.total() == "4 runs: 1 done, 2 train, 1 refused; about 8 min on one device; 1 of unknown length"
        " (plan=measure trains a few steps of each)"
    )


@pytest.mark.parametrize(("loss", "whole", "left"), [("pretrain_share", 8, 3), ("pretrain_epochs", 12, 5)])
def test_a_stage_before_the_training_takes_time_once(
    loss: str, whole: int, left: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Eight epochs, of which a stage takes two; or a stage of four more. The finished run took ten seconds for each."""
    value = {"pretrain_share": 0.25, "pretrain_epochs": 4}[loss]
    changes = {"kd": {"feature_loss": {loss: value}}, "recipe": CONFIG["recipe"] | {"epochs": 8}}
    done = RunFolder.of(tmp_path, NAME, 0)
    done.path.mkdir(parents=True)
    done.config.write_text(yaml.safe_dump(spec(tmp_path, **changes).config))
    old = json.loads(OLD_RUN.read_text()) | {"epochs": 8, "training_seconds": 10.0 * whole}
    write_record(done.record, Record.from_dict(old))
    assert line(Plan(), spec(tmp_path, seed=1, **changes), capsys).endswith(f"about {duration(10 * whole)}")
    started = RunFolder.of(tmp_path, NAME, 2)
    started.path.mkdir(parents=True)
    started.config.write_text(yaml.safe_dump(spec(tmp_path, seed=2, **changes).config))
    started.metrics.write_text("epoch\n0\n1\n2\n")
    assert line(Plan(), spec(tmp_path, seed=2, **changes), capsys).endswith(f"about {duration(10 * left)}")


def test_an_interrupted_run_is_resumed(plan: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = RunFolder.of(tmp_path, NAME, 2)
    folder.checkpoint.parent.mkdir(parents=True)
    folder.checkpoint.touch()
    folder.config.write_text(yaml.safe_dump(spec(tmp_path, seed=2).config))
    folder.metrics.write_text("epoch\n" + "0\n" * 90)
    assert line(plan, spec(tmp_path, seed=2), capsys) == f"resume   {folder.path}  about {duration(50)}"


@pytest.mark.parametrize("content", ["{", "kd: [1]", "a: &a [*a]", "name: only"])
def test_a_damaged_configuration_stops_no_other_run(
    content: str, plan: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = RunFolder.of(tmp_path, "a-damaged", 0)
    other.path.mkdir(parents=True)
    write_record(other.record, Record.from_dict(json.loads(OLD_RUN.read_text())))
    other.config.write_text(content)
    plan.add(spec(tmp_path, seed=1), None, False)
    plan.add(spec(tmp_path, seed=2), None, False)
    printed = capsys.readouterr()
    assert printed.out.count(f"about {duration(500)}") == 2
    expected = 0 if content == "name: only" else 1  # a configuration of something else
    assert printed.err.count(str(other.config)) == expected


def test_a_run_with_a_damaged_record_is_refused(plan: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = RunFolder.of(tmp_path, NAME, 0).record
    record.write_text("{")
    assert line(plan, spec(tmp_path), capsys).startswith(f"refused  {record.parent}  {record} is not a record of a run")


def test_the_plan_says_once_which_data_are_missing(tmp_path: Path) -> None:
    done = command.train("plan=true", "dataset=cifar10,digits", "seed=0,1", "-m", runs=tmp_path / "runs")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines if line.startswith("no data")] == ["no data  dataset=cifar10"]
    assert sum(line.startswith("train ") for line in lines) == 6, "they are planned all the same"


def test_each_data_set_is_looked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    monkeypatch.setattr(ImageFolder, "require", lambda data: looked.append(str(data.folder)))
    monkeypatch.setattr(ImageFolder, "has_labels", lambda _: False)
    node = {"_target_": "sqakd.dataset.imagefolder.ImageFolder", **image_sets.arguments(tmp_path / "a")}
    data = PlannedData()
    for seed in range(3):
        assert data.look(spec(tmp_path, dataset=node | {"seed": seed})) == Found("", labelled=False)
    data.look(spec(tmp_path, dataset=node | {"folder": "b"}))
    assert looked == [str(tmp_path / "a"), "b"]


def test_a_student_of_unlabelled_images_without_a_teacher_is_refused(tmp_path: Path) -> None:
    for i in range(3):
        image_sets.save(tmp_path / "images" / f"{i}.png", i)
    words = ["plan=true", "dataset=imagefolder", f"dataset.folder={tmp_path / 'images'}"]
    done = command.train(*words, runs=tmp_path / "runs")
    assert done.returncode == 0, done.stderr
    assert "a teacher cannot be trained on images without labels; use teacher.checkpoint=FILE" in done.stdout
    assert "1 runs: 1 refused" in done.stdout


@pytest.mark.parametrize("epochs", ["many", "null", ".inf", "1"])
def test_a_run_of_no_possible_length_is_refused(epochs: str, tmp_path: Path) -> None:
    done = command.train("plan=true", "kd=reconstruction", f"recipe.epochs={epochs}", runs=tmp_path / "runs")
    assert done.returncode == 0, done.stderr
    assert f"recipe.epochs={epochs}: expected" in done.stdout
    assert "1 runs: 1 refused" in done.stdout


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["plus=progressive", "recipe.epochs=1"], "plus.progressive: 1 epochs are too few for a bits schedule"),
        (["plus=[progressive,two_step]"], "plus=progressive and plus=two_step both set the bits of each epoch"),
    ],
)
def test_a_plan_refuses_what_its_run_would_refuse(overrides: list[str], message: str, tmp_path: Path) -> None:
    done = command.train("plan=true", *overrides, runs=tmp_path / "runs")
    assert done.returncode == 0, done.stderr
    assert message in done.stdout
    assert "1 refused" in done.stdout


@pytest.mark.parametrize("sweep", [[], ["seed=0,1", "-m"]])
def test_an_unknown_value_of_plan_is_refused(sweep: list[str], tmp_path: Path) -> None:
    done = command.train("plan=mesure", *sweep, runs=tmp_path / "runs")
    assert done.returncode == 1
    assert "error: plan='mesure': expected true, measure or false" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("kd", ["reconstruction", "ft", "sqakd"])
def test_a_measurement_trains_two_epochs_without_a_stage(kd: str, monkeypatch: pytest.MonkeyPatch) -> None:
    train = Mock(return_value=Mock(images_per_second=100.0))
    monkeypatch.setattr("sqakd.app.plan.train", train)
    with initialize_config_dir(str(command.ROOT / "conf"), version_base="1.3"):
        seconds = measure(compose_spec(["dataset=digits16", f"kd={kd}", "recipe.epochs=400"]))
    assert seconds == 1437 / 100
    assert length_of(train.call_args.args[0].config) == Length(2, 0, 0)


def test_a_measurement_is_possible_whatever_the_length_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its four batches are too few to calibrate on eight, and its two epochs for every fifth and for a short stage."""
    train = Mock(return_value=Mock(images_per_second=100.0))
    monkeypatch.setattr("sqakd.app.plan.train", train)
    long = ["recipe.epochs=100", "recipe.calibration_batches=8", "+trainer.check_val_every_n_epoch=5"]
    long += ["plus=progressive", "plus.progressive.stages=[{share:0.1,w_bits:8,a_bits:8}]"]
    with initialize_config_dir(str(command.ROOT / "conf"), version_base="1.3"):
        measure(compose_spec(["dataset=digits16", *long]))
    config = train.call_args.args[0].config
    assert (config["recipe"]["calibration_batches"], config["trainer"]["check_val_every_n_epoch"]) == (1, 1)
    BitsSchedule(stages=config["plus"]["progressive"]["stages"]).check_epochs(config["recipe"]["epochs"])

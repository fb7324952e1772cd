"""The names under which a real run logs to Weights & Biases, read back from its offline file."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import command
import pytest
import small
import wandb
import wandb_file
from hydra import initialize_config_dir
from wandb_file import Logged

from sqakd.app.compose import changes, compose_spec
from sqakd.app.train import train
from sqakd.dashboard import definition
from sqakd.dashboard.definition import CONFIG, KEYS
from sqakd.quantization.layers import quant_layers
from sqakd.runs import paper
from sqakd.runs.names import GROUP_KEYS, METRICS, group_values, listed_name, pattern
from sqakd.training.callbacks.quantizer_statistics import means, named, statistics

STUDENT, TEACHER = "digits16-resnet20-ewgs-w2a2-sqakd", "digits16-resnet20-none-w32a32-none"
WORDS = ["dataset=digits16", "bits=2", "model.net.blocks=1", "logger=wandb", "trainer.accelerator=cpu"]
PAPER = """\
table,dataset,model,quantizer,bits,kd,top1,top5,source,reference
table4,digits16,resnet20,ewgs,2,sqakd,62.5,,paper,here
"""
# Logged by other runs: other objectives, other quantizers, add-ons.
ELSEWHERE = {"preliminary", "train/ce", "train/feature", "train/distance_to_grid"}
ELSEWHERE |= {name for name in METRICS if name.startswith("quantizer/")}  # on request only
DASHBOARD = definition.read()
QUANTIZERS = sorted(f.stem for f in (command.ROOT / "conf" / "quantizer").glob("*.yaml") if f.stem != "none")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a student and its teacher for two epochs, in one process as a sweep does."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(command.ROOT / "conf", folder / "conf")
    for recipe in ("digits16", "digits16_float"):
        file = folder / "conf" / "recipe" / f"{recipe}.yaml"
        file.write_text(re.sub(r"epochs: \d+", "epochs: 2", file.read_text()))
    with (folder / "conf" / "dataset" / "digits16.yaml").open("a") as data:
        data.write("limit: 128\n")
    (folder / "paper.csv").write_text(PAPER)
    with pytest.MonkeyPatch.context() as patch, initialize_config_dir(str(folder / "conf"), version_base="1.3"):
        patch.setenv("WANDB_MODE", "offline")
        patch.setattr(paper, "FILE", folder / "paper.csv")
        train(compose_spec([*WORDS, f"paths.runs={folder / 'runs'}"]))
    wandb.teardown()  # waits until its own process has written everything
    return folder / "runs"


@pytest.fixture(scope="module")
def student(runs: Path) -> Logged:
    return wandb_file.read(runs / STUDENT / "seed0")


@pytest.fixture(scope="module")
def teacher(runs: Path) -> Logged:
    return wandb_file.read(runs / TEACHER / "seed0")


def test_two_runs_of_one_process_are_logged_as_two_runs(student: Logged, teacher: Logged) -> None:
    assert student.run_id != teacher.run_id
    assert (student.group, teacher.group) == ("digits16-resnet20", "digits16-resnet20")
    assert student.tags == ["digits16", "resnet20", "ewgs", "sqakd", "w2a2"]
    assert teacher.tags == ["digits16", "resnet20", "none", "w32a32"]
    losses = [[row["train/loss"] for row in run.history if "train/loss" in row] for run in (student, teacher)]
    assert losses[0]
    assert losses[0] != losses[1]


def test_a_run_logs_the_names_of_the_table_and_no_others(student: Logged, teacher: Logged) -> None:
    assert {metric for metric in student.metrics | teacher.metrics if listed_name(metric) is None} == set()
    assert {listed_name(metric) for metric in student.metrics} == METRICS.keys() - ELSEWHERE
    assert listed_name("val/top") is None
    assert listed_name("quantizer/layer1.0.conv1/bias/upper") is None


@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_every_quantizer_logs_names_of_the_table(quantizer: str) -> None:
    model = small.quantized(f"quantizer={quantizer}", "bits=2")
    layers = [name for name, _ in quant_layers(model)]
    rows = statistics(model, small.batch(4))
    logged = named(rows, layers) | means(rows)
    assert [metric for metric in logged if listed_name(metric) is None] == []
    assert {f"quantizer/{layers[-1]}/input/clip_high", "layers/weight/used"} <= logged.keys()


def test_every_name_in_the_source_is_in_the_table() -> None:
    texts = [file.read_text(encoding="utf-8") for file in (command.ROOT / "sqakd").rglob("*.py")]
    names = {name for text in texts for name in re.findall(r"\.log\(\s*\"([^\"{}]+)\"", text)}
    assert names
    assert [name for name in names if listed_name(name) is None] == []


def test_every_metric_matches_one_name_of_the_table() -> None:
    examples = {"LAYER": "layer1.0.conv1", "TENSOR": "input", "CODE": "-3", "SCORE": "agreement", "AGGREGATE": "best"}
    for name in METRICS:
        metric = re.sub("|".join(examples), lambda word: examples[word[0]], name).replace("topK", "top5")
        assert [other for other in METRICS if pattern(other).fullmatch(metric)] == [name]


def test_the_choices_of_a_run_are_flat(student: Logged, teacher: Logged) -> None:
    assert student.config["choices"] == {
        "cell": STUDENT,
        "dataset": "digits16",
        "model": "resnet20",
        "quantizer": "ewgs",
        "kd": "sqakd",
        "plus": "none",
        "bits": "w2a2",
        "experiment": "none",
        "table": "none",
        "changes": "none",
    }
    assert {key: teacher.config["choices"][key] for key in ("cell", "quantizer", "kd", "bits")} == {
        "cell": TEACHER,
        "quantizer": "none",
        "kd": "none",
        "bits": "w32a32",
    }
    for key in KEYS:
        first, _, rest = key.partition(".")
        assert first in student.config, key
        assert not rest or rest in student.config[first], key


def test_choices_name_the_add_ons_and_the_table_of_a_run() -> None:
    with initialize_config_dir(str(command.ROOT / "conf"), version_base="1.3"):
        spec = compose_spec(["table=digits", "dataset=digits16", "plus=[bn,ema]", "recipe.lr=0.5", "logger=wandb"])
        chosen = group_values(spec, changes(spec))
    logger = spec.config["logger"]["wandb"]
    assert (logger["job_type"], logger["group"], logger["plus"]) == ("digits", "digits16-resnet20", ["bn", "ema"])
    assert (chosen["table"], chosen["experiment"], chosen["plus"]) == ("digits", "none", "bn+ema")
    assert chosen["changes"] == "recipe.lr=0.5"
    assert chosen["cell"] == f"{spec.config['cell']} recipe.lr=0.5"


def test_the_published_number_is_in_the_record_and_logged(runs: Path, student: Logged) -> None:
    record = json.loads((runs / STUDENT / "seed0" / "record.json").read_text())
    assert record["changes"] == {}
    assert record["paper"] == {"top1": 0.625, "kind": "paper", "table": "table4", "cell": "its own"}
    assert record["difference_from_paper"] == record["scores"]["top1"]["last"] - 0.625
    assert student.summary["record/paper/top1"] == 0.625
    assert student.summary["record/difference_from_paper"] == pytest.approx(record["difference_from_paper"])
    other = json.loads((runs / TEACHER / "seed0" / "record.json").read_text())
    assert other["paper"] is None


@pytest.mark.parametrize("panel", DASHBOARD.panels, ids=lambda panel: f"{panel.picture}: {panel.title}")
def test_a_run_logs_the_metrics_of_each_panel(panel: definition.Panel, student: Logged) -> None:
    for metric in panel.metrics:
        found = {name for name in student.metrics if pattern(metric).fullmatch(name)}
        assert found, metric
        if panel.kind == "lines":  # over the epochs: a row has both, for each epoch
            for name in found:
                assert [row.get("epoch") for row in student.history if name in row] == [0, 1], name
        else:
            assert found <= student.summary.keys()
    if panel.x is not None:
        home = student.config if panel.x.startswith(CONFIG) else student.summary
        assert isinstance(home[panel.x.removeprefix(CONFIG)], int | float)


def test_a_run_logs_the_columns_of_the_list_of_runs(student: Logged) -> None:
    assert set(DASHBOARD.columns) <= student.summary.keys()


def test_the_documentation_has_the_table_of_names() -> None:
    text = (command.ROOT / "docs" / "dashboard.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([^`]+)` \| (.+) \|$", text, re.MULTILINE))
    assert rows == METRICS | {f"choices.{key}": meaning for key, meaning in GROUP_KEYS.items()}

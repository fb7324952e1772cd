"""Each cell of the paper's tables is a cell of our sweeps, each sweep's cell composes; docs/tables.md counts them."""

from __future__ import annotations

import csv
import itertools
import re
from functools import cache
from pathlib import Path
from typing import Any

import command
import pytest
import table_sizes
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

import sqakd.app.compose  # noqa: F401  # registers what the configuration's interpolations call

pytestmark = pytest.mark.exhaustive

CONF = command.ROOT / "conf"
TABLES = sorted(file.stem for file in (CONF / "table").glob("*.yaml"))
PAPER = list(csv.DictReader((command.ROOT / "results" / "paper.csv").open(newline="")))


@cache
def composed(*words: str) -> DictConfig:
    """The resolved configuration of a sentence, with Hydra's own node beside it."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", overrides=list(words), return_hydra_config=True)
    holder = HydraConfig.instance()
    holder.set_config(cfg)
    try:
        plain = OmegaConf.to_container(OmegaConf.masked_copy(cfg, [str(k) for k in cfg if k != "hydra"]), resolve=True)
    finally:
        holder.cfg = None
    assert isinstance(plain, dict)
    made: DictConfig = OmegaConf.create({**plain, "hydra": cfg.hydra})
    return made


@cache
def cells(table: str) -> tuple[DictConfig, ...]:
    cfg = composed(f"table={table}")
    assert cfg.hydra.mode.name == "MULTIRUN"
    params: dict[str, Any] = dict(cfg.hydra.sweeper.params)
    params = {key: str(values).split(",")[0] if key == "seed" else values for key, values in params.items()}
    axes = [[f"{key}={value}" for value in str(values).split(",")] for key, values in params.items()]
    return tuple(composed(*words) for words in itertools.product(*axes))


@pytest.mark.parametrize("table", TABLES)
def test_each_cell_composes_and_has_its_own_name(table: str) -> None:
    names = [(cfg.name, cfg.seed) for cfg in cells(table)]
    assert len(set(names)) == len(names) > 0


@pytest.mark.parametrize("table", ["table4", "table5", "table6"])
def test_each_published_cell_is_in_the_sweep(table: str) -> None:
    names = set()
    for cfg in cells(table):
        names.add(cfg.name)
        names.add(f"{cfg.hydra.runtime.choices.dataset}-{cfg.model.name}-none-w32a32-none")  # its float run
    wanted = {
        f"{r['dataset']}-{r['model']}-{r['quantizer']}-w{r['bits']}a{r['bits']}-{r['kd']}"
        for r in PAPER
        if r["table"] == table
    }
    assert len(wanted) > 15
    assert wanted - names == set()


def test_like_with_like() -> None:
    """In the default reading a cell and its baseline differ in nothing but the loss."""
    for table in ("table4", "table5", "table6"):
        for cfg in cells(table):
            assert (cfg.kd.ce, cfg.kd.kl) in ((1.0, 0.0), (0.0, 1.0))


@pytest.mark.parametrize(
    ("words", "weight"),
    [
        (["experiment=tiny_shufflenet_v2_dorefa_w8_released"], 800),
        (["experiment=tiny_squeezenet_lsq_w4_released"], 50),
        (["experiment=tiny_mobilenet_v2_pact_w3_released"], 10),
        (["experiment=tiny_vgg11", "quantizer=pact_released", "bits=8"], 100),
        (["experiment=tiny_resnet18", "quantizer=pact_released", "bits=4"], 1),
        (["experiment=cifar100_resnet32", "quantizer=ewgs_released", "bits=4"], 100),
        (["experiment=cifar100_resnet32", "quantizer=ewgs_released", "bits=2"], 1),
        (["experiment=cifar100_vgg13", "quantizer=ewgs_released", "bits=4"], 1),
    ],
)
def test_released_weights(words: list[str], weight: float) -> None:
    cfg = composed(*words, "kd=sqakd_released")
    assert (cfg.kd.ce, cfg.kd.kl) == (0, weight)
    cfg = composed(*words, "kd=none_matched")
    assert (cfg.kd.ce, cfg.kd.kl) == (weight, 0)


# Epochs, batch size, learning rate, weight decay: of the quantized run, then of its float run.
RECIPES = {
    "cifar10_resnet20": ((1200, 256, 1e-3, 1e-4), (1200, 256, 0.1, 1e-4)),
    "cifar10_vgg8": ((400, 256, 1e-3, 1e-4), (400, 256, 0.1, 1e-4)),
    "cifar100_resnet32": ((720, 64, 5e-4, 5e-4), (720, 64, 0.05, 5e-4)),
    "cifar100_vgg13": ((720, 64, 5e-4, 5e-4), (720, 64, 0.05, 5e-4)),
    "tiny_resnet18": ((100, 64, 5e-4, 5e-4), (100, 64, 0.05, 5e-4)),
    "tiny_vgg11": ((100, 32, 5e-4, 5e-4), (100, 32, 0.05, 5e-4)),
    "tiny_mobilenet_v2": ((100, 64, 5e-4, 5e-4), (100, 64, 4e-3, 1e-4)),
    "tiny_shufflenet_v2": ((100, 64, 5e-4, 5e-4), (100, 64, 0.05, 5e-4)),
    "tiny_squeezenet": ((100, 64, 5e-4, 5e-4), (100, 64, 0.05, 5e-4)),
}


@pytest.mark.parametrize("row", RECIPES)
def test_recipes_are_the_released_ones(row: str) -> None:
    for word, expected in zip(("bits=4", "quantizer=none"), RECIPES[row], strict=True):
        recipe = composed(f"experiment={row}", word).recipe
        assert (recipe.epochs, recipe.batch_size, recipe.lr, recipe.weight_decay) == expected
    if row.startswith("tiny"):
        recipe = composed(f"experiment={row}", "bits=3").recipe
        assert (recipe.lr, recipe.quantizer_lr, recipe.weight_decay) == (4e-3, 4e-3, 1e-4)
        assert (recipe.schedule.base, recipe.schedule.steps, recipe.label_smoothing) == (1e-4, 2500, 0.1)


@pytest.mark.parametrize(
    ("words", "batch_size", "first_last"),
    [
        (["experiment=tiny_mobilenet_v2", "quantizer=lsq_released", "bits=4"], 32, "float"),
        (["experiment=tiny_mobilenet_v2_dorefa_w8_released"], 32, "float"),
        (["experiment=tiny_mobilenet_v2_dorefa_w8"], 64, "float"),
        (["experiment=tiny_vgg11", "quantizer=lsq_released", "bits=4"], 32, "float"),
        (["experiment=tiny_squeezenet_lsq_w4_released"], 64, "first"),
        (["experiment=tiny_squeezenet", "quantizer=pact_released", "bits=4"], 64, "first"),
        (["experiment=tiny_squeezenet_dorefa_w8_released"], 64, "first"),
        (["experiment=tiny_squeezenet_lsq_w4"], 64, "float"),
    ],
)
def test_what_else_the_release_does(words: list[str], batch_size: int, first_last: str) -> None:
    cfg = composed(*words)
    assert (cfg.recipe.batch_size, cfg.quantizer.first_last) == (batch_size, first_last)


def page(heading: str) -> str:
    """A part of docs/tables.md, from a heading to the next."""
    text = (command.ROOT / "docs" / "tables.md").read_text(encoding="utf-8")
    (found,) = re.findall(rf"^## {re.escape(heading)}.*?\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    return str(found)


PARTS = {"table4": "Table 4", "table5": "Table 5", "table6": "Table 6", "table7": "Table 7", "squat": "SQuaT"}


@pytest.mark.parametrize("table", PARTS)
def test_the_page_says_how_much_work_a_table_is(table: str) -> None:
    lines = table_sizes.by_network(table_sizes.trainings(cells(table)))
    told = [line for line in page(PARTS[table]).splitlines() if line.startswith("|")]
    assert told[2:] == lines, "\n" + "\n".join(lines)


def test_the_page_says_how_much_work_all_tables_are() -> None:
    paper = [t for t in TABLES if t.startswith("table") or t == "squat"]
    sizes = {table: table_sizes.trainings(cells(table)) for table in paper}
    together = {name: run for table in PARTS for name, run in sizes[table].items()}
    lines = [table_sizes.in_one_line(f"`{table}`", runs) for table, runs in sizes.items()]
    lines.append(table_sizes.in_one_line("all five, shared runs once", together))
    told = [line for line in page("How much work they are").splitlines() if line.startswith("|")]
    assert sorted(told[2:]) == sorted(lines), "\n" + "\n".join(lines)


def test_the_page_says_the_recipes() -> None:
    words = {"quantized": "bits=4", "unquantized": "quantizer=none"}
    lines = [
        table_sizes.recipe(row, **{key: composed(f"experiment={row}", word).recipe for key, word in words.items()})
        for row in RECIPES
    ]
    assert [line for line in page("Recipes").splitlines() if line.startswith("|")][2:] == lines, "\n" + "\n".join(lines)


def test_every_row_is_used_by_a_table() -> None:
    text = "".join((CONF / "table" / f"{table}.yaml").read_text() for table in TABLES)
    rows = {file.stem for file in (CONF / "experiment").glob("*.yaml")}
    bases = {line.strip("- \n") for row in rows for line in (CONF / "experiment" / f"{row}.yaml").open()}
    assert {row for row in rows if row not in text and row not in bases} == set()


def test_a_plan_trains_nothing(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    done = command.train("table=table6", "plan=true", "experiment=tiny_squeezenet_lsq_w4", runs=runs)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("train ")]
    names = [Path(line.split()[1]).parent.name for line in lines]
    assert names == [
        "tiny_imagenet-squeezenet1_0-none-w32a32-none",
        "tiny_imagenet-squeezenet1_0-lsq-w4a4-none",
        "tiny_imagenet-squeezenet1_0-lsq-w4a4-sqakd",
    ]
    assert "3 runs: 3 train; 3 of unknown length (plan=measure" in done.stdout
    assert not list(runs.glob("tiny*"))


def test_a_plan_can_measure(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    done = command.train("dataset=digits16", "bits=1,2", "kd=none,sqakd", "plan=measure", "-m", runs=runs)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("train ")]
    assert len(lines) == 5
    assert all(" about " in line for line in lines)
    total = re.search(r"5 runs: 5 train; about (\d+) (s|min) on one device", done.stdout)
    assert total, done.stdout
    assert 20 < int(total[1]) * (60 if total[2] == "min" else 1) < 3600, "five runs of 20 epochs of 1,437 small images"
    assert "unknown" not in done.stdout
    assert not list(runs.glob("digits*"))


def test_a_plan_refuses_what_cannot_run(tmp_path: Path) -> None:
    words = ["bits=2,9", "model=torchvision", "model.arch=resnet18,resnett18", "plan=true", "-m"]
    done = command.train(*words, runs=tmp_path / "runs")
    assert done.returncode == 0, done.stderr
    assert "5 runs: 2 train, 3 refused" in done.stdout
    assert "torchvision has no network 'resnett18'" in done.stdout
    assert "bits=9: expected a whole number" in done.stdout

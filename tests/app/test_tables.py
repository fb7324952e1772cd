"""The paper's tables: each published cell is a cell of ours, each cell composes, and docs/tables.md counts the work."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import command
import pytest
import table_sizes
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from table_sizes import TABLES, Cell, cells

from sqakd.app.compose import changes, compose_spec
from sqakd.app.overrides import float_run_overrides
from sqakd.app.resolvers import ROWS, deviations
from sqakd.app.tables import TableError, table_cells
from sqakd.runs.length import length_of
from sqakd.runs.spec import Spec

pytestmark = pytest.mark.exhaustive

PAPER = list(csv.DictReader((command.ROOT / "results" / "paper.csv").open(newline="")))
OURS = ("best", "digits", "fashion_mnist", "gains", "gains_kd", "mixed", "pareto", "reconstruction", "starts")
LIKE_WITH_LIKE = ("table4", "table5", "table6")
# What quantizer.start=mse sets.
STARTS = {"quantizer.input.start", "quantizer.weight.start"}
ROW7 = ("dataset=cifar10", "model=resnet20", "quantizer=ewgs_released", "bits=2")


@pytest.fixture(scope="module", autouse=True)
def hydra() -> Iterator[None]:
    with initialize_config_dir(str(table_sizes.CONF), version_base="1.3"):
        yield


composed: dict[tuple[str, ...], Spec] = {}


def spec(*overrides: str) -> Spec:
    """Compose a command, once."""
    if overrides not in composed:
        composed[overrides] = compose_spec(overrides)
    return composed[overrides]


def config(*overrides: str) -> dict[str, Any]:
    return spec(*overrides).config


def of_cell(cell: Cell) -> Spec:
    """Compose a cell as it is typed by hand, without its table; seeds differ in nothing else."""
    return spec(*(f"{key}={value}" for key, value in cell.items() if key != "seed"))


# cells


@pytest.mark.parametrize("bits", ["w1a1", "w2a2"])
@pytest.mark.parametrize("quantizer", ["ewgs", "lsq", "pact"])
def test_the_best_experiments_start_ranges_at_the_least_error_and_have_a_float_run(quantizer: str, bits: str) -> None:
    student = spec(f"experiment=best_{bits}", f"quantizer={quantizer}")
    assert student.config["quantizer"]["input"]["start"] == "mse"
    kd = {"w1a1": "reconstruction", "w2a2": "sqakd"}[bits]
    assert student.config["name"] == f"digits-resnet20-{quantizer}+mse-{bits}-{kd}"
    starts = {"quantizer.input.start": "mse"} | ({} if quantizer == "pact" else {"quantizer.weight.start": "mse"})
    assert changes(student) == starts, "no row of the paper"
    overrides = float_run_overrides(student, "model")
    assert f"experiment=best_{bits}" in overrides
    float_run = spec(*overrides)
    assert float_run.config["quantizer"] is None
    assert float_run.config["name"] == "digits-resnet20-none-w32a32-none"
    assert spec("quantizer=none", "+quantizer.start=mse").config["quantizer"] is not None, (
        "a check refuses typed values"
    )


@pytest.mark.parametrize("table", [table for table in TABLES if table not in OURS])
def test_cells_are_named_by_their_overrides(table: str) -> None:
    found = cells(table)
    for cell in (found[0], found[-1]):
        assert of_cell(cell).config["name"] == table_sizes.name(cell)
    names = [table_sizes.name(cell) for cell in found]
    assert len(set(names)) == len(names) > 0


@pytest.mark.parametrize(
    ("table", "number", "last"),
    [
        ("pareto", 30, "fashion_mnist-resnet20-lsq-auto+144120B+1095368704bitops-sqakd"),
        ("fashion_mnist", 180, "fashion_mnist-resnet20-dorefa-w4a4-reconstruction"),
        ("reconstruction", 24, "fashion_mnist-resnet20-lsq+mse-w1a1-reconstruction"),
        ("starts", 24, "fashion_mnist-resnet20-lsq+mse-w2a2-sqakd"),
        ("best", 6, "digits16-resnet20-ewgs-w2a2-sqakd-bn"),
        ("digits", 144, "digits16-resnet20-dorefa-w4a4-sqakd-bn+ema"),
        ("gains", 48, "digits16-resnet20-ewgs-w2a2-sqakd-two_step"),
        ("gains_kd", 12, "digits16-resnet20-ewgs-w2a2-lskd"),
    ],
)
def test_our_own_tables_have_these_cells(table: str, number: int, last: str) -> None:
    found = cells(table)
    assert len({tuple(cell.items()) for cell in found}) == len(found) == number
    assert of_cell(found[-1]).config["name"] == last


@pytest.mark.slow
@pytest.mark.parametrize("table", TABLES)
def test_every_cell_composes_and_is_the_same_run_without_its_table(table: str) -> None:
    names = set()
    for cell in cells(table):
        overrides = [f"{key}={value}" for key, value in cell.items()]
        by_hand = spec(*overrides)
        assert spec(f"table={table}", *overrides).config == by_hand.config
        typed = {key for key in cell if "." in key} | (STARTS if "quantizer.start" in cell else set())
        assert changes(by_hand).keys() <= typed, "a choice brings a value that the choice itself does not have"
        if "recipe.epochs" in cell:
            assert by_hand.config["recipe"]["epochs"] == int(cell["recipe.epochs"])
        names.add((by_hand.config["name"], by_hand.config["seed"]))
    assert len(names) == len(cells(table))


@pytest.mark.parametrize("table", ["fashion_mnist", "reconstruction"])
def test_a_stage_before_the_training_is_part_of_the_eight_epochs_of_its_table(table: str) -> None:
    for kd in ("sqakd", "reconstruction"):
        cell = next(cell for cell in cells(table) if cell["kd"] == kd)
        found = of_cell(cell)
        length = length_of(found.config)
        assert (length.recipe, length.training) == (8, {"sqakd": 8, "reconstruction": 6}[kd])


@pytest.mark.parametrize("table", TABLES)
def test_a_table_alone_is_a_sweep(table: str) -> None:
    cfg = compose("train", [f"table={table}"], return_hydra_config=True)
    assert cfg.hydra.mode.name == "MULTIRUN"
    assert cfg.hydra.runtime.choices["hydra/sweeper"] == "table"
    assert config(f"table={table}") == config()


@pytest.mark.parametrize("table", LIKE_WITH_LIKE)
def test_each_published_cell_is_in_the_sweep(table: str) -> None:
    names = {run(cell) for cell in cells(table) for run in (table_sizes.name, table_sizes.float_name)}
    wanted = {
        f"{r['dataset']}-{r['model']}-{r['quantizer']}-w{r['bits']}a{r['bits']}-{r['kd']}"
        for r in PAPER
        if r["table"] == table
    }
    assert len(wanted) > 15
    assert wanted - names == set()


def test_the_sweep_has_no_other_cells_but_those_of_vgg8_with_one_and_four_bits() -> None:
    """The published scripts have VGG-8 with two bits only; rows of other publications belong to tables of their own."""
    for table in LIKE_WITH_LIKE:
        published = {
            tuple(r[key] for key in ("dataset", "model", "quantizer", "bits", "kd"))
            for r in PAPER
            if r["table"] == table
        }
        more = {tuple(cell.values()) for cell in cells(table)} - published
        assert {cell[:4] for cell in more} == (
            {("cifar10", "vgg8", "ewgs", bits) for bits in "14"} if table == "table4" else set()
        )


@pytest.mark.parametrize("row", [("cifar10", "resnet32"), ("cifar100", "resnet20")])
def test_rows_that_only_squat_reports_are_in_its_table_alone(row: tuple[str, str]) -> None:
    assert {r["table"] for r in PAPER if (r["dataset"], r["model"]) == row} == {"squat"}
    assert {table for table in TABLES for cell in cells(table) if (cell["dataset"], cell.get("model")) == row} == {
        "squat"
    }


@pytest.mark.parametrize("table", ["table4", "table5", "table6", "table7"])
def test_a_released_table_has_the_rows_of_its_plain_table(table: str) -> None:
    plain, released = (
        {
            (cell["dataset"], cell["model"], cell["quantizer"].removesuffix("_released"), cell["bits"])
            for cell in cells(name)
        }
        for name in (table, f"{table}_released")
    )
    assert released == plain


def test_the_released_cells_of_table_7_have_the_values_of_the_published_code() -> None:
    plain, released = cells("table7"), cells("table7_released")
    assert [cell["kd"].removesuffix("_released") for cell in released] == [cell["kd"] for cell in plain]
    assert {cell["quantizer"] for cell in released} == {"ewgs_released"}
    for kd, key, value in (("cktf", "normalise", "batch"), ("fsp", "quantizers", True)):
        cell = next(cell for cell in released if cell["kd"].startswith(kd))
        loss, theirs = (config(*ROW7, f"kd={name}")["kd"] for name in (kd, cell["kd"]))
        assert theirs == loss | {"feature_loss": loss["feature_loss"] | {key: value}}
        assert loss["feature_loss"][key] != value


def test_a_cell_and_its_baseline_differ_in_nothing_but_the_loss() -> None:
    assert {cell["kd"] for table in LIKE_WITH_LIKE for cell in cells(table)} == {"none", "sqakd"}
    cell = ["dataset=tiny_imagenet", "model=resnet18", "quantizer=pact", "bits=3"]
    student, baseline = (config(*cell, f"kd={kd}") for kd in ("sqakd", "none"))
    assert {key for key in student if student[key] != baseline[key]} == {"kd", "cell", "name", "callbacks"}
    assert {key for key in student["kd"] if student["kd"][key] != baseline["kd"][key]} == {"ce", "kl"}
    assert [(c["kd"]["ce"], c["kd"]["kl"]) for c in (student, baseline)] == [(0, 1), (1, 0)]


# rows and parameters

SOME_ROWS = ["dataset=cifar10 model=resnet20,vgg8", "dataset=cifar100 model=vgg13"]
PARAMS = {"bits": "1,2", "kd": "none,sqakd"}


def narrowed(*typed: str) -> list[str]:
    return [" ".join(cell) for cell in table_cells(SOME_ROWS, PARAMS, typed)]


def test_each_row_is_combined_with_all_parameters() -> None:
    rows = ["dataset=cifar10 model=resnet20", "dataset=cifar10 model=vgg8", "dataset=cifar100 model=vgg13"]
    assert narrowed() == [
        f"{row} bits={bits} kd={kd}" for row, bits, kd in itertools.product(rows, (1, 2), ("none", "sqakd"))
    ]


@pytest.mark.parametrize(
    ("typed", "number", "every"),
    [
        (["model=vgg8"], 4, "model=vgg8"),
        (["model=vgg8,vgg13"], 8, "model=vgg"),
        (["dataset=cifar10", "kd=none"], 4, "kd=none"),
        (["bits=3"], 6, "bits=3"),
        (["bits=range(1,4)", "model=vgg13"], 6, "model=vgg13"),
        (["kd=squat", "bits=2"], 3, "bits=2 kd=squat"),
        (["recipe.epochs=5"], 12, "recipe.epochs=5"),
        (["+trainer.more=1"], 12, "+trainer.more=1"),
    ],
)
def test_the_command_narrows_rows_and_replaces_parameters(typed: list[str], number: int, every: str) -> None:
    found = narrowed(*typed)
    assert len(found) == len(set(found)) == number
    assert all(every in cell for cell in found)


def test_all_rows_come_with_one_seed_before_the_next_seed_begins() -> None:
    seeds = [cell.split()[0] for cell in narrowed("seed=0,1,2")]
    assert seeds == [f"seed={seed}" for seed in (0, 1, 2) for _ in range(12)]


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["model=vgg16"], "no row of this table has model=vgg16; its rows have model=resnet20,vgg8,vgg13"),
        (["model=vgg8,vgg16"], "no row of this table has model=vgg16"),
        (["dataset=cifar100", "model=vgg8"], "no row of this table has dataset=cifar100 model=vgg8 together"),
        (["kd.kl=interval(0,1)"], "kd.kl=interval(0,1): a table needs single values"),
    ],
)
def test_a_command_that_no_row_fits_is_refused(typed: list[str], message: str) -> None:
    with pytest.raises(TableError, match=re.escape(message)):
        narrowed(*typed)


def test_rows_need_the_same_keys() -> None:
    with pytest.raises(TableError, match="all rows of a table need the same keys: found model=a bits=1 and model=b"):
        table_cells(["model=a bits=1", "model=b"], {}, [])


def test_a_table_that_is_no_rectangle_can_be_narrowed() -> None:
    found = cells("table6", "bits=8", "kd=sqakd")
    assert [(cell["model"], cell["quantizer"]) for cell in found] == [
        ("mobilenet_v2", "dorefa"),
        ("shufflenet_v2_x0_5", "dorefa"),
        ("squeezenet1_0", "dorefa"),
    ]


# the values of single rows

TINY = "dataset=tiny_imagenet"


@pytest.mark.parametrize(
    ("row", "weight"),
    [
        (("tiny_imagenet", "shufflenet_v2_x0_5", "dorefa_released", 8), 800),
        (("tiny_imagenet", "squeezenet1_0", "lsq_released", 4), 50),
        (("tiny_imagenet", "mobilenet_v2", "pact_released", 3), 10),
        (("tiny_imagenet", "vgg11", "pact_released", 8), 100),
        (("tiny_imagenet", "resnet18", "pact_released", 4), None),
        (("cifar100", "resnet32", "ewgs_released", 4), 100),
        (("cifar100", "resnet32", "ewgs_released", 2), None),
        (("cifar100", "vgg13", "ewgs_released", 4), None),
    ],
)
def test_the_released_kl_weight_of_a_cell(row: tuple[str, str, str, int], weight: float | None) -> None:
    assert deviations(*row).get("kd.kl") == weight


def test_the_matched_baseline_has_the_released_kl_weight() -> None:
    row = [TINY, "model=vgg11", "quantizer=lsq_released", "bits=4"]
    student, baseline = (config(*row, f"kd={kd}")["kd"] for kd in ("sqakd_released", "none_matched"))
    assert [(kd["ce"], kd["kl"]) for kd in (student, baseline)] == [(0, 200), (200, 0)]


def test_every_released_cell_with_a_kl_weight_has_a_matched_baseline() -> None:
    for number in (4, 5, 6):
        tables = [table for table in TABLES if re.fullmatch(f"table{number}_(released|matched)", table)]
        found = [cell for table in tables for cell in cells(table)]
        weighted = {table_sizes.name(cell | {"kd": "none_matched"}) for cell in found if has_weight(cell)}
        assert weighted == {table_sizes.name(cell) for cell in found if cell["kd"] == "none_matched"}


def has_weight(cell: Cell) -> bool:
    return "kd.kl" in deviations(cell["dataset"], cell["model"], cell["quantizer"], int(cell["bits"]))


def options(group: str) -> list[str]:
    return [file.stem for file in (table_sizes.CONF / group).glob("*.yaml")]


def test_the_file_of_row_values_names_existing_options_and_keys_that_are_read() -> None:
    groups = {group: {*options(group)} for group in ("dataset", "model", "quantizer")} | {"bits": {*"12345678"}}
    text = "".join(file.read_text() for file in table_sizes.CONF.glob("**/*.yaml"))
    for row, values in yaml.safe_load(ROWS.read_text()).items():
        for part in row.split():
            group, _, names = part.partition("=")
            assert set(names.split(",")) <= groups[group], row
        for key in values:
            assert f"${{sqakd.row:{key}," in text, key


def test_no_two_entries_of_that_file_give_a_cell_the_same_value() -> None:
    for cell in itertools.product(options("dataset"), options("model"), options("quantizer"), range(1, 9)):
        deviations(*cell)  # raises


# Epochs, batch size, learning rate, weight decay: of the quantized run, then of its float run.
RECIPES = {
    "dataset=cifar10 model=resnet20": ((1200, 256, 1e-3, 1e-4), (1200, 256, 0.1, 1e-4)),
    "dataset=cifar10 model=vgg8": ((400, 256, 1e-3, 1e-4), (400, 256, 0.1, 1e-4)),
    "dataset=cifar100 model=resnet32": ((720, 64, 5e-4, 5e-4), (720, 64, 0.05, 5e-4)),
    "dataset=cifar100 model=vgg13": ((720, 64, 5e-4, 5e-4), (720, 64, 0.05, 5e-4)),
    f"{TINY} model=resnet18": ((100, 64, 5e-4, 5e-4), (100, 64, 0.05, 5e-4)),
    f"{TINY} model=vgg11": ((100, 32, 5e-4, 5e-4), (100, 32, 0.05, 5e-4)),
    f"{TINY} model=mobilenet_v2": ((100, 64, 5e-4, 5e-4), (100, 64, 4e-3, 1e-4)),
    f"{TINY} model=shufflenet_v2_x0_5": ((100, 64, 5e-4, 5e-4), (100, 64, 0.05, 5e-4)),
    f"{TINY} model=squeezenet1_0": ((100, 64, 5e-4, 5e-4), (100, 64, 0.05, 5e-4)),
}


@pytest.mark.parametrize("row", RECIPES)
def test_recipes_are_the_released_ones(row: str) -> None:
    for override, expected in zip(("bits=4", "quantizer=none"), RECIPES[row], strict=True):
        recipe = config(*row.split(), override)["recipe"]
        assert tuple(recipe[key] for key in ("epochs", "batch_size", "lr", "weight_decay")) == expected


def recipe_of(*overrides: str) -> dict[str, Any]:
    recipe: dict[str, Any] = config(TINY, *overrides)["recipe"]
    return recipe


@pytest.mark.parametrize("row", ["resnet18 lsq", "vgg11 pact_released", "mobilenet_v2 pact"])
def test_paper_rows_with_3_bits_have_their_released_recipe(row: str) -> None:
    model, quantizer = row.split()
    recipe = recipe_of(f"model={model}", f"quantizer={quantizer}", "bits=3")
    assert (recipe["lr"], recipe["quantizer_lr"], recipe["weight_decay"]) == (4e-3, 4e-3, 1e-4)
    assert (recipe["schedule"]["base"], recipe["schedule"]["steps"], recipe["label_smoothing"]) == (1e-4, 2500, 0.1)


@pytest.mark.parametrize(
    "overrides",
    [
        ["model=timm", "model.arch=resnet50", "quantizer=lsq"],
        ["model=resnet18", "quantizer=ewgs"],
        ["model=shufflenet_v2_x0_5", "quantizer=pact"],
        ["model=resnet18", "quantizer=pact", "a_bits=8"],
    ],
)
def test_the_recipe_of_any_other_run_does_not_depend_on_its_bits(overrides: list[str]) -> None:
    assert recipe_of(*overrides, "bits=3") == recipe_of(*overrides, "bits=4")


@pytest.mark.parametrize(
    ("row", "batch_size", "first_last"),
    [
        ("model=mobilenet_v2 quantizer=lsq_released bits=4", 32, "float"),
        ("model=mobilenet_v2 quantizer=dorefa_released bits=8", 32, "float"),
        ("model=mobilenet_v2 quantizer=dorefa bits=8", 64, "float"),
        ("model=vgg11 quantizer=lsq_released bits=4", 32, "float"),
        ("model=squeezenet1_0 quantizer=lsq_released bits=4", 64, "first"),
        ("model=squeezenet1_0 quantizer=pact_released bits=4", 64, "first"),
        ("model=squeezenet1_0 quantizer=dorefa_released bits=8", 64, "first"),
        ("model=squeezenet1_0 quantizer=lsq bits=4", 64, "float"),
    ],
)
def test_batch_size_and_outer_layers_of_the_released_cells(row: str, batch_size: int, first_last: str) -> None:
    found = config(TINY, *row.split())
    assert (found["recipe"]["batch_size"], found["quantizer"]["first_last"]) == (batch_size, first_last)
    assert found["teacher"]["recipe"]["batch_size"] == (32 if "vgg11" in row else 64)


@pytest.mark.parametrize(
    ("row", "output_scale"),
    [
        ("model=squeezenet1_0 quantizer=dorefa bits=8", True),
        ("model=squeezenet1_0 quantizer=pact bits=4", True),
        ("model=squeezenet1_0 quantizer=lsq bits=4", False),
        ("model=squeezenet1_0 quantizer=dorefa_released bits=8", False),
        ("model=mobilenet_v2 quantizer=dorefa bits=8", False),
    ],
)
def test_squeezenet_has_output_scales_where_it_does_not_train_without(row: str, output_scale: bool) -> None:
    assert config(TINY, *row.split())["quantizer"]["output_scale"] is output_scale


@pytest.mark.parametrize("table", [table for table in TABLES if table not in OURS])
def test_the_released_cells_of_tiny_imagenet_have_the_surroundings_of_the_published_code(table: str) -> None:
    rows = {tuple(f"{key}={cell[key]}" for key in ("dataset", "model", "quantizer")) for cell in cells(table)}
    released = ("table5_released", "table5_matched", "table6_released")
    assert {config(*row)["quantizer"]["outer"] for row in rows} == {"released" if table in released else "float"}


# docs/tables.md


def settings(dataset: str, model: str, kd: str) -> dict[str, Any]:
    """Compose a row with another loss; the loss only matters if it has a stage of its own."""
    return config(
        f"dataset={dataset}", f"model={model}", *([f"kd={kd}"] if kd in ("fsp", "fsp_released", "ft") else [])
    )


def trainings(table: str) -> dict[str, table_sizes.Training]:
    return table_sizes.trainings(cells(table), settings)


def page(heading: str) -> str:
    """Return a part of docs/tables.md, from a heading to the next."""
    text = (command.ROOT / "docs" / "tables.md").read_text(encoding="utf-8")
    (found,) = re.findall(rf"^## {re.escape(heading)}.*?\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    return str(found)


def lines_of(heading: str) -> list[str]:
    """Return the lines of the Markdown table in a part of docs/tables.md."""
    return [line for line in page(heading).splitlines() if line.startswith("|")][2:]


PARTS = {"table4": "Table 4", "table5": "Table 5", "table6": "Table 6", "table7": "Table 7", "squat": "SQuaT"}


@pytest.mark.parametrize("table", PARTS)
def test_the_page_has_the_work_of_each_table(table: str) -> None:
    lines = table_sizes.by_network(trainings(table))
    assert lines_of(PARTS[table]) == lines, "\n" + "\n".join(lines)


def test_the_page_has_the_work_of_all_tables() -> None:
    sizes = {table: trainings(table) for table in TABLES if table not in OURS}
    together = {name: run for table in PARTS for name, run in sizes[table].items()}
    lines = [table_sizes.in_one_line(f"`{table}`", runs) for table, runs in sizes.items()]
    lines.append(table_sizes.in_one_line("all five, shared runs once", together))
    assert sorted(lines_of("Amount of work")) == sorted(lines), "\n" + "\n".join(lines)


def test_the_page_has_the_recipes() -> None:
    lines = [
        table_sizes.recipe(row, *(config(*row.split(), word)["recipe"] for word in ("bits=4", "quantizer=none")))
        for row in RECIPES
    ]
    assert lines_of("Recipes") == lines, "\n" + "\n".join(lines)


# plans


def test_a_plan_trains_nothing(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    done = command.train("table=table6", "plan=true", "model=squeezenet1_0", "quantizer=lsq", runs=runs)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("train ")]
    names = [Path(line.split()[1]).parent.name for line in lines]
    assert names == [
        "tiny_imagenet-squeezenet1_0-none-w32a32-none",
        "tiny_imagenet-squeezenet1_0-lsq-w4a4-none",
        "tiny_imagenet-squeezenet1_0-lsq-w4a4-sqakd",
    ]
    assert "3 runs: 3 train; 3 of unknown length (plan=measure" in done.stdout
    assert list(runs.iterdir()) == []


@pytest.mark.parametrize(("plan", "composed"), [(None, 1), (True, 0), ("measure", 0)])
def test_a_plan_composes_the_runs_of_a_table_once(plan: object, composed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    # Not at the top of this file: Hydra executes its plugins again, which gives new classes.
    from hydra_plugins.sqakd_sweeper.table import TableSweeper

    monkeypatch.setattr(TableSweeper.__base__, "validate_batch_is_legal", lambda _, batch: calls.append(batch))
    sweeper = TableSweeper(rows=[], params={})
    sweeper.config = OmegaConf.create({"plan": plan})
    sweeper.validate_batch_is_legal([["bits=1"]])
    assert len(calls) == composed


def test_a_table_without_such_a_row_is_refused_in_one_line(tmp_path: Path) -> None:
    done = command.train("table=table6", "plan=true", "bits=2", runs=tmp_path / "runs")
    assert done.returncode == 1
    assert done.stderr.strip() == "error: no row of this table has bits=2; its rows have bits=3,4,8"


@pytest.mark.slow
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
    overrides = ["bits=2,9", "model=torchvision", "model.arch=resnet18,resnett18", "plan=true", "-m"]
    done = command.train(*overrides, runs=tmp_path / "runs")
    assert done.returncode == 0, done.stderr
    assert "5 runs: 2 train, 3 refused" in done.stdout
    assert "torchvision has no network 'resnett18'" in done.stdout
    assert "bits=9: expected a whole number" in done.stdout

"""python -m sqakd.report: the files that it writes, and the message when a file cannot be read."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import command
import pytest
from made_runs import Made, make_grid, make_run

from sqakd.advice import explain
from sqakd.errors import SqakdError
from sqakd.report.cells import Cell
from sqakd.report.comparisons import labels_alone
from sqakd.report.csv_files import read_numbers
from sqakd.report.results import read_results
from sqakd.report.write import write_report
from sqakd.runs import paper

PAPER = """table,dataset,model,quantizer,bits,kd,top1,top5,source,reference
table9,cifar10,resnet20,ewgs,2,sqakd,91.00,,paper,here
"""
MADE = Made("digits16", "resnet20", "ewgs", 2, "sqakd", 0)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Make a folder with runs, results and a README with markers."""
    make_grid(tmp_path / "runs", quantizers=("ewgs",), bits=(2,))
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "paper.csv").write_text(PAPER)
    text = (
        "# Mine\n\n<!-- report:digits16-summary -->\n<!-- /report -->\n\n<!-- report:gone -->\nkept\n<!-- /report -->\n"
    )
    (tmp_path / "README.md").write_text(text)
    return tmp_path


def report(folder: Path, *options: str) -> tuple[list[str], str]:
    """Return the printed lines and the error message."""
    done = command.script("-m", "sqakd.report", *options, folder=folder)
    assert (done.returncode == 0) == (not done.stderr), done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout.splitlines(), done.stderr.strip()


def test_all_files_are_written_and_printed(project: Path) -> None:
    printed, _ = report(project)
    names = ["ours.csv", "table9.md", "table9.csv", "digits16.md", "digits16.csv"]
    assert printed == [*(f"results/{name}" for name in names), "README.md", "results/report.html"]
    assert all((project / file).is_file() for file in printed)
    readme = (project / "README.md").read_text()
    assert (
        "digits16 resnet20:\n\n| quantizer | bits | none | sqakd |\n| --- | --- | --- | --- |\n| ewgs | W2A2 |"
        in readme
    )
    assert "kept" in readme, "a block whose runs are not here stays"
    before = {file: (project / file).read_bytes() for file in printed}
    report(project)
    assert {file: (project / file).read_bytes() for file in printed} == before, "a second report changes nothing"


def test_several_folders_of_runs_and_another_page(project: Path) -> None:
    make_run(project / "more", Made("digits", "resnet20", "lsq", 4, "sqakd", 0))
    options = ["--runs", "runs", "--runs", "more", "--html", "page.html", "--title", "Mine & yours"]
    printed, _ = report(project, *options)
    assert printed[-1] == "page.html"
    assert "results/digits.md" in printed
    assert "<h1>Mine &amp; yours</h1>" in (project / "page.html").read_text()
    assert not (project / "results" / "report.html").exists()


def test_a_readme_without_markers_is_an_error_only_if_it_was_named(project: Path) -> None:
    (project / "README.md").write_text("nothing\n")
    printed, _ = report(project)
    assert "README.md" not in printed
    _, error = report(project, "--readme", "README.md")
    assert error.startswith("error: README.md: no marker: expected <!-- report:NAME --> and <!-- /report -->")
    _, error = report(project, "--readme", "nowhere.md")
    assert error == "error: cannot read nowhere.md: No such file or directory"


def test_wrong_markers_in_the_project_s_readme_do_not_stop_the_report(project: Path) -> None:
    text = "# Mine\n<!-- report:digits16 -->\n<!-- report:digits16 -->\n<!-- /report -->\n"
    (project / "README.md").write_text(text)
    done = command.script("-m", "sqakd.report", folder=project)
    assert done.returncode == 0
    note = "README.md is left as it is: line 2: <!-- report:digits16 --> without <!-- /report --> below it"
    assert done.stderr.strip() == note
    assert "results/report.html" in done.stdout.splitlines()
    assert (project / "README.md").read_text() == text
    _, error = report(project, "--readme", "README.md")
    assert error == f"error: {note.replace(' is left as it is', '')}"


def test_an_unknown_table_is_an_error_if_the_readme_was_named(project: Path) -> None:
    _, error = report(project, "--readme", "README.md")
    assert error.startswith("error: README.md: line 6: no table 'gone'; expected one of digits16, digits16-labels, ")
    assert not (project / "results" / "ours.csv").exists(), "nothing is written"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--runs", "nowhere"],
            "no finished run in nowhere: expected nowhere/NAME/seed0/record.json;"
            " use --runs FOLDER for another folder of runs",
        ),
        (
            ["--results", "nowhere"],
            f"no nowhere/paper.csv: expected the published numbers; copy {paper.FILE} there, or use --results FOLDER"
            " for a folder that has the file",
        ),
        (["--html", "nowhere/page.html"], "cannot write nowhere/page.html: the folder nowhere does not exist"),
    ],
)
def test_a_missing_folder_is_named(options: list[str], message: str, project: Path) -> None:
    _, error = report(project, *options)
    assert error == f"error: {message}"
    assert not (project / "results" / "ours.csv").exists(), "nothing is written"


@pytest.mark.parametrize("option", ["--html", "--picture", "--cost"])
def test_an_output_replaces_only_a_file_of_its_kind(option: str, project: Path) -> None:
    for written in ("one", "one"):
        assert report(project, option, written)[1] == ""
    for other in ("results/paper.csv", "notes.txt"):
        (project / "notes.txt").write_text("mine")
        before = (project / other).read_bytes()
        _, error = report(project, option, other)
        assert f"{other} is not replaced: it does not begin like a p" in error
        assert (project / other).read_bytes() == before


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("record.json", "{}"),
        ("record.json", "[]"),
        ("record.json", '{"name": "cut'),
        ("metrics.csv", "epoch,val/top1\n0,0.5\n1"),
        ("metrics.csv", "epoch,val/top1\n0,half\n"),
        ("metrics.csv", ""),
        ("quantizers.csv", "layer,is_weight\n0,1,2\n"),
        ("quantizers.csv", "\0\0"),
        ("quantizers.csv", "layer,is_weight,bits\n0,,2\n"),
        ("metrics.csv", "epoch,val/top1\nnan,0.5\n"),
    ],
)
def test_a_damaged_file_is_named(name: str, content: str, tmp_path: Path) -> None:
    file = make_run(tmp_path, MADE) / name
    file.write_text(content)
    with pytest.raises(ValueError, match=f"{file} is (damaged|not a record of a run) "):
        read_results([tmp_path])


def test_a_score_that_is_not_a_number_is_named(tmp_path: Path) -> None:
    file = make_run(tmp_path, MADE) / "record.json"
    record = json.loads(file.read_text())
    record["scores"]["top1"]["last"] = float("nan")
    file.write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"scores\.top1\.last=nan"):
        read_results([tmp_path])


def test_a_file_that_would_fill_the_memory_is_named(tmp_path: Path) -> None:
    file = tmp_path / "metrics.csv"
    with file.open("wb") as stream:
        stream.truncate(200 * 2**30)
    with pytest.raises(SqakdError, match=rf"{file} is damaged \(it has 214748.4 MB, expected at most 256.0 MB\)"):
        read_numbers(file, "epoch")


def test_a_damaged_export_is_named(tmp_path: Path) -> None:
    folder = make_run(tmp_path, MADE) / "export-exact"
    folder.mkdir()
    (folder / "record.json").write_text("{")
    with pytest.raises(ValueError, match=f"{folder / 'record.json'} is not a record of an export"):
        read_results([tmp_path])


def test_early_records_without_later_keys_are_reported(tmp_path: Path) -> None:
    file = make_run(tmp_path / "runs", MADE) / "record.json"
    record = json.loads(file.read_text())
    for key in ("device", "threads", "finished", "weights_sha256", "training_seconds", "versions", "drop_from_float"):
        del record[key]
    record["commit"] = None
    file.write_text(json.dumps(record))
    (tmp_path / "paper.csv").write_text(PAPER)
    write_report(tmp_path / "runs", tmp_path)
    assert (tmp_path / "report.html").read_text().count("not recorded") >= 6


def test_runs_made_before_records_had_a_version_are_reported(tmp_path: Path) -> None:
    (tmp_path / "paper.csv").write_text(PAPER)
    write_report(command.ROOT / "tests" / "old_runs" / "version1", tmp_path)
    rows = {row["quantizer"]: row for row in csv.DictReader((tmp_path / "digits16.csv").open(newline=""))}
    assert rows.keys() == {"ewgs", "none"}, "the third run is not finished"
    assert (rows["ewgs"]["top1_last_mean"], rows["ewgs"]["epochs"]) == ("8.5938", "2")
    assert rows["ewgs"]["changed"] == "dataset.limit=128, recipe.epochs=2, teacher.recipe.epochs=2"


def test_the_same_run_in_two_folders_counts_once(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make_run(tmp_path / name, MADE)
    results = read_results([tmp_path / "b", tmp_path / "a"])
    assert [run.folder for run in results.runs] == [tmp_path / "b" / MADE.name / "seed0"]


def repeat(runs: Path, name: str, cell: str, **changes: Any) -> Path:
    """Make another run of `MADE` under a name, with the configuration that names its cell."""
    folder = runs / name / "seed0"
    folder.parent.mkdir(parents=True)
    make_run(runs / "made", MADE, name=name, **changes).rename(folder)
    (folder / "config.yaml").write_text(f"name: {name}\ncell: {cell}\n")
    return folder


def test_the_run_with_the_name_of_its_cell_counts_and_repetitions_are_named(tmp_path: Path) -> None:
    again, own, other = (
        repeat(tmp_path, name, MADE.name, weights_sha256=name[0] * 64) for name in ("again", MADE.name, "other")
    )
    omitted: list[SqakdError] = []
    assert [run.folder for run in read_results([tmp_path], omit=omitted.append).runs] == [own]
    advice = "train a repetition with another seed"
    assert [explain(error) for error in omitted] == [
        f"{folder} is the same cell and seed as {own}; {advice}" for folder in (again, other)
    ]
    with pytest.raises(SqakdError, match=f"{again} is the same cell and seed as {own}"):
        read_results([tmp_path])


def test_a_copy_of_a_run_is_left_out_without_a_word(tmp_path: Path) -> None:
    repeat(tmp_path, "again", MADE.name)
    own = repeat(tmp_path, MADE.name, MADE.name)
    assert [run.folder for run in read_results([tmp_path]).runs] == [own]


def test_without_the_name_of_the_cell_the_first_name_counts(tmp_path: Path) -> None:
    first, second = (repeat(tmp_path, name, MADE.name, weights_sha256=None) for name in ("first", "second"))
    omitted: list[SqakdError] = []
    assert [run.folder for run in read_results([tmp_path], omit=omitted.append).runs] == [first]
    assert [str(error) for error in omitted] == [f"{second} is the same cell and seed as {first}"]


def test_a_folder_with_the_record_of_another_seed_is_named(tmp_path: Path) -> None:
    own = make_run(tmp_path, MADE)
    for name in ("seed1", "seed0.bak"):
        shutil.copytree(own, own.with_name(name))
    omitted: list[SqakdError] = []
    assert [run.folder for run in read_results([tmp_path], omit=omitted.append).runs] == [own]
    assert [explain(error) for error in omitted] == [
        f"{own.with_name(name)} has the record of seed 0; rename the folder to seed0, or delete it"
        for name in ("seed0.bak", "seed1")
    ]
    shutil.rmtree(own)
    with pytest.raises(SqakdError, match="no finished run in"):
        read_results([tmp_path], omit=omitted.append)


def test_quantizers_are_read_for_the_first_seed_only(tmp_path: Path) -> None:
    make_grid(tmp_path, quantizers=("ewgs",), bits=(2,), kds=("sqakd",))
    (runs,) = (runs for cell, runs in read_results([tmp_path]).cells.items() if cell.kd == "sqakd")
    assert [len(run.quantizers) for run in runs] == [38, 0, 0]
    assert [len(run.curve) for run in runs] == [20, 20, 20]


def test_quantizers_are_those_of_the_last_epoch(tmp_path: Path) -> None:
    file = make_run(tmp_path, MADE) / "quantizers.csv"
    header, *lines = file.read_text().splitlines()
    (before,) = read_results([tmp_path]).runs
    rows = [f"{epoch},layer{line[0]},{line}" for epoch in (8, 9) for line in lines]
    rows[: len(lines)] = [row.replace("0.", "0.9") for row in rows[: len(lines)]]
    file.write_text("\n".join([f"epoch,name,{header}", *rows]) + "\n")
    (after,) = read_results([tmp_path]).runs
    assert before.quantizers, "a file of an earlier version has the last epoch alone"
    assert [{**row, "epoch": 9.0} for row in before.quantizers] == after.quantizers


def test_each_training_method_is_compared_with_labels_alone(project: Path) -> None:
    report(project)
    lines = list(csv.DictReader((project / "results" / "digits16.csv").open(newline="")))
    line = next(line for line in lines if line["kd"] == "sqakd")
    base = next(line for line in lines if line["kd"] == "none" and line["w_bits"] == "2")
    assert (line["labels_kd"], line["labels_n"], base["labels_kd"], base["labels_n"]) == ("none", "3", "", "")
    for kind in ("last", "best", "mean_of_last_5"):
        value = float(line[f"top1_{kind}_mean"]) - float(base[f"top1_{kind}_mean"])
        error = ((float(line[f"top1_{kind}_std"]) ** 2 + float(base[f"top1_{kind}_std"]) ** 2) / 3) ** 0.5
        assert float(line[f"labels_{kind}_difference"]) == pytest.approx(value, abs=2e-4)
        assert float(line[f"labels_{kind}_standard_error"]) == pytest.approx(error, abs=2e-4)
        expected = "not distinguishable" if abs(value) <= 2 * error else "better" if value > 0 else "worse"
        assert line[f"labels_{kind}_verdict"] == expected
    text = (project / "results" / "digits16.md").read_text()
    _, _, below = text.partition("## Compared with labels alone")
    last, best, tail = (f"{float(line[f'labels_{k}_difference']):+.2f}" for k in ("last", "best", "mean_of_last_5"))
    assert (
        "| last: difference | last: verdict | best: difference | best: verdict | mean of last 5: difference |" in below
    )
    row = next(row for row in below.splitlines() if row.startswith("| digits16 | resnet20 | ewgs | W2A2 | sqakd |"))
    assert row.index(last) < row.rindex(best) < row.rindex(tail)


def test_a_loss_of_the_released_scripts_is_compared_with_labels_at_its_learning_rate(tmp_path: Path) -> None:
    for kd in ("none", "none_matched", "sqakd_released", "sqakd"):
        make_run(tmp_path / "runs", Made("digits16", "resnet20", "ewgs", 2, kd, 0))
    (tmp_path / "paper.csv").write_text(PAPER)
    write_report(tmp_path / "runs", tmp_path)
    lines = {line["kd"]: line for line in csv.DictReader((tmp_path / "digits16.csv").open(newline=""))}
    assert {kd: line["labels_kd"] for kd, line in lines.items()} == {
        "none": "",
        "none_matched": "",
        "sqakd": "none",
        "sqakd_released": "none_matched",
    }
    assert lines["sqakd"]["labels_last_verdict"] == "", "a single seed"


@pytest.mark.parametrize(
    ("kd", "run", "expected"),
    [
        ("sqakd+bn+ema", ["none", "none+bn", "none+bn+ema"], "none+bn+ema"),
        ("sqakd+bn+ema", ["none", "none+bn"], "none"),
        ("sqakd+bn+ema", ["none+bn"], None),
        ("sqakd", ["none+bn", "none"], "none"),
        ("sqakd_released+bn", ["none", "none_matched", "none+bn", "none_matched+bn"], "none_matched+bn"),
        ("sqakd_released+bn", ["none", "none_matched", "none+bn"], "none+bn"),
        ("sqakd_released+bn", ["none", "none_matched"], "none_matched"),
        ("none+bn", ["none"], "none"),
        ("none_matched+bn", ["none", "none+bn", "none_matched"], "none_matched"),
        ("none", ["none", "none_matched"], None),
        ("none_matched", ["none"], None),
    ],
)
def test_add_ons_are_on_both_sides_if_they_were_run(kd: str, run: list[str], expected: str | None) -> None:
    def cell(name: str) -> Cell:
        return Cell("digits16", "resnet20", "ewgs", 2, 2, name)

    found = labels_alone(cell(kd), {cell(name): [] for name in [*run, kd]})
    assert found == (None if expected is None else cell(expected))


@pytest.mark.parametrize(
    ("changes", "plus", "base", "base_plus"),
    [
        ({"kd.temperature": 2}, "", {}, ""),
        ({"kd.temperature": 2}, "", {"kd.temperature": 2}, ""),
        ({"kd.temperature": 2, "recipe.epochs": 9}, "", {"recipe.epochs": 9}, ""),
        ({"plus.ema.epochs": 3}, "ema", {}, ""),
        ({"plus.ema.epochs": 3, "kd.kl": 2}, "ema", {"plus.ema.epochs": 3}, "ema"),
        (
            {"kd.temperature": 2, "kd.label_smoothing": 0.1, "recipe.label_smoothing": 0.1},
            "",
            {"kd.label_smoothing": 0.1, "recipe.label_smoothing": 0.1},
            "",
        ),
    ],
)
def test_changed_values_of_the_method_may_be_on_one_side_only(
    changes: dict[str, Any], plus: str, base: dict[str, Any], base_plus: str, tmp_path: Path
) -> None:
    for kd, values, add_ons in (("sqakd", changes, plus), ("none", base, base_plus)):
        choices = {"dataset": "digits16", "quantizer": "ewgs", "kd": kd, "plus": add_ons}
        make_run(tmp_path, replace(MADE, kd=kd), choices=choices, changes=values)
    (tmp_path / "paper.csv").write_text(PAPER)
    write_report(tmp_path, tmp_path)
    lines = {line["kd"]: line for line in csv.DictReader((tmp_path / "digits16.csv").open(newline=""))}
    line = lines["+".join(filter(None, ["sqakd", plus]))]
    assert line["labels_kd"] == "+".join(filter(None, ["none", base_plus]))
    assert line["labels_last_difference"]
    assert "## Compared with labels alone" in (tmp_path / "digits16.md").read_text()


@pytest.mark.parametrize(
    ("changes", "plus", "base"),
    [
        ({"kd.temperature": 2, "recipe.epochs": 9}, "", {}),
        ({}, "", {"kd.ce": 2}),
        ({"plus.ema.epochs": 3}, "ema", {"plus.ema.epochs": 2}),
    ],
)
def test_other_changed_values_are_on_both_sides(
    changes: dict[str, Any], plus: str, base: dict[str, Any], tmp_path: Path
) -> None:
    for kd, values in (("sqakd", changes), ("none", base)):
        choices = {"dataset": "digits16", "quantizer": "ewgs", "kd": kd, "plus": plus}
        make_run(tmp_path, replace(MADE, kd=kd), choices=choices, changes=values)
    cells = read_results([tmp_path]).cells
    assert labels_alone(next(cell for cell in cells if cell.kd.startswith("sqakd")), cells) is None


def test_the_table_names_the_cell_that_is_compared_with(tmp_path: Path) -> None:
    for kd, plus in (("none", ""), ("none", "bn+ema"), ("sqakd", "bn+ema"), ("sqakd", "bn")):
        made = replace(MADE, kd=f"{kd}+{plus}" if plus else kd)  # of its own name
        make_run(tmp_path, made, choices={"dataset": "digits16", "quantizer": "ewgs", "kd": kd, "plus": plus})
    (tmp_path / "paper.csv").write_text(PAPER)
    write_report(tmp_path, tmp_path)
    below = (tmp_path / "digits16.md").read_text().partition("## Compared with labels alone")[2]
    rows = [line.split(" | ") for line in below.splitlines() if line.startswith("| ")]
    column = rows[0].index("labels")
    held = {row[rows[0].index("kd")]: row[column] for row in rows[2:]}
    assert held == {"sqakd+bn": "none", "sqakd+bn+ema": "none+bn+ema", "none+bn+ema": "none"}
    assert "includes the effect of the add-ons" in below


def test_a_changed_cell_is_not_compared_with_an_unchanged_one(tmp_path: Path) -> None:
    make_run(tmp_path, Made("digits16", "resnet20", "ewgs", 2, "none", 0))
    make_run(tmp_path, MADE, changes={"recipe.epochs": 3})
    results = read_results([tmp_path])
    (cell,) = (cell for cell in results.cells if cell.kd == "sqakd")
    assert cell == Cell("digits16", "resnet20", "ewgs", 2, 2, "sqakd", "recipe.epochs=3")
    (tmp_path / "paper.csv").write_text(PAPER)
    write_report(tmp_path, tmp_path)
    assert "Compared with labels alone" not in (tmp_path / "digits16.md").read_text()


def test_damaged_files_are_left_out_with_advice_and_the_others_are_reported(project: Path) -> None:
    run = project / "runs" / MADE.name / f"seed{MADE.seed}"
    (run / "metrics.csv").write_text("epoch\nx\n")
    other = next(path for path in sorted((project / "runs").glob("*/seed*")) if path != run)
    (other / "record.json").write_text("{")
    done = command.script("-m", "sqakd.report", folder=project)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 2
    assert any(
        line.startswith(f"left out: {(run / 'metrics.csv').relative_to(project)} is damaged (")
        and line.endswith("; restore the file, or delete it: the report can do without it")
        for line in lines
    )
    assert any(f"{(other / 'record.json').relative_to(project)} is not a record of a run" in line for line in lines)
    assert "results/ours.csv" in done.stdout


def test_a_readme_that_is_not_text_is_reported_in_one_line(project: Path) -> None:
    (project / "README.md").write_bytes(b"\xff")
    _, error = report(project)
    assert error.startswith("error: cannot read README.md: 'utf-8' codec can't decode")

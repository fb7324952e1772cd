"""Reports and dashboards of every mix of runs: with and without labels, teacher, curves, exports and early records."""

from __future__ import annotations

import csv
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import command
import pytest
from made_runs import Made, make_export, make_run

from sqakd.dashboard import definition
from sqakd.dashboard.page import PICTURES
from sqakd.errors import SqakdError
from sqakd.report.charts.lines import Line, draw_lines
from sqakd.report.charts.points import Point, Series, draw_points
from sqakd.report.headline import headline
from sqakd.report.panels import PANELS
from sqakd.report.pictures.scores import bits_charts
from sqakd.report.results import Results, read_results, without_shared_changes
from sqakd.report.sections import sections
from sqakd.report.write import readme_tables, texts_by_file
from sqakd.runs.record import changes_text

STUDENT = Made("digits", "resnet20", "ewgs", 2, "sqakd", 0, epochs=2, layers=2)
IMAGES = replace(STUDENT, dataset="imagefolder")
OPTIONAL = ("float_run", "paper", "drop_from_float", "labels_used", "parameters", "images_per_second")
OPTIONAL_TOO = ("training_seconds", "commit", "versions", "device", "devices", "threads", "finished", "weights_sha256")
PAPER = """table,dataset,model,quantizer,bits,kd,top1,top5,source,reference
table8,digits,resnet20,ewgs,2,sqakd,98.00,,paper,here
table8,digits,resnet20,ewgs,4,sqakd,,,unknown,nowhere
table9,imagefolder,resnet20,ewgs,2,sqakd,91.00,,paper,here
"""


def rewrite(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """Change the record of a run."""
    record = json.loads((folder / "record.json").read_text())
    change(record)
    (folder / "record.json").write_text(json.dumps(record))
    return folder


def without_labels(runs: Path, made: Made) -> Path:
    folder = rewrite(make_run(runs, made), lambda record: record["scores"].pop("top1"))
    curves = folder / "metrics.csv"
    curves.write_text(curves.read_text().replace("val/top1", "val/kl"))
    return folder


def labelled_images(runs: Path) -> Path:
    """Make a run of the same data set and network as the runs without labels: another folder of images."""
    return make_run(runs, replace(IMAGES, kd="dist"), changes={"dataset.folder": "with_classes"})


def without_optional_fields(runs: Path) -> Path:
    folder = make_run(runs, replace(STUDENT, quantizer="lsq"))
    for name in ("metrics.csv", "quantizers.csv"):
        (folder / name).unlink()
    return rewrite(folder, lambda record: [record.pop(key, None) for key in OPTIONAL + OPTIONAL_TOO])


def without_scores(runs: Path) -> Path:
    """Make a run with nothing to show: no score, no row in its tables, and no size."""
    folder = make_run(runs, replace(STUDENT, quantizer="pact"), scores={}, epochs=0, packed_bytes=0, bit_operations=0)
    for name in ("metrics.csv", "quantizers.csv"):
        (folder / name).write_text((folder / name).read_text().splitlines()[0] + "\n")
    return folder


def not_finite(runs: Path) -> Path:
    folder = make_run(runs, replace(STUDENT, quantizer="dorefa"))
    (folder / "metrics.csv").write_text("epoch,val/top1,val/kl,train/loss\n0,nan,inf,nan\n1,0.5,inf,-inf\n")
    (folder / "quantizers.csv").write_text("layer,is_weight,bits,lower,upper,code_0\n0,1,2,nan,inf,nan\n")
    return folder


def unfinished(runs: Path) -> Path:
    folder = make_run(runs, replace(STUDENT, bits=8))
    (folder / "record.json").unlink()
    return folder


KINDS: dict[str, Callable[[Path], Path]] = {
    "float": lambda runs: make_run(runs, STUDENT.float_run),
    "student": lambda runs: make_export(make_run(runs, STUDENT), STUDENT),
    "without teacher": lambda runs: rewrite(
        make_run(runs, replace(STUDENT, kd="none"), float_run=None),
        lambda record: record["scores"].pop("agreement"),
    ),
    "unlabelled": lambda runs: without_labels(runs, IMAGES),
    "labelled images": labelled_images,
    "without optional fields": without_optional_fields,
    "without scores": without_scores,
    "not finite": not_finite,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Results]:
    """Return the results of each kind of run alone."""
    folder = tmp_path_factory.mktemp("mixed")
    (folder / "paper.csv").write_text(PAPER)
    for name, make in KINDS.items():
        unfinished(folder / name)
        make(folder / name)
    return {name: read_results([folder / name], folder / "paper.csv") for name in KINDS}


def mixes(made: dict[str, Results]) -> Iterator[tuple[tuple[str, ...], Results]]:
    """Yield the results of every set of kinds, in the order in which they are read."""
    for count in range(len(KINDS) + 1):
        for names in combinations(KINDS, count):
            some = [made[name] for name in names]
            cells = sorted((item for one in some for item in one.cells.items()), key=lambda item: item[0].order)
            exports = [export for one in some for export in one.exports]
            yield names, Results(dict(cells), made["float"].paper, exports)


def words(picture: str) -> str:
    return " ".join("".join(ET.fromstring(f"<div>{picture}</div>").itertext()).split())


def test_every_mix_of_runs_has_a_report(made: dict[str, Results]) -> None:
    """Every picture and table of every mix is complete, and no number is missing that a run has."""
    for names, results in mixes(made):
        shown = {section.name: words(section.body) for section in sections(results)}
        texts = texts_by_file(results) | readme_tables(results)
        for text in (*shown.values(), *texts.values()):
            assert " nan" not in text, names
            assert " inf" not in text, names
        if bits_charts(results).charts:
            ET.fromstring(headline(results))


def test_every_mix_of_runs_has_a_dashboard(made: dict[str, Results]) -> None:
    pictures = {panel.picture for panel in definition.read().panels} - PANELS.keys()
    assert pictures, "those of the report are covered above"
    for names, results in mixes(made):
        for name in pictures:
            assert " nan" not in words(PICTURES[name](results)), names


def test_a_run_without_labels_shows_its_agreement_next_to_labelled_runs(made: dict[str, Results]) -> None:
    names = ("student", "unlabelled", "labelled images")
    results = next(results for mix, results in mixes(made) if mix == names)
    (unlabelled,) = (run for run in made["unlabelled"].runs)
    agreement = f"{unlabelled.score('agreement', 'last'):.2f} (1)"
    tree = ET.fromstring(PANELS["bits"](results))
    facets = {facet[0].text: facet for facet in tree.iter("div") if facet.get("class") == "facet"}
    assert len(facets) == 3
    tips = {title: [tip.text for tip in facet.iter("title")] for title, facet in facets.items()}
    assert tips["imagefolder resnet20 ewgs, agreement"] == [f"imagefolder resnet20 ewgs W2A2 sqakd: {agreement}"]
    assert "agreement %" in words(ET.tostring(facets["imagefolder resnet20 ewgs, agreement"], encoding="unicode"))
    assert "top-1 %" in words(ET.tostring(facets["digits resnet20 ewgs"], encoding="unicode"))
    for name in ("curves", "pareto"):
        assert agreement in PANELS[name](results), name
    for name in ("bits", "curves"):
        assert "; no labels: agreement with the teacher" in words(PANELS[name](results)), name
    tables = readme_tables(results)
    row = next(line for line in tables["table9"].splitlines() if "| sqakd |" in line)
    assert agreement in row
    summary = next(line for line in tables["table9-summary"].splitlines() if "| ewgs |" in line)
    assert f"agreement {agreement}" in summary


def test_no_share_above_all_of_them_is_named() -> None:
    points = draw_points(["W2A2"], [Series(0, [Point(0, 100.0, None, "")])], (99.5, 100.5), unit="top-1 %", label="")
    lines = draw_lines([Line(0, [1, 2], [100.0, 100.0], [], "")], (99.5, 100.5), 2, unit="agreement %", label="")
    for svg in (points, lines):
        assert ">100<" in svg
        assert ">100." not in svg


def test_unfinished_runs_alone_are_refused_in_one_sentence(tmp_path: Path) -> None:
    unfinished(tmp_path)
    with pytest.raises(SqakdError, match="no finished run in"):
        read_results([tmp_path])


def test_a_page_and_a_table_state_shared_changes_once_and_a_csv_in_each_row(tmp_path: Path) -> None:
    shared = {"dataset.limit": 128, "teacher.checkpoint": "float.pt"}
    own = {"quantizer.input.start": "mse", "quantizer.weight.start": "mse"}
    for seed, kd, changes in ((0, "sqakd", shared), (0, "squat", shared | own), (1, "squat", shared | own)):
        make_run(tmp_path, Made("digits16", "resnet20", "ewgs", 1, kd, seed), changes=changes)
    results = read_results([tmp_path])
    texts = texts_by_file(results)
    rows = list(csv.DictReader(texts["digits16.csv"].splitlines()))
    with_start = dict(sorted({**shared, "quantizer.start": "mse"}.items()))
    assert [row["changed"] for row in rows] == [changes_text(shared), changes_text(with_start)]
    for text in (texts["digits16.md"], "".join(section.body for section in sections(results)[:-1])):
        assert text.count("float.pt") == 1
        assert "quantizer.start=" in text


def test_where_ranges_start_is_never_a_shared_change(tmp_path: Path) -> None:
    """The comparison with SQAKD tells starts apart, and PACT has one key where other quantizers have two."""
    own = {"pact": {"quantizer.input.start": "mse"}}
    own["lsq"] = own["pact"] | {"quantizer.weight.start": "mse"}
    for quantizer, changes in own.items():
        made = Made("digits16", "resnet20", quantizer, 1, "sqakd", 0)
        make_run(tmp_path, made, changes={"recipe.lr": 0.1, **changes})
    cells = without_shared_changes(read_results([tmp_path])).cells
    assert {cell.quantizer: cell.changes for cell in cells} == dict.fromkeys(own, 'quantizer.start="mse"')


def describe_stage(folder: Path, share: float) -> None:
    """Write the config.yaml of a run of eight epochs, of which a stage takes a share."""
    (folder / "config.yaml").write_text(f"recipe: {{epochs: 8}}\nkd: {{feature_loss: {{pretrain_share: {share}}}}}\n")


def test_curves_begin_after_a_stage_that_took_the_first_epochs(tmp_path: Path) -> None:
    for kd, rows, share in (("sqakd", 8, 0), ("reconstruction", 6, 0.25)):
        folder = make_run(tmp_path, replace(STUDENT, kd=kd, epochs=rows), epochs=8)
        describe_stage(folder, share)
    curves = {cell.kd: runs[0].curve for cell, runs in read_results([tmp_path]).cells.items()}
    assert [row["epoch"] for row in curves["sqakd"]] == list(range(8))
    assert [row["epoch"] for row in curves["reconstruction"]] == list(range(2, 8))


@pytest.mark.parametrize(("share", "expected"), [(None, 8), (0, 8), (0.25, 6)])
@pytest.mark.parametrize("rows", [0, 1, 5])
def test_curves_that_were_cut_at_the_end_of_a_line_are_damaged(
    rows: int, share: float | None, expected: int, tmp_path: Path
) -> None:
    folder = make_run(tmp_path, replace(STUDENT, epochs=8))
    if share is not None:
        describe_stage(folder, share)
    file = folder / "metrics.csv"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[: 1 + rows]))
    message = rf"{file} is damaged \(it has {rows} rows, expected one for each of {expected} epochs\)"
    with pytest.raises(SqakdError, match=message):
        read_results([tmp_path])


def test_a_run_of_a_published_network_keeps_its_changes(tmp_path: Path) -> None:
    """Without them, it would look like the published cell."""
    make_run(tmp_path / "runs", Made("cifar10", "resnet20", "ewgs", 2, "sqakd", 0), changes={"recipe.epochs": 2})
    results = read_results([tmp_path / "runs"], command.ROOT / "results" / "paper.csv")
    assert without_shared_changes(results, published=False).cells == results.cells
    assert [cell.changes for cell in without_shared_changes(results).cells] == [""]


def test_a_point_below_the_scale_is_drawn_at_its_bottom_with_its_value() -> None:
    points = [Point(0, 45.42, 3.0, "failed"), Point(1, 90.0, None, ""), Point(2, 91.0, None, "")]
    drawn = draw_points(["W1A1", "W2A2", "W4A4"], [Series(0, points)], (86.0, 91.0), unit="top-1 %", label="")
    assert "\u2193 45.4<" in drawn
    assert drawn.count('class="m s0"') == 3
    assert 'class="bar' not in drawn
    (line,) = re.findall(r'class="thin s0" d="([^"]*)"', drawn)
    assert line.count("L") == 1, "the point is not joined to the others"

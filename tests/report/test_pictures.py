"""The report's pictures: one mark for each number, a reason for an empty picture, and correct clip ranges."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import command
import pytest
import small
import torch
from made_runs import Made, make_export, make_grid, make_run

from sqakd.quantization.layers import QuantLayer
from sqakd.report.charts.lines import MOST_POINTS
from sqakd.report.headline import headline
from sqakd.report.panels import PANELS, TITLES
from sqakd.report.pictures.ranges_and_codes import clip_range
from sqakd.report.results import Results, read_results
from sqakd.training.callbacks.quantizer_statistics import statistics

PAPER = """table,dataset,model,quantizer,bits,kd,top1,top5,source,reference
table8,digits16,resnet20,ewgs,2,none,97.00,,paper,here
table8,digits16,resnet20,ewgs,2,sqakd,98.00,,paper,here
table9,cifar10,resnet20,ewgs,2,sqakd,91.00,,paper,here
"""
METHODS = sorted(file.stem for file in (command.ROOT / "conf" / "quantizer").glob("*.yaml") if file.stem != "none")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Two quantizers, two bit widths, labels and SQAKD with three seeds, and SQuaT with one seed."""
    folder = tmp_path_factory.mktemp("made")
    make_grid(folder / "runs")
    make_run(folder / "runs", Made("digits16", "resnet20", "ewgs", 2, "squat", 0, epochs=500))
    (folder / "paper.csv").write_text(PAPER)
    return read_results([folder / "runs"], folder / "paper.csv")


def parsed(name: str, results: Results) -> ET.Element:
    """Return a picture as a tree; an unclosed tag or an unescaped character is an error."""
    return ET.fromstring(f"<div>{PANELS[name](results)}</div>")


def classes(tree: ET.Element, name: str) -> list[ET.Element]:
    return [element for element in tree.iter() if name in element.get("class", "").split()]


def charts(tree: ET.Element) -> dict[str, ET.Element]:
    return {facet[0].text or "": facet for facet in classes(tree, "facet")}


def tips(tree: ET.Element) -> list[str]:
    return [element.text or "" for element in tree.iter("title")]


def words(tree: ET.Element) -> str:
    return " ".join("".join(tree.itertext()).split())


@pytest.mark.parametrize("name", PANELS)
def test_each_picture_is_valid_and_described(name: str, results: Results) -> None:
    tree = parsed(name, results)
    assert [child.tag for child in tree] == ["figure"]
    assert len(words(tree.find("figure/figcaption") or tree)) > 50
    drawings = [svg for svg in tree.iter("svg") if svg.get("role") == "img"]
    assert drawings
    assert all(svg.get("aria-label") and svg.get("viewBox") for svg in drawings)
    assert not [element for element in tree.iter() if re.fullmatch("h[1-6]", element.tag)]
    assert TITLES[name]


def test_accuracy_has_a_mark_for_each_cell_and_an_error_bar_for_several_seeds(results: Results) -> None:
    found = charts(parsed("bits", results))
    assert list(found) == ["ewgs", "lsq"]
    marks = [tip for tip in tips(found["ewgs"]) if not tip.startswith("float run")]
    assert len(marks) == 5
    assert sum("± " in mark for mark in marks) == 4
    assert [mark for mark in marks if "squat" in mark and mark.endswith("(1)")]
    assert sum(path.get("d", "").count("V") for path in classes(found["ewgs"], "bar")) == 4, "no bar for a single seed"
    assert len(classes(found["ewgs"], "reference")) == 1


@pytest.mark.parametrize("float_run", ["unchanged", "changed", "elsewhere", "unknown"])
def test_the_float_run_is_drawn_wherever_its_score_is_known(float_run: str, tmp_path: Path) -> None:
    changes = {"recipe.epochs": 3}
    made = Made("digits16", "resnet20", "ewgs", 2, "sqakd", 0)
    make_run(tmp_path, made, changes=changes, **({"float_run": None} if float_run == "unknown" else {}))
    if float_run in ("unchanged", "changed"):
        make_run(tmp_path, made.float_run, changes=changes if float_run == "changed" else {})
    results = read_results([tmp_path])
    for name in ("bits", "curves"):
        tree = parsed(name, results)
        is_drawn = bool([tip for tip in tips(tree) if tip.startswith("float run: ")])
        assert is_drawn == (float_run != "unknown"), name
        assert ("float run" in words(classes(tree, "legend")[0])) == is_drawn, name
    assert ("float run" in headline(results)) == (float_run != "unknown")


def test_a_gain_is_filled_only_if_it_is_distinguishable(results: Results) -> None:
    found = charts(parsed("labels", results))["ewgs"]
    for mark in classes(found, "m"):
        tip = tips(mark)[0]
        hollow = "h" in mark.get("class", "").split()
        assert hollow == ("better" not in tip and "worse" not in tip), tip
        assert ("squat" in tip) == tip.endswith("n 1 and 3, no verdict")
    assert len(classes(found, "m")) == 3


def test_curves_are_thinned_and_have_a_band_for_several_seeds(results: Results) -> None:
    found = charts(parsed("curves", results))
    assert list(found) == ["ewgs W1A1", "lsq W1A1", "ewgs W2A2", "lsq W2A2"]
    lines = {tips(line)[0]: line.get("d", "") for line in classes(found["ewgs W2A2"], "line")}
    assert len(lines) == 3
    long = next(d for tip, d in lines.items() if "squat" in tip)
    assert long.count("L") + 1 == MOST_POINTS
    assert all(d.count("L") + 1 == 20 for d in lines.values() if d != long)
    assert len(classes(found["ewgs W2A2"], "band")) == 2


def test_codes_show_each_used_code_and_count_unused_ones(tmp_path: Path) -> None:
    folder = make_run(tmp_path, Made("digits16", "resnet20", "ewgs", 2, "sqakd", 3))
    rows = ["layer,is_weight,bits,lower,upper,code_-3,code_-1,code_1,code_3,code_0,code_2"]
    rows += ["0,1,2,-1,1,0,0.5,0.25,0.25,,", "0,0,2,0,3,,,0.25,0,0.75,0"]
    (folder / "quantizers.csv").write_text("\n".join(rows) + "\n")
    found = charts(parsed("codes", read_results([tmp_path])))
    weights, inputs = found["sqakd, seed 3: weights"], found["sqakd, seed 3: inputs"]
    assert sum(path.get("d", "").count("M") for path in classes(weights, "heat")) == 3
    assert tips(weights) == ["layer 0, weights: 3 of 4 codes, 1.50 bits; most: -1 (50%)"]
    assert words(weights).endswith("entropy 1.50 of 2 bits; never used: 1 code")
    assert sum(path.get("d", "").count("M") for path in classes(inputs, "heat")) == 2
    assert words(inputs).endswith("entropy 0.81 of 2 bits; never used: 2 codes")


def test_ranges_are_those_of_the_first_seed(results: Results) -> None:
    found = charts(parsed("ranges", results))
    assert "sqakd, seed 0: weights" in found
    assert not [title for title in found if "seed 1" in title]
    assert len(tips(found["sqakd, seed 0: inputs"])) == 19


@pytest.mark.parametrize("method", METHODS)
def test_the_ends_of_a_clip_range_have_the_outermost_codes(method: str) -> None:
    """Values at the ends of the range have the outermost codes, and so have those beyond."""
    model = small.quantized(f"quantizer={method}", "bits=2")
    images = torch.randn(4, *small.SHAPE, generator=torch.Generator().manual_seed(0))
    layers = [module for module in model.modules() if isinstance(module, QuantLayer)]
    for row in statistics(model, images):
        layer = layers[int(row["layer"])]
        quantizer = layer.weight_quantizer if row["is_weight"] else layer.input_quantizer
        ends = clip_range(method, row)
        if ends is None:
            assert method.startswith("dorefa") or (method.startswith("pact") and row["is_weight"]), method
            continue
        low, high = ends
        grid = quantizer.grid()
        # A hair inside the ends, where rounding cannot matter, and far beyond them.
        inside = torch.tensor([low, high]) * 0.999 + (low + high) / 2 * 0.001
        beyond = torch.tensor([low - 9.0, high + 9.0])
        for values in (inside, beyond):
            assert quantizer.codes(values).integers.tolist() == [grid[0], grid[-1]], (method, row)


def test_latency_is_shown_only_if_it_was_measured(tmp_path: Path) -> None:
    made = Made("digits16", "resnet20", "ewgs", 2, "sqakd", 0)
    folder = make_run(tmp_path, made)
    make_run(tmp_path, made.float_run)
    tree = parsed("pareto", read_results([tmp_path]))
    assert list(charts(tree)) == ["size"]
    assert "Size only: none of these runs has labels and was exported and measured" in words(tree)
    make_export(folder, made)
    tree = parsed("pareto", read_results([tmp_path]))
    assert list(charts(tree)) == ["size", "ONNX Runtime, 1 thread, A made-up processor"]
    assert "Size only" not in words(tree)
    timed = charts(tree)["ONNX Runtime, 1 thread, A made-up processor"]
    assert [tip.rpartition(": ")[2] for tip in tips(timed)] == ["99.70 %, 0.6 ms", "95.00 %, 0.4 ms"]


def test_published_numbers_are_next_to_ours(results: Results) -> None:
    tree = parsed("paper", results)
    assert list(charts(tree)) == ["table8 digits16 resnet20"]
    assert len(classes(charts(tree)["table8 digits16 resnet20"], "paper")) == 2
    assert "No run is a cell of: table9 (1)" in words(tree)


def test_an_empty_picture_gives_the_reason(tmp_path: Path) -> None:
    make_run(tmp_path, Made("digits16", "resnet20", "none", 32, "none", 0))
    results = read_results([tmp_path])
    shown = {name: words(parsed(name, results)) for name in PANELS}
    assert shown["bits"] == "No quantized network has been trained with the same bits for all layers."
    assert shown["labels"].startswith("Nothing to compare")
    assert shown["curves"] == "No quantized run here has val/agreement in its metrics.csv."
    assert shown["codes"] == shown["ranges"] == "No quantized run has a quantizers.csv."
    assert shown["agreement"] == "No run with the same bits for all layers was compared with a teacher."
    assert shown["paper"] == "No published numbers were read."


def test_agreement_is_shown_without_labels(tmp_path: Path) -> None:
    for seed in (0, 1):
        folder = make_run(tmp_path, Made("imagefolder", "resnet20", "ewgs", 2, "sqakd", seed))
        record = json.loads((folder / "record.json").read_text())
        del record["scores"]["top1"], record["drop_from_float"]
        (folder / "record.json").write_text(json.dumps(record))
        table = (folder / "metrics.csv").read_text().replace("val/top1", "val/kl")
        (folder / "metrics.csv").write_text(table)
    results = read_results([tmp_path])
    for name in ("bits", "curves", "pareto"):
        assert "agreement %" in words(parsed(name, results)), name
    assert "No labels" in words(parsed("bits", results))
    assert "Nothing to compare" in words(parsed("labels", results))


def test_names_are_escaped(tmp_path: Path) -> None:
    evil = '<script>alert("x")</script>&'
    made = replace(Made("digits16", "resnet20", "ewgs", 2, "sqakd", 0), model="a<b")
    make_run(tmp_path, made, changes={"plus": evil})
    results = read_results([tmp_path])
    for name in PANELS:
        parsed(name, results)
        assert "<script" not in PANELS[name](results)


def test_the_headline_is_one_complete_svg_file(results: Results, tmp_path: Path) -> None:
    """It has the marks of the panel and all styles that they need."""
    svg = headline(results)
    tree = ET.fromstring(svg)
    marks = [e.get("d") for e in tree.iter() if (e.get("class") or "").split()[:1] == ["m"]]
    panel = [e.get("d") for e in classes(parsed("bits", results), "m")]
    assert len(panel) > 10
    assert set(panel) <= set(marks)
    style = next(e.text or "" for e in tree.iter() if e.tag.endswith("style"))
    used = {word for e in tree.iter() for word in (e.get("class") or "").split()}
    assert used - {"title"} <= set(re.findall(r"\.([a-z][a-z0-9]*)", style))
    assert "prefers-color-scheme: dark" in style
    assert "<!" not in svg
    assert "url(" not in style


def test_there_is_no_headline_without_a_quantized_network(tmp_path: Path) -> None:
    make_run(tmp_path, Made("digits16", "resnet20", "none", 32, "none", 0))
    with pytest.raises(ValueError, match="no quantized run has a score"):
        headline(read_results([tmp_path], None))

"""The report of an export: complete, with the numbers of its record, and compared with other exports."""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
from made_runs import Made, made_export, make_export, make_run

from sqakd.export import report
from sqakd.export.machine import machine
from sqakd.export.report import write_export_report
from sqakd.export.report_pictures import fastest, layers_picture, score
from sqakd.report.figure import Picture
from sqakd.runs.export_record import ExportRecord, Sizes, write_export

MADE = Made("digits16", "resnet20", "ewgs", 2, "sqakd", 0)
RECORD = made_export(MADE)
OTHER = replace(RECORD, name="other", quantizer="lsq", verify=[replace(RECORD.verify[0], top1=0.96)])
assert RECORD.benchmark is not None
COUNTED = replace(
    RECORD,
    layers=[
        dict(layer)
        | ({"form": "counted", "wrong_sums_requantized": 3, "wrong_sums": 0} if "wrong_sums" in layer else {})
        for layer in RECORD.layers
    ],
    benchmark=replace(
        RECORD.benchmark,
        rows=[*RECORD.benchmark.rows, replace(RECORD.benchmark.rows[-1], name="ONNX Runtime uncounted", p50_ms=0.1)],
    ),
)


def words(element: ET.Element) -> str:
    return " ".join("".join(element.itertext()).split())


def test_the_report_has_the_numbers_of_the_record(tmp_path: Path) -> None:
    write_export_report(tmp_path, RECORD, [])
    assert {file.name for file in tmp_path.iterdir()} == {
        *("report.md", "report.html", "layers.svg", "latency.svg", "pareto.svg")
    }
    text, page = (tmp_path / "report.md").read_text(), (tmp_path / "report.html").read_text()
    for number in ("100.00%", "95.00%", "10.6x", "37,611", "0.400", "1.50x", "3 QLinearConv"):
        assert number in text
        assert number in page
    assert "Constant" not in text
    assert page.count("<figure>") == 3
    assert "src=" not in page
    assert "://" not in page


@pytest.mark.parametrize("name", ["layers", "latency", "pareto"])
def test_each_picture_is_a_complete_svg_file(name: str, tmp_path: Path) -> None:
    write_export_report(tmp_path, RECORD, [OTHER])
    file = tmp_path / f"{name}.svg"
    tree = ET.parse(file).getroot()
    assert tree.tag == "{http://www.w3.org/2000/svg}svg"
    assert tree.get("aria-label")
    style = next(element.text or "" for element in tree.iter() if element.tag.endswith("style"))
    used = {word for element in tree.iter() for word in (element.get("class") or "").split()}
    assert used - {"title"} <= {
        word for rule in style.split(".") for word in [rule.partition(" ")[0].partition(",")[0]]
    }
    assert f"]({file.name})" in (tmp_path / "report.md").read_text()


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        ({"processor": "P", "isa": ["avx2", "avx512f", "avx512_vnni"]}, "Compared on P (avx512_vnni)."),
        ({"processor": "P", "isa": ["avx2"]}, "Compared on P (avx2 without VNNI)."),
        ({"processor": "P", "isa": ["asimd", "asimddp"]}, "Compared on P (asimddp)."),
        ({"processor": "P", "isa": []}, "Compared on P (unknown instructions)."),
        ({}, "Compared on a processor that was not recorded (unknown instructions)."),
    ],
)
def test_the_proof_names_the_instructions_of_its_processor(machine: dict[str, object], words: str) -> None:
    record = replace(RECORD, machine=machine, benchmark=None)
    assert report.processor_note(record) == words
    assert report.processor_note(replace(record, profile="int8")).startswith(f"{words} On x86 processors without VNNI")


def test_a_record_keeps_the_machine_of_its_proof() -> None:
    record = replace(RECORD, machine={"processor": "P", "isa": ["avx2"]})
    assert ExportRecord.from_dict(record.to_dict()) == record
    earlier = {key: value for key, value in RECORD.to_dict().items() if key != "machine"}
    assert ExportRecord.from_dict(earlier).machine == {}


def test_the_instructions_are_those_of_the_operating_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sqakd.export.machine.CPUINFO", tmp_path / "cpuinfo")
    assert machine()["isa"] == []
    (tmp_path / "cpuinfo").write_bytes(b"model name\t: \xff\nflags\t\t: fpu avx2 avx512_vnni\n")
    assert machine()["isa"] == ["avx2", "avx512_vnni"]


@pytest.mark.parametrize(
    "bare",
    [
        replace(RECORD, verify=[], layers=[], benchmark=None),
        replace(RECORD, benchmark=replace(RECORD.benchmark, rows=[])),
        replace(RECORD, benchmark=replace(RECORD.benchmark, machine={})),
        replace(RECORD, verify=[replace(RECORD.verify[0], top1=None)]),
        replace(RECORD, sizes=Sizes(file=0, float=0)),
    ],
    ids=["nothing", "nothing was measured", "no machine", "no labels", "no size"],
)
def test_a_report_without_some_numbers_has_no_empty_pictures(bare: ExportRecord, tmp_path: Path) -> None:
    for others in ([], [OTHER], [bare, OTHER]):
        write_export_report(tmp_path, bare, others)
        for file in (tmp_path / "report.md").read_text().split("](")[1:]:
            assert (tmp_path / file.partition(")")[0]).is_file()
        assert '<div class="facets wide"></div>' not in (tmp_path / "report.html").read_text()
    if bare.verify and bare.verify[0].top1 is None:
        assert "lsq" not in (tmp_path / "pareto.svg").read_text(), "accuracy is not compared with agreement"


def test_a_report_without_a_benchmark_has_no_latency(tmp_path: Path) -> None:
    write_export_report(tmp_path, replace(RECORD, benchmark=None), [])
    assert not (tmp_path / "latency.svg").exists()
    assert "Speed" not in (tmp_path / "report.md").read_text()


def test_exports_of_the_same_data_set_are_compared(tmp_path: Path) -> None:
    elsewhere = replace(OTHER, dataset="cifar10", quantizer="pact")
    write_export_report(tmp_path, RECORD, [OTHER, elsewhere, RECORD])
    tree = ET.parse(tmp_path / "pareto.svg").getroot()
    titles = [element.text or "" for element in tree.iter() if element.tag.endswith("title")]
    assert sorted(titles) == [
        "resnet20 ewgs W2A2 exact: 95.00 %, 0.4 ms",
        "resnet20 ewgs W2A2 exact: 95.00 %, 102.3 kB",
        "resnet20 lsq W2A2 exact: 96.00 %, 0.4 ms",
        "resnet20 lsq W2A2 exact: 96.00 %, 102.3 kB",
    ]


def test_layers_have_their_size_and_their_wrong_sums() -> None:
    picture: Picture = layers_picture(RECORD.layers)
    sizes, wrong = (ET.fromstring(chart.svg) for chart in picture.charts)
    assert words(sizes).count("9.22 → 0.58") == 2
    assert "layer1.0.conv1: 3 of 37,611 sums" in words(wrong)
    assert "real output" in words(wrong)


def test_the_score_is_agreement_without_labels() -> None:
    unlabelled = replace(RECORD, verify=[replace(RECORD.verify[0], top1=None, agreement=0.5)])
    assert (score(RECORD), score(unlabelled)) == (95.0, 50.0)


def test_the_fastest_runtime_is_one_of_the_exported_file() -> None:
    assert fastest(RECORD) == 0.4
    assert fastest(replace(RECORD, benchmark=None)) is None
    assert fastest(COUNTED) == 0.4


def test_a_report_says_which_layers_are_counted_and_what_it_costs(tmp_path: Path) -> None:
    write_export_report(tmp_path, COUNTED, [])
    text = (tmp_path / "report.md").read_text()
    assert "1 of 1 layers between integers are counted" in text
    assert "would give 3 of their sums another code" in text
    assert "the whole file takes 4.00 to 4.00 times as long in ONNX Runtime." in text
    assert "integers, counted" in text
    assert "without counted layers" in (tmp_path / "latency.svg").read_text()
    write_export_report(tmp_path, replace(COUNTED, benchmark=None), [])
    assert "how much longer was not measured." in (tmp_path / "report.md").read_text()
    write_export_report(tmp_path, RECORD, [])
    assert "are counted" not in (tmp_path / "report.md").read_text()


@pytest.mark.parametrize(("distance", "tie"), [(2e-6, True), (0.3, False)])
def test_a_report_calls_differing_codes_ties_only_near_an_edge(distance: float, tie: bool, tmp_path: Path) -> None:
    layers = [dict(layer) | {"codes_that_differ": 1e-6, "farthest_from_an_edge": distance} for layer in RECORD.layers]
    write_export_report(tmp_path, replace(RECORD, layers=layers), [])
    text = (tmp_path / "report.md").read_text()
    assert f"at most {distance:.1e} of a step off the edge" in text
    assert ("where the rounding of float32 decides" in text) is tie


def test_the_command_prints_a_table_of_all_exports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_export(make_run(tmp_path / "runs", MADE), MADE)
    monkeypatch.setattr(sys, "argv", ["report", str(tmp_path / "runs")])
    report.main()
    header, _, row = capsys.readouterr().out.splitlines()
    assert header.startswith("| run | seed | profile | runtime | images | same class | top-1 |")
    assert row.startswith(
        f"| {MADE.name} | 0 | exact | ONNX Runtime 1.0 | 360 | 100.00% | 95.00% | - | 1.0e-06 | 3 of 37,611"
    )
    (folder / "layers.json").write_text("[]")
    write_export(folder / "record.json", replace(RECORD, benchmark=None))
    monkeypatch.setattr(sys, "argv", ["report", str(folder)])
    report.main()
    assert capsys.readouterr().out.strip() == str(folder / "report.html")
    assert (folder / "report.html").is_file()


def test_a_damaged_record_is_left_out_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_export(make_run(tmp_path / "runs", MADE), MADE)
    (folder / "record.json").write_text("{")
    monkeypatch.setattr(sys, "argv", ["report", str(tmp_path / "runs")])
    report.main()
    error = capsys.readouterr().err.strip()
    assert error.count("\n") == 0
    assert re.match(r"left out: .*record\.json is not a record of an export .*; delete .*record\.json or", error)

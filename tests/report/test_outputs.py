"""Outputs of the report: names from a fixed alphabet, text that stays text, and no file replaced that others wrote."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import command
import pytest
from made_runs import Made, make_run

from sqakd.errors import SqakdError
from sqakd.report.headline import cost_picture, headline
from sqakd.report.outputs import BITS, COST, CSV, LONGEST, MARKDOWN, stem
from sqakd.report.page import PAGE
from sqakd.report.readme import fill
from sqakd.report.results import read_results
from sqakd.report.table import Table, as_html, as_markdown, markdown
from sqakd.report.write import readme_tables, write_report

PAPER = """table,dataset,model,quantizer,bits,kd,top1,top5,source,reference
table9,cifar10,resnet20,ewgs,2,sqakd,91.00,,paper,here
../table8,cifar10,resnet18,ewgs,2,sqakd,91.00,,paper,here
"""
README = "# Mine\n\n<!-- report:paper-summary -->\nold\n<!-- /report -->\n\nmy text\x0c with odd \u2028 characters\n"
HOSTILE = [
    *(
        "../../outside",
        "/tmp/outside",
        "paper",
        "PAPER",
        "README",
        "ours",
        "report",
        "table9",
        ".hidden",
        ".",
        "..",
        "",
    ),
    *("a b", "a\nb\n<!-- /report -->\n", "<!-- /report -->", "<script>alert(1)</script>", "a|b\\|c", "`x` [y](z) *w*"),
    *("\x1b[2J\x07", "\x00", "\u202e\u2028", "Ünïcode", "%2E%2E", "a&b", "x" * (LONGEST // 3)),
]


def hostile_run(runs: Path, number: int, name: str) -> None:
    """Make a run whose record has a name in every place where a record has text."""
    made = replace(Made("d", f"m{number}", "ewgs", 2, "sqakd", 0), epochs=1, layers=1)
    text = dict.fromkeys(
        ("device", "commit", "command", "finished", "weights_sha256", *["chosen_bits"] * (number % 2)), name
    )
    choices = {"dataset": name, "quantizer": "ewgs", "kd": "sqakd", "plus": name}
    folder = make_run(runs, made, choices=choices, changes={"key": name}, versions={name: name}, **text)
    record = (folder / "record.json").read_text()
    assert record.isascii()


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_becomes_a_file_name(name: str) -> None:
    found = stem(name, ["table9"])
    assert re.fullmatch(r"[A-Za-z0-9%_-][A-Za-z0-9%._-]*", found), found
    assert found.lower() not in ("paper", "ours", "readme", "report", "table9")


def test_different_names_have_different_files() -> None:
    assert len({stem(name, ["table9"]) for name in HOSTILE}) == len(HOSTILE)
    assert stem("digits16") == "digits16"
    with pytest.raises(SqakdError, match="has 5000 characters"):
        stem("x" * 5000)


def test_hostile_names_stay_text_within_the_results(tmp_path: Path) -> None:
    """One report of runs with all these names: files, tables, README and page are as complete as ever."""
    results = tmp_path / "project" / "results"
    results.mkdir(parents=True)
    for number, name in enumerate(HOSTILE):
        hostile_run(tmp_path / "project" / "runs", number, name)
    (results / "paper.csv").write_text(PAPER)
    (results / "README.md").write_text("mine")
    readme = tmp_path / "project" / "README.md"
    readme.write_bytes(README.replace("\n", "\r\n").encode().replace(b"paper-summary", b"%70aper-summary"))
    outside = set(tmp_path.rglob("*"))
    options: dict[str, Any] = {"readme": readme, "picture": results / "bits.svg", "cost": results / "cost.svg"}
    written = write_report(tmp_path / "project" / "runs", results, **options)
    assert set(tmp_path.rglob("*")) - outside == set(written) - {readme}
    assert {file.parent for file in written} == {results, readme.parent}
    assert (results / "paper.csv").read_text() == PAPER
    assert (results / "README.md").read_text() == "mine"
    before, _, after = readme.read_bytes().partition(b"<!-- report:%70aper-summary -->")
    inside, _, after = after.partition(b"<!-- /report -->")
    assert (before, after) == (b"# Mine\r\n\r\n", "\r\n\r\nmy text\x0c with odd \u2028 characters\r\n".encode())
    assert inside.count(b"\n") == inside.count(b"\r\n") > 3
    contents = {file: file.read_bytes() for file in written}
    write_report(tmp_path / "project" / "runs", results, **options)
    assert {file: file.read_bytes() for file in written} == contents, "a second report changes nothing"
    for file in set(written) - {readme}:
        text = contents[file].decode()
        assert all(c.isprintable() or c == "\n" for c in text), file
        assert "<script>alert" not in text or file.suffix == ".csv"
        if file.suffix == ".md":
            assert "<!--" not in text
            rows = [line for line in text.splitlines() if line.startswith("|")]
            for table in text.split("\n\n"):
                bars = {len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in table.splitlines() if line[:1] == "|"}
                assert len(bars) <= 1, table
            assert rows


def test_markers_stay_intact_whatever_a_table_contains(tmp_path: Path) -> None:
    hostile_run(tmp_path, 0, "x\n<!-- /report -->\n<!-- report:y -->")
    tables = readme_tables(read_results([tmp_path]))
    text = "".join(f"<!-- report:{name} -->\n<!-- /report -->\n" for name in tables)
    once = fill(text, tables)
    assert fill(once, tables) == once
    assert once.count("<!-- report:") == once.count("<!-- /report -->") == len(tables)


@pytest.mark.parametrize("text", HOSTILE)
def test_text_is_escaped_in_markdown_and_in_html(text: str) -> None:
    """A table of one hostile field has one row in both forms, and the row has two cells."""
    table = Table(["a", "b"], [[text, text]])
    row = as_markdown(table).splitlines()[2:]
    assert len(row) == 1
    assert "<" not in row[0]
    assert not re.search(r"(?<!\\)(?:\\\\)*[`\[\]*]", row[0].replace("\\\\", ""))
    assert markdown(text).encode().isascii() or text == "Ünïcode"
    assert as_html(table).count("<td") == 1


@pytest.mark.parametrize(
    ("option", "content"),
    [
        ("--html", "<!doctype html>\n<html><body>mine</body></html>"),
        ("--html", '{"name": "a record"}'),
        ("--picture", '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1">mine</svg>'),
        ("--cost", '<svg viewBox="0 0 1 1" aria-label="accuracy against bits for each quantizer">other</svg>'),
        ("results/digits16.md", "# digits16\n\nmy notes\n"),
        ("results/ours.csv", "table,dataset\n"),
        ("results/report.html", "mine"),
    ],
)
def test_an_output_replaces_no_file_of_somebody_else(option: str, content: str, tmp_path: Path) -> None:
    make_run(tmp_path / "runs", Made("digits16", "resnet20", "ewgs", 2, "sqakd", 0))
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "paper.csv").write_text(PAPER)
    file = tmp_path / ("file" if option.startswith("--") else option)
    file.write_text(content)
    before = set(tmp_path.rglob("*"))
    options: dict[str, Any] = {option.removeprefix("--"): file} if option.startswith("--") else {}
    with pytest.raises(SqakdError, match=f"{file.name} is not replaced: it does not begin like a"):
        write_report(tmp_path / "runs", tmp_path / "results", **options)
    assert file.read_text() == content
    assert set(tmp_path.rglob("*")) == before, "nothing is written"


def test_two_outputs_in_one_file_are_refused(tmp_path: Path) -> None:
    make_run(tmp_path / "runs", Made("digits16", "resnet20", "ewgs", 2, "sqakd", 0))
    (tmp_path / "paper.csv").write_text(PAPER)
    (tmp_path / "README.md").write_text("<!-- report:digits16 -->\n<!-- /report -->\n")
    choices: list[dict[str, Any]] = [
        {"html": tmp_path / "page", "picture": tmp_path / "page"},
        {"html": tmp_path / "runs" / ".." / "ours.csv"},
        {"picture": tmp_path / "digits16.md", "readme": tmp_path / "README.md"},
    ]
    for options in choices:
        with pytest.raises(SqakdError, match="two outputs are the same file"):
            write_report(tmp_path / "runs", tmp_path, **options)
    assert not (tmp_path / "ours.csv").exists()


def test_the_project_s_own_results_are_recognised(tmp_path: Path) -> None:
    """Files of earlier versions are replaced."""
    folder = command.ROOT / "results"
    for file in folder.glob("*.*"):
        kind = {".md": MARKDOWN, ".csv": CSV}.get(file.suffix)
        if kind is None or file.name in ("README.md", "paper.csv"):
            continue
        kind.check(file)
    for file, kind in ((folder / "paper.csv", CSV), (folder / "README.md", MARKDOWN)):
        with pytest.raises(SqakdError, match="is not replaced"):
            kind.check(file)
    make_run(tmp_path, Made("digits16", "resnet20", "ewgs", 2, "sqakd", 0))
    for name, kind, draw in (("bits.svg", BITS, headline), ("cost.svg", COST, cost_picture)):
        (tmp_path / name).write_text(draw(read_results([tmp_path])))
        kind.check(tmp_path / name)
    PAGE.check(command.ROOT / "sqakd" / "report" / "assets" / "page.html")

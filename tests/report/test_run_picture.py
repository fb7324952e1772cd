"""The picture of one run: no empty chart, a legend of what is drawn, and the command that draws it again."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
import torch
from made_runs import Made, made_record
from matplotlib.figure import Figure

from sqakd.errors import SqakdError
from sqakd.report import run_picture
from sqakd.runs.record import write_record
from sqakd.training.callbacks.quantizer_statistics import statistics


def draw(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["picture.py", *arguments])
    run_picture.main()


def test_without_a_folder_the_usage_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        draw(monkeypatch)
    assert left.value.code == 2
    printed = capsys.readouterr().err
    assert printed.startswith("usage: python -m sqakd.report.run_picture")
    assert "FOLDER" in printed


def test_a_folder_without_a_finished_run_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=rf"error: no {tmp_path}/record\.json: expected the record"):
        draw(monkeypatch, str(tmp_path))


def test_each_folder_gets_a_picture(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
        write_record(folder / "record.json", made_record(Made("digits16", "resnet20", "none", 32, "none", 0, epochs=2)))
        (folder / "metrics.csv").write_text("epoch,train/loss,val/top1\n0,2,0.25\n1,1,0.5\n")
    draw(monkeypatch, *map(str, folders))
    files = [folder / "picture.png" for folder in folders]
    assert capsys.readouterr().out.split() == [str(file) for file in files]
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)


TOP = ["validation", "loss", "last epoch, 78 kB packed"]
CODES = ["weight codes, share per layer", "input codes, share per layer"]
RANGE = "input clip range (bars)"


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Return the list of the figures that are drawn."""
    drawn: list[Figure] = []

    class Kept(Figure):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            drawn.append(self)

    monkeypatch.setattr(run_picture, "Figure", Kept)
    return drawn


def titles(figure: Figure) -> list[str]:
    assert all(axes.has_data() for axes in figure.axes), "no empty chart"
    return [title for axes in figure.axes if (title := axes.get_title())]


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("ewgs", [*CODES, f"{RANGE}, gradient scaling (line)"]),
        ("lsq", [*CODES, RANGE]),
        ("pact", [*CODES, RANGE]),
        ("dorefa", [*CODES, RANGE]),
        ("dorefa_released", CODES),
    ],
)
def test_a_quantizer_without_a_range_has_no_chart_for_it(
    method: str, expected: list[str], figures: list[Figure], tmp_path: Path
) -> None:
    made = Made("digits16", "resnet20", method, 2, "sqakd", 0, epochs=2)
    model = small.quantized(f"quantizer={method}", "bits=2")
    rows = statistics(model, torch.randn(4, *small.SHAPE, generator=torch.Generator().manual_seed(0)))
    names = sorted({name for row in rows for name in row})
    lines = [",".join(names), *(",".join(str(row.get(name, "")) for name in names) for row in rows)]
    (tmp_path / "quantizers.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "metrics.csv").write_text("epoch,train/loss,val/top1\n0,2,0.25\n1,1,0.5\n")
    run_picture.draw_run(tmp_path, made_record(made))
    assert titles(figures[0]) == [*TOP, *expected]


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        (None, TOP[2:]),
        ("epoch,train/loss,val/top1\n", ["without a training, 78 kB packed"]),
        ("epoch,train/loss,val/top1\n0,nan,nan\n", TOP[2:]),
        ("epoch,train/loss,val/top1\n0,-1,0.5\n", ["validation", TOP[2]]),
        ("epoch,val/kl\n0,1\n", TOP[1:]),
    ],
)
def test_a_chart_without_numbers_is_left_out(
    metrics: str | None, expected: list[str], figures: list[Figure], tmp_path: Path
) -> None:
    record = made_record(Made("digits16", "resnet20", "ewgs", 2, "sqakd", 0))
    if metrics is not None:
        (tmp_path / "metrics.csv").write_text(metrics)
        record = replace(record, epochs=len(metrics.splitlines()) - 1)
    run_picture.draw_run(tmp_path, record)
    assert titles(figures[0]) == expected


def test_a_run_without_numbers_has_no_picture(tmp_path: Path) -> None:
    record = replace(made_record(Made("digits16", "resnet20", "none", 32, "none", 0)), scores={})
    with pytest.raises(SqakdError, match="nothing to draw"):
        run_picture.draw_run(tmp_path, record)
    assert list(tmp_path.iterdir()) == []


def test_the_float_run_is_a_line_also_if_its_folder_is_elsewhere(figures: list[Figure], tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("epoch,val/top1\n0,0.25\n1,0.5\n")
    record = made_record(Made("digits16", "resnet20", "ewgs", 2, "sqakd", 0, epochs=2))
    for made in (record, replace(record, float_run=None)):
        run_picture.draw_run(tmp_path, made)
    lines = [
        {str(line.get_label()): np.asarray(line.get_ydata()) for line in figure.axes[0].lines} for figure in figures
    ]
    assert [list(drawn) for drawn in lines] == [["float run, last epoch", "this run"], ["this run"]]
    assert all(figure.axes[0].get_legend() for figure in figures)
    value = lines[0]["float run, last epoch"][0]
    assert value == pytest.approx(99.7)
    assert value < figures[0].axes[0].get_ylim()[1]


def test_a_name_is_not_read_as_a_formula(tmp_path: Path) -> None:
    record = replace(made_record(Made("digits16", "resnet20", "none", 32, "none", 0)), name=r"$\nosuchcommand$")
    assert run_picture.draw_run(tmp_path, record).is_file()

"""The test over all quantizers: its strata, its rows, and the p that the documentation reports."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from pathlib import Path

import command
import pytest
from made_runs import Made, make_grid, make_run

from sqakd.report.comparisons import own_comparisons
from sqakd.report.pooled import pooled_table
from sqakd.report.results import read_results
from sqakd.report.significance import permutation_p, two_sided_p
from sqakd.report.statistics import difference, mean_std
from sqakd.report.write import readme_tables, texts_by_file

MEASURED = command.ROOT / "results" / "measured"
IMAGES = {"last": 360, "mean of last 5": 5 * 360}  # validation images that a score of the digits counts
Scores = dict[tuple[str, str, str], list[float]]


def rows(runs: Path) -> list[dict[str, str]]:
    results = read_results([runs])
    table = pooled_table(own_comparisons(results, results.cells))
    return [dict(zip(table.header, row, strict=True)) for row in table.rows]


def test_a_row_has_all_quantizers_of_one_method_and_bits(tmp_path: Path) -> None:
    make_grid(tmp_path, quantizers=("ewgs", "lsq", "pact"), bits=(1, 2), kds=("none", "sqakd"))
    found = rows(tmp_path)
    assert [(row["bits"], row["kd"], row["quantizers"], row["n, n labels"]) for row in found] == [
        ("W1A1", "sqakd", "3", "9, 9"),
        ("W2A2", "sqakd", "3", "9, 9"),
    ]
    cells = {(cell.quantizer, cell.bits, cell.kd): runs for cell, runs in read_results([tmp_path]).cells.items()}
    for row in found:
        strata = [
            tuple(
                [run.score("top1", "last") or 0.0 for run in cells[name, row["bits"], kd]] for kd in ("sqakd", "none")
            )
            for name in ("ewgs", "lsq", "pact")
        ]
        mean = mean_std([mean_std(ours)[0] - mean_std(base)[0] for ours, base in strata])[0]
        assert row["last: difference"] == f"{mean:+.2f}"
        assert row["last: p (Holm)"].startswith(f"{permutation_p(strata):.2g} (")  # type: ignore[arg-type]


def test_methods_without_labels_are_also_tested_together(tmp_path: Path) -> None:
    make_grid(tmp_path, quantizers=("ewgs", "lsq"), bits=(1,), kds=("none", "sqakd", "squat"))
    assert [(row["kd"], row["n, n labels"]) for row in rows(tmp_path)] == [
        ("all without labels", "12, 6"),
        ("sqakd", "6, 6"),
        ("squat", "6, 6"),
    ]


def test_labels_with_add_ons_are_no_second_quantizer(tmp_path: Path) -> None:
    for kd, plus in (("none", ""), ("none", "bn"), ("sqakd", ""), ("sqakd", "bn")):
        made = Made("digits16", "resnet20", "ewgs", 1, f"{kd}+{plus}" if plus else kd, 0)
        choices = {"dataset": "digits16", "quantizer": "ewgs", "kd": kd, "plus": plus}
        make_run(tmp_path, made, choices=choices, labels_used=kd == "none")
    assert rows(tmp_path) == []


def test_one_quantizer_is_no_pooled_test(tmp_path: Path) -> None:
    make_grid(tmp_path, quantizers=("ewgs",), bits=(1,), kds=("none", "sqakd"))
    make_run(tmp_path, Made("digits16", "resnet20", "lsq", 1, "sqakd", 0))  # without labels alone
    results = read_results([tmp_path])
    assert rows(tmp_path) == []
    assert not [name for name in readme_tables(results) if name.endswith("-pooled")]
    assert "All quantizers together" not in texts_by_file(results)["digits16.md"]


def test_the_pooled_test_is_in_the_files_of_the_report(tmp_path: Path) -> None:
    make_grid(tmp_path)
    results = read_results([tmp_path])
    assert "\n## All quantizers together, compared with labels alone\n" in texts_by_file(results)["digits16.md"]
    assert "| digits16 | resnet20 | W1A1 | sqakd | 2 | 6, 6 |" in readme_tables(results)["digits16-pooled"]


def test_p_of_a_cell_is_corrected_for_all_cells_shown(tmp_path: Path) -> None:
    make_grid(tmp_path)
    text = texts_by_file(read_results([tmp_path]))["digits16.csv"]
    ps = [line for line in csv.DictReader(text.splitlines()) if line["labels_last_p"]]
    assert len(ps) == 4
    smallest = min(ps, key=lambda line: float(line["labels_last_p"]))
    corrected = min(1.0, 4 * float(smallest["labels_last_p"]))
    assert float(smallest["labels_last_p_holm"]) == pytest.approx(corrected, rel=1e-4)


@pytest.fixture(scope="module")
def measured() -> dict[str, Scores]:
    """Return the scores of each seed of the digits from the page of the measured runs, in percent."""
    page = (MEASURED / "digits16.html").read_text()
    found: dict[str, Scores] = {name: defaultdict(list) for name in IMAGES}
    for run in re.split(r"<th scope=\"row\"><code title=\"runs/", page)[1:]:
        quantizer, bits, kd = re.match(r"digits16-resnet20-(\w+)-w(\d+)a\d+-([^/]+)/", run).groups()  # type: ignore[union-attr]
        for name, images in IMAGES.items():
            percent = re.search(rf'data-name="top-1, {name}">([\d.]+)<', run)
            assert percent
            count = round(float(percent[1]) / 100 * images)
            found[name][quantizer, bits, kd.replace("-", "+")].append(100 * count / images)
    assert all(sum(map(len, scores.values())) == 145 for scores in found.values())
    return found


QUANTIZERS = ("dorefa", "ewgs", "lsq", "pact")


def strata(scores: Scores, bits: str, *kds: str) -> list[tuple[list[float], list[float]]]:
    return [([s for kd in kds for s in scores[q, bits, kd]], scores[q, bits, "none"]) for q in QUANTIZERS]


@pytest.mark.parametrize(
    ("kds", "last", "mean_of_last_5"),
    [
        (["sqakd"], "0.0010", "0.000013"),
        (["squat"], "0.0084", "0.000013"),
        (["sqakd+bn+ema"], "0.045", "0.000013"),
        (["sqakd", "squat", "sqakd+bn+ema"], "0.0011", None),  # the last five epochs: 4e-10, not reported
    ],
)
def test_the_documentation_has_the_p_of_the_measured_runs(
    measured: dict[str, Scores], kds: list[str], last: str, mean_of_last_5: str | None
) -> None:
    text = (command.ROOT / "results" / "README.md").read_text()
    for name, shown in (("last", last), ("mean of last 5", mean_of_last_5)):
        if shown is not None:
            digits = len(shown.partition(".")[2])
            assert f"{permutation_p(strata(measured[name], '1', *kds)):.{digits}f}" == shown
            assert shown in text


def test_the_pages_have_the_measured_differences_from_labels() -> None:
    """One bit on Fashion-MNIST: features first with each quantizer, and SQAKD where it did not fail."""
    lines = list(csv.DictReader((MEASURED / "fashion_mnist.csv").open(newline="")))
    cells = {(line["quantizer"], line["kd"], "mse" in line["changed"]): line for line in lines if line["w_bits"] == "1"}
    texts = [(command.ROOT / name).read_text() for name in ("results/README.md", "docs/methods.md")]
    features = [("ewgs", True), ("lsq", True), ("pact", False), ("dorefa", False)]
    shown = [cells[quantizer, "reconstruction", mse] for quantizer, mse in features]
    shown += [cells[quantizer, "sqakd", mse] for quantizer in ("ewgs", "lsq") for mse in (True, False)]
    for line in [*shown, cells["pact", "sqakd", False], cells["dorefa", "sqakd+bn", False]]:
        difference = f"{float(line['labels_last_difference']):.2f}"
        assert all(difference in text for text in texts), line["quantizer"]
        assert f"({float(line['labels_last_standard_error']):.2f})" in texts[1]


def test_measured_verdicts_follow_from_the_measured_scores(measured: dict[str, Scores]) -> None:
    """In particular those at exactly two standard errors, of which the page has five.

    The version that wrote the page called equal scores of all seeds on both sides "not told apart"; they have no
    verdict now.
    """
    lines = list(csv.DictReader((MEASURED / "digits16.csv").open(newline="")))
    compared = [line for line in lines if line["labels_kd"]]
    assert len(compared) == 36
    for line in compared:
        cell = line["quantizer"], line["w_bits"]
        for name, column in (("last", "last"), ("mean of last 5", "mean_of_last_5")):
            found = difference(measured[name][*cell, line["kd"]], measured[name][*cell, line["labels_kd"]])
            assert found is not None
            assert float(line[f"labels_{column}_difference"]) == pytest.approx(found.value, abs=1e-4)
            verdict = "not distinguishable" if found.value == found.standard_error == 0 else found.verdict
            assert line[f"labels_{column}_verdict"] == verdict.replace("distinguishable", "told apart"), line


def test_the_documentation_has_the_false_positives_that_chance_gives() -> None:
    """Three seeds on each side: four degrees of freedom if both spread equally, two if one does not."""
    text = " ".join((command.ROOT / "docs" / "methods.md").read_text().split())
    rows = [line for line in csv.reader((MEASURED / "gains.csv").open(newline="")) if line[3] in ("1", "2")]
    number = len(rows) - 2  # without the base at each bits
    least, most = (two_sided_p(2, freedom) for freedom in (4, 2))
    assert f"{number} x {least:.3f} = {number * least:.1f} to {number} x {most:.3f} = {number * most:.1f}" in text

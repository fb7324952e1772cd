"""The dashboard: one definition, shown as a Weights & Biases workspace and as a page on disk, without a network."""

from __future__ import annotations

import html
import json
import os
import re
import socket
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import wandb
import yaml

from sqakd.dashboard import definition, workspace
from sqakd.dashboard.__main__ import main
from sqakd.dashboard.definition import KINDS, Definition, Panel
from sqakd.dashboard.page import PICTURES
from sqakd.report.results import read_results
from sqakd.runs import paper
from sqakd.runs.make_record import score_of
from sqakd.runs.names import PLACEHOLDERS, pattern

KEY = "0" * 40
VIEW_TYPES = {"lines": "Run History Line Plot", "bars": "Bar Chart", "points": "Scatter Plot"}


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Provide no login, no network, and an empty working folder."""
    for name in [name for name in os.environ if name.startswith("WANDB")] + ["NETRC"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("this needs no network")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, fail)
    monkeypatch.setattr(wandb, "Api", fail)


@pytest.fixture
def shown() -> Definition:
    return definition.read()


def spec_of(made: Any) -> dict[str, Any]:
    """Return what is sent to the server."""
    text = made._to_model().spec.model_dump_json(by_alias=True, exclude_none=True)
    section: dict[str, Any] = json.loads(text)["section"]
    return section


def build(shown: Definition) -> dict[str, Any]:
    return spec_of(workspace.build(shown, entity="", project="sqakd", name="a view"))


# the definition


def test_the_definition_has_the_expected_groups_and_kinds(shown: Definition) -> None:
    assert {"paper", "curves", "ranges", "codes", "agreement", "pareto"} <= {section.name for section in shown.sections}
    assert len({section.name for section in shown.sections}) == len(shown.sections)
    assert {panel.kind for panel in shown.panels} == set(KINDS)
    by_kd = [panel for panel in shown.panels if panel.metrics == ("val/top1",) and panel.group == "choices.kd"]
    assert [panel.kind for panel in by_kd] == ["lines"]


def test_each_panel_has_a_wandb_plot_and_a_picture_on_the_page(shown: Definition) -> None:
    assert workspace.BUILDERS.keys() == set(KINDS)
    assert {panel.picture for panel in shown.panels} == PICTURES.keys()


def test_different_cells_are_averaged_only_if_the_title_says_so(shown: Definition) -> None:
    for panel in shown.panels:
        if panel.group not in (None, "choices.cell"):
            assert panel.kind == "lines", panel.title
            assert panel.title.endswith(", all runs that are shown")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "pie"}, "panel 'x': kind=pie: expected one of lines, bars, points"),
        ({"metrics": ()}, "panel 'x': no metrics: expected at least one name"),
        ({"metrics": ("val/top9",)}, "x: no run logs 'val/top9': expected a name of docs/dashboard.md"),
        ({"group": "choices.colour"}, "x: runs cannot be grouped by 'choices.colour': expected one of name, seed,"),
        ({"x": "record/packed_bytes"}, "panel 'x': kind=lines, x=record/packed_bytes: points need x, other kinds"),
        ({"kind": "points"}, "panel 'x': kind=points, x=None: points need x, other kinds"),
        ({"kind": "points", "x": "record/weight"}, "x: no run logs 'record/weight'"),
        ({"kind": "points", "x": "config.weight"}, "x: runs cannot be grouped by 'weight'"),
    ],
)
def test_a_panel_without_data_is_refused(changes: dict[str, Any], message: str) -> None:
    right: dict[str, Any] = {"title": "x", "kind": "lines", "metrics": ("val/top1",), "picture": "curves"}
    Panel(**right)
    with pytest.raises(ValueError, match=message):
        Panel(**right | changes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda node: node.pop("sections"), "the dashboard has no sections"),
        (lambda node: node.update(sections="text"), "sections='text': expected a list"),
        (lambda node: node.update(sections=[3]), "a section is 3: expected keys and values"),
        (lambda node: node.update(name=3), "the dashboard has name=3: expected a text"),
        (lambda node: node.update(columns=[3]), r"columns=\[3\]: expected a list of names"),
        (lambda node: node.update(colour="red"), "the dashboard has an unknown key colour"),
        (lambda node: node["sections"][0]["panels"][0].pop("picture"), "a panel has no picture"),
        (lambda node: node.update(columns=["record/speed"]), "the list of runs: no run logs 'record/speed'"),
        (lambda node: node.update(group="colour"), "the list of runs: runs cannot be grouped by 'colour'"),
    ],
)
def test_an_unknown_key_or_name_in_the_definition_is_refused(
    change: Callable[[dict[str, Any]], object], message: str, tmp_path: Path
) -> None:
    node = yaml.safe_load(definition.FILE.read_text())
    change(node)
    (tmp_path / "dashboard.yaml").write_text(yaml.safe_dump(node))
    with pytest.raises(ValueError, match=message):
        definition.read(tmp_path / "dashboard.yaml")


def test_a_missing_definition_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"gone\.yaml does not define a dashboard \(No such file"):
        definition.read(tmp_path / "gone.yaml")


# the workspace


def test_the_workspace_has_the_panels_of_the_definition(shown: Definition) -> None:
    sections = build(shown)["panelBankConfig"]["sections"]
    assert [section["name"] for section in sections] == [section.title for section in shown.sections]
    for section, made in zip(shown.sections, sections, strict=True):
        assert [panel["config"]["chartTitle"] for panel in made["panels"]] == [panel.title for panel in section.panels]
        assert [panel["viewType"] for panel in made["panels"]] == [VIEW_TYPES[panel.kind] for panel in section.panels]


def test_the_panels_show_the_metrics_of_the_definition(shown: Definition) -> None:
    made = [panel["config"] for section in build(shown)["panelBankConfig"]["sections"] for panel in section["panels"]]
    for panel, config in zip(shown.panels, made, strict=True):
        metrics = set(panel.metrics)
        if panel.kind == "points":
            assert config["yAxis"] == f"summary:{panel.metrics[0]}"
            assert config["xAxis"] in (f"summary:{panel.x}", "config:w_bits.value")
        elif any(word in metric for metric in metrics for word in PLACEHOLDERS):
            assert config["useMetricRegex"]
            assert config["metricRegex"] == "|".join(f"^{pattern(metric).pattern}$" for metric in panel.metrics)
        else:
            assert set(config["metrics"]) == metrics
        if panel.kind == "lines":
            assert config["xAxis"] == "epoch"
        assert bool(config.get("yLogScale") or config.get("xAxisLogScale")) == panel.log


def test_runs_are_grouped_by_keys_of_their_configuration(shown: Definition) -> None:
    """wandb stores a nested key of a configuration under FIRST.value.REST."""
    section = build(shown)
    made = [panel["config"] for part in section["panelBankConfig"]["sections"] for panel in part["panels"]]
    for panel, config in zip(shown.panels, made, strict=True):
        if panel.group is None:
            assert "groupBy" not in config
        else:
            assert config["groupBy"] == panel.group.replace("choices.", "choices.value.")
            assert (config["groupAgg"], config["groupArea"]) == ("mean", "stddev")
    (runs,) = section["runSets"]
    assert runs["grouping"] == [{"section": "config", "name": "choices.value.cell"}]
    assert [c.removeprefix("summary:") for c in runs["runFeed"]["columnOrder"][1:]] == list(shown.columns)
    assert section["settings"]["maxRuns"] > 100


class Server:
    """A stand-in for the wandb server: it accepts a view and returns its name."""

    default_entity = "me"
    sent: list[dict[str, Any]]

    def __init__(self) -> None:
        self._service_api = self

    app_url = "https://wandb.example.org"

    def execute_graphql(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        assert "upsertView" in query
        self.sent.append(variables)
        return {"upsertView": {"view": {"name": variables["name"], "id": "1"}}}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> type[Server]:
    """Provide a login and a stand-in for the server."""
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setattr(Server, "sent", [], raising=False)
    monkeypatch.setattr(wandb, "Api", Server)
    return Server


def test_with_a_login_the_workspace_is_saved_and_its_address_printed(
    server: type[Server], shown: Definition, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    main([])
    (sent,) = server.sent
    assert (sent["entityName"], sent["projectName"], sent["displayName"]) == ("me", "sqakd", shown.name)
    titles = [section["name"] for section in json.loads(sent["spec"])["section"]["panelBankConfig"]["sections"]]
    assert titles == [section.title for section in shown.sections]
    assert capsys.readouterr().out.startswith("https://wandb.example.org/me/sqakd?nw=")
    assert list(tmp_path.rglob("*.html")) == []


def test_project_and_name_are_options(server: type[Server], runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--entity", "team", "--project", "other", "--name", "mine", "--runs", str(runs), "--html", "page.html"])
    (sent,) = server.sent
    assert (sent["entityName"], sent["projectName"], sent["displayName"]) == ("team", "other", "mine")
    assert capsys.readouterr().out.splitlines()[-1] == "page.html"
    assert Path("page.html").exists()


def test_a_refusal_of_the_server_is_reported_in_one_line(server: type[Server], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise wandb.errors.CommError("no such project")

    monkeypatch.setattr(server, "execute_graphql", refuse)
    with pytest.raises(
        SystemExit,
        match=r"error: wandb refused the workspace \(no such project\); use --project and --entity",
    ):
        main([])


def test_a_missing_optional_package_is_named_with_its_installation(
    server: type[Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "sqakd.dashboard.workspace")
    monkeypatch.delattr("sqakd.dashboard.workspace")
    monkeypatch.setitem(sys.modules, "wandb_workspaces.workspaces", None)
    with pytest.raises(
        SystemExit, match=r"error: a workspace needs .*use pip install -e '\.\[dashboard\]' in the checkout"
    ):
        main([])
    assert server.sent == []


# the page


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Make runs: a float network, and two training methods for its low-bit copy."""
    for quantizer, kd, bits in (("none", "none", 32), ("ewgs", "sqakd", 2), ("ewgs", "none", 2)):
        make_run(tmp_path / "runs", quantizer, kd, bits)
    return tmp_path / "runs"


def make_run(runs: Path, quantizer: str, kd: str, bits: int) -> None:
    scores = {"top1": [0.5, 0.75], "agreement": [0.625, 0.875], "kl": [2.0, 1.0]}
    record: dict[str, Any] = {
        "name": f"cifar10-resnet20-{quantizer}-w{bits}a{bits}-{kd}",
        "seed": 0,
        "choices": {"dataset": "cifar10", "quantizer": quantizer, "kd": kd},
        "changes": {},
        "model": "resnet20",
        "w_bits": bits,
        "a_bits": bits,
        "epochs": 2,
        "scores": {name: asdict(score_of(values, best=max)) for name, values in scores.items()},
        "labels_used": kd == "none",
        "float_run": None,
        "packed_bytes": 1000 * bits,
        "bit_operations": 1000 * bits**2,
        "commit": "0123456789",
        "command": "python train.py",
    }
    folder = runs / record["name"] / "seed0"
    folder.mkdir(parents=True)
    (folder / "record.json").write_text(json.dumps(record))
    (folder / "metrics.csv").write_text(
        "epoch,train/loss,val/top1,val/agreement,val/kl\n0,2,0.5,0.625,2\n1,1,0.75,0.875,0.0123\n"
    )
    if bits < 32:
        (folder / "quantizers.csv").write_text(
            "layer,is_weight,bits,lower,upper,code_0,code_1,code_2,code_3\n"
            "0,1,2,-0.5,0.5,0.25,0.25,0.25,0.25\n0,0,2,0,3,0.5,0.25,0.125,0.125\n"
        )


def check_page(file: Path, runs: Path, shown: Definition, published: Path | None) -> None:
    text = file.read_text(encoding="utf-8")
    results = read_results([runs], published)
    for section in shown.sections:
        assert f'id="{section.name}"' in text
    for panel in shown.panels:
        assert PICTURES[panel.picture](results) in text, panel.picture


# Words in the caption of a picture for metrics that it does not call by their logged name.
CAPTIONS = {
    "record/bit_operations": "against bit-operations",
    "record/packed_bytes": "against packed size",
    "clip_low": "Clip range of each layer's quantizer",
    "clip_high": "Clip range of each layer's quantizer",
    "entropy": "Entropy of the codes in bits",
    "used": "a code without a shade is never used",
}


def test_the_picture_of_a_panel_shows_its_metrics(runs: Path, shown: Definition) -> None:
    """Metrics of epochs appear under their logged names, in the caption and in the description for screen readers."""
    results = read_results([runs])
    for panel in shown.panels:
        ET.fromstring(PICTURES[panel.picture](results))
        text = html.unescape(PICTURES[panel.picture](results))
        label = "".join(re.findall('aria-label="([^"]*)"', text))
        caption = text.partition("<figcaption>")[2]
        for metric in (*panel.metrics, *([panel.x] if panel.x else [])):
            words = CAPTIONS.get(metric) or CAPTIONS.get(metric.rpartition("/")[2])
            if metric.startswith(("train/", "val/")):
                assert f"({metric})" in caption, panel.title
                assert f"({metric}) by epoch" in label, panel.title
            elif words:
                assert words in caption + label, panel.title


def test_curves_are_those_of_their_metric(runs: Path) -> None:
    results = read_results([runs])
    last = {"curves": "75.00 (1)", "loss": "1 (1)", "agreement_curves": "87.50 (1)", "divergence": "0.0123 (1)"}
    for name, value in last.items():
        drawn = re.findall("<title>(cifar10 resnet20 ewgs W2A2 sqakd: .*?)</title>", PICTURES[name](results))
        assert drawn[0] == f"cifar10 resnet20 ewgs W2A2 sqakd: {value} after epoch 2"
    for metric in ("train/loss", "val/kl"):
        for file in runs.glob("*/seed0/metrics.csv"):
            file.write_text(file.read_text().replace(metric, "else"))
    results = read_results([runs])
    assert "No quantized run here has train/loss in its metrics.csv." in PICTURES["loss"](results)
    assert "No quantized run here has val/kl in its metrics.csv." in PICTURES["divergence"](results)
    assert "<svg" in PICTURES["agreement_curves"](results)


def test_costs_are_those_of_the_record(runs: Path) -> None:
    results = read_results([runs])
    assert "75.00 (1), 2.0 kB</title>" in PICTURES["pareto"](results)
    assert "75.00 (1), 0.004 million</title>" in PICTURES["operations"](results)


def test_without_a_login_the_page_has_the_same_sections(
    runs: Path, shown: Definition, capsys: pytest.CaptureFixture[str]
) -> None:
    main([])
    notice, file = capsys.readouterr().out.splitlines()
    assert notice == "no wandb login (run wandb login, or set WANDB_API_KEY): writing the same sections as a page"
    assert file == "runs/dashboard.html"
    check_page(runs / "dashboard.html", runs, shown, paper.FILE)


def test_the_page_needs_no_published_numbers(
    runs: Path, shown: Definition, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(paper, "FILE", tmp_path / "paper.csv")
    main(["--offline", "--html", "pages/page.html"])
    check_page(tmp_path / "pages" / "page.html", runs, shown, None)


@pytest.mark.usefixtures("server", "runs")
def test_the_option_offline_overrides_a_login(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--offline"])
    assert Server.sent == []
    assert capsys.readouterr().out == "runs/dashboard.html\n"


def test_no_page_is_written_without_runs(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"error: no finished run in nowhere: .* use --runs FOLDER"):
        main(["--runs", "nowhere"])
    assert list(tmp_path.rglob("*.html")) == []

"""export.py and sqakd.predict on one small trained run, and the errors of a run that cannot be exported."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import command
import numpy as np
import onnx
import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image
from written_once import written_once

import sqakd
from sqakd.advice import explain
from sqakd.app.export import export_run
from sqakd.dataset.digits import Digits
from sqakd.errors import SqakdError
from sqakd.export import benchmark, pipeline
from sqakd.export.errors import ExportError
from sqakd.export.folder import WRITTEN, replacing_folder
from sqakd.export.options import Timing
from sqakd.predict import Model, PredictError
from sqakd.runs.export_record import Verdict

NAME = "digits16-resnet20-ewgs-w2a2-sqakd"
OVERRIDES = ["dataset=digits16", "dataset.limit=96", "quantizer=ewgs", "bits=2", *command.SMALL]
QUICK = {"rounds": 1, "seconds": 0.01, "batches": [2], "threads": [1]}
FILES = {"model.onnx", "model.float.onnx", "weights_int.npz", "layers.json", "record.json", "report.md", "report.html"}
FILES |= {"layers.svg", "latency.svg", "pareto.svg"}
CONTENDERS = benchmark.contenders
HUB_FILES = {"README.md", "config.json", "preprocessor_config.json", "model.safetensors"}


@pytest.fixture(scope="module", autouse=True)
def shared_models() -> Iterator[None]:
    with written_once():
        yield


def fewer_contenders(program: Path, files: Mapping[str, Path]) -> list[benchmark.Contender]:
    """Return each runtime but torch.compile, which compiles for ten seconds, and one of OpenVINO's two files."""
    return [each for each in CONTENDERS(program, files) if each.name not in ("torch.compile float", "OpenVINO float")]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with runs/NAME/seed0, exported, and its float run."""
    folder = tmp_path_factory.mktemp("work")
    done = command.train(*OVERRIDES, runs=folder / "runs")
    assert done.returncode == 0, done.stderr
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmark, "contenders", fewer_contenders)
        assert export(folder, benchmark=QUICK) >= 0.995
    return folder


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Iterator[Path]:
    """Yield a copy of the runs without the export, and check that a refused export writes nothing."""
    shutil.copytree(trained / "runs", tmp_path / "runs")
    for made in run_folder(tmp_path).glob("export-*"):
        shutil.rmtree(made)
    yield tmp_path
    assert not list(run_folder(tmp_path).glob("*export*")), "nothing is written"
    assert not list(run_folder(tmp_path).glob(".*export*")), "no temporary folder remains"


def run_folder(folder: Path) -> Path:
    return folder / "runs" / NAME / "seed0"


def predict(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the program, and check that it imports nothing but its three packages."""
    code = (
        "import sys; from sqakd.predict import main; status = main(sys.argv[1:]);"
        " extra = {'torch', 'onnx', 'pytorch_lightning', 'hydra', 'tqdm'} & set(sys.modules);"
        " assert not extra, extra; raise SystemExit(status)"
    )
    model = run_folder(folder) / "export-exact" / "model.onnx"
    return command.script("-c", code, str(model), *arguments, folder=folder)


def export(place: Path, **options: Any) -> float:
    """Run the command's function in this process."""
    with initialize_config_dir(str(command.ROOT / "conf"), version_base="1.3"):
        config = OmegaConf.to_container(compose("export", overrides=[f"run={run_folder(place)}"]))
    assert isinstance(config, dict)
    assert options.keys() <= config.keys()
    return export_run(
        {str(key): value for key, value in config.items()} | {"benchmark": QUICK | {"rounds": 0}} | options
    )


def refused(place: Path, **options: Any) -> str:
    """Return what the command prints when it refuses an export: the library's message and the advice."""
    with pytest.raises(SqakdError) as error:
        export(place, **options)
    message = explain(error.value)
    assert "\n" not in message
    return message


def record(folder: Path, name: str = "export-exact") -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run_folder(folder) / name / "record.json").read_text())
    return content


def test_all_files_exist_and_the_model_describes_itself(trained: Path) -> None:
    folder = run_folder(trained) / "export-exact"
    assert {file.name for file in folder.iterdir()} == FILES
    assert FILES <= WRITTEN
    facts = json.loads(next(p.value for p in onnx.load(folder / "model.onnx").metadata_props if p.key == "sqakd"))
    assert facts["classes"] == [str(i) for i in range(10)]
    assert len(facts["mean"]) == len(facts["std"]) == 3
    assert set(map(tuple, facts["bits"].values())) == {(2, 2)}
    assert facts["image_shape"] == [3, 16, 16]
    assert len(facts["config_hash"]) == 16


def test_the_record_has_sizes_layers_and_float_parts(trained: Path) -> None:
    content = record(trained)
    sizes = content["sizes"]
    assert sizes["file_gzip"] < sizes["file"] < sizes["unpacked"] < sizes["float"]
    assert content["bit_operations"] > 0
    assert [part["name"] for part in content["stays_float"]] == ["conv1", "bn2", "linear"]
    assert len(content["layers"]) == 6
    integers = [layer for layer in content["layers"] if layer["output"] == "integers"]
    assert len(integers) == 3
    assert all(layer["wrong_sums"] == 0 < layer["reachable_sums"] for layer in integers)
    assert all(layer["codes_compared"] > 0 for layer in content["layers"])
    assert max(layer["farthest_from_an_edge"] for layer in content["layers"]) <= 1e-5
    assert min(verdict["agreement"] for verdict in content["verify"]) >= 0.995


def test_a_qonnx_file_is_proven_by_its_own_package_and_refused_by_predict(trained: Path, tmp_path: Path) -> None:
    pytest.importorskip("qonnx")
    folder = tmp_path / "export"
    assert export(trained, format="qonnx", folder=str(folder), images=8) == 1
    content = json.loads((folder / "record.json").read_text())
    assert content["profile"] == "qonnx"
    assert [verdict["runtime"].split()[0] for verdict in content["verify"]] == ["qonnx"]
    assert all(layer["codes_compared"] > 0 == layer["codes_that_differ"] for layer in content["layers"])
    assert "benchmark" not in content
    assert "package qonnx" in (folder / "report.md").read_text()
    assert "qonnx" in content["versions"]
    assert not any("form" in layer for layer in content["layers"])
    assert Model(folder / "model.float.onnx").facts.classes
    with pytest.raises(PredictError, match=r"has the nodes of QONNX.* format=onnx"):
        Model(folder / "model.onnx")


def test_qonnx_without_its_package_and_for_a_hub_is_refused(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refused(copy, format="qonnx", hub=str(copy / "hub")).startswith("hub= takes a file that runtimes can run")
    assert not (copy / "hub").exists()
    monkeypatch.setattr("sqakd.app.export.find_spec", {}.get)
    assert "use pip install -e '.[qonnx]'" in refused(copy, format="qonnx")


def test_the_script_for_tensorrt_runs_the_exported_images(trained: Path, tmp_path: Path) -> None:
    """Everything but the engine, with ONNX Runtime in its place."""
    shutil.copytree(trained / "runs", tmp_path / "runs")
    export(tmp_path, profile="trt", images=8)
    arguments = [str(run_folder(tmp_path)), "--runtime", "onnxruntime", "--batch", "50", "--repetitions", "2"]
    done = command.script("examples/tensorrt_engine.py", *arguments, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    found = dict(line.rsplit(": ", 1) for line in done.stdout.splitlines())
    assert found["images"] == "96"
    assert float(found["agreement with the trained network"]) > 0.8
    assert {"top-1", "ms, batch 1, median", "ms, batch 50, median"} <= found.keys()


def test_a_hub_folder_has_everything_to_use_the_network(trained: Path, tmp_path: Path) -> None:
    for _ in range(2):  # an earlier hub folder is replaced
        export(trained, folder=str(tmp_path / "export"), hub=str(tmp_path / "hub"), images=8)
    found = {file.name for file in (tmp_path / "hub").iterdir()}
    assert found == {*HUB_FILES, "model.onnx", "picture.png"}
    config, preparation = (
        json.loads((tmp_path / "hub" / name).read_text()) for name in ("config.json", "preprocessor_config.json")
    )
    assert (config["num_labels"], config["id2label"]["7"], config["weight_bits"]) == (10, "7", 2)
    assert preparation["size"] == {"shortest_edge": 16}
    assert preparation["crop_size"] == {"height": 16, "width": 16}
    assert (tmp_path / "hub" / "README.md").read_text().startswith("---\nlibrary_name: sqakd\n")
    network = sqakd.load(tmp_path / "hub" / "model.safetensors")
    assert command.same_bits(network.state_dict(), command.weights(run_folder(trained)))


def test_a_card_that_the_user_changed_stays(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hub = tmp_path / "hub"
    export(trained, folder=str(tmp_path / "export"), hub=str(hub), images=8)
    (hub / "README.md").write_text("my own words")
    (hub / "LICENSE").write_text("mine")
    (hub / ".model.safetensors.0123abcd.part").touch()  # of a killed export
    (run_folder(trained) / "picture.png").rename(tmp_path / "picture.png")
    try:
        export(trained, folder=str(tmp_path / "export"), hub=str(hub), images=8)
    finally:
        (tmp_path / "picture.png").rename(run_folder(trained) / "picture.png")
    assert (hub / "README.md").read_text() == "my own words"
    assert {file.name for file in hub.iterdir()} == {*HUB_FILES, "model.onnx", "LICENSE"}
    printed = capsys.readouterr().out
    assert "README.md is yours and stays" in printed
    assert "warning: the proof rests on 8 images, so one image is 12.5 points" in printed


def test_the_hub_folder_is_not_that_of_the_export(copy: Path, tmp_path: Path) -> None:
    message = refused(copy, folder=str(tmp_path / "same"), hub=str(tmp_path / "same"))
    assert "is the folder of the export" in message


def test_a_hub_folder_of_anything_else_is_refused_before_the_export(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "README.md").write_text("mine")
    assert "hub holds README.md, which no export wrote" in refused(copy, hub=str(tmp_path / "hub"))
    assert (tmp_path / "hub" / "README.md").read_text() == "mine"


def test_the_report_shows_the_measured_times(trained: Path) -> None:
    folder = run_folder(trained) / "export-exact"
    text, page = (folder / "report.md").read_text(), (folder / "report.html").read_text()
    measured = record(trained)["benchmark"]
    assert {row["name"] for row in measured["rows"]} >= {
        "torch eager float",
        "ONNX Runtime float",
        "ONNX Runtime exact",
    }
    assert measured["executed"]["ONNX Runtime exact"]["QLinearConv"] == 3
    assert measured["machine"]["cores"]
    for row in measured["rows"]:
        assert 0 < row["p50_ms"] <= row["p90_ms"]
        assert row["load_ms"] > 0
        assert row["peak_bytes"] > 1e7
        assert f"{row['p50_ms']:.3f}" in text
        assert f"{row['p50_ms']:.3f}" in page
    assert page.count("<figure>") == 3
    assert all(f"({name})" in text for name in ("layers.svg", "latency.svg", "pareto.svg"))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a compiler")
def test_all_runtimes_are_measured(trained: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    export(trained, benchmark=QUICK, folder=str(tmp_path / "export"))
    measured = json.loads((tmp_path / "export" / "record.json").read_text())["benchmark"]
    assert {"torch.compile float", "OpenVINO float"} <= {row["name"] for row in measured["rows"]}
    assert not measured["missing"]


def test_thresholds_give_the_next_layers_levels(trained: Path) -> None:
    """Compute levels from weights_int.npz as an FPGA would: compare sums with thresholds."""
    folder = run_folder(trained) / "export-exact"
    arrays, layers = np.load(folder / "weights_int.npz"), json.loads((folder / "layers.json").read_text())
    layer = next(layer for layer in layers if layer["output"] == "integers")
    name, after = layer["name"], layer["next_input"]
    assert set(np.unique(arrays[f"{name}.weight"])) <= {-3, -1, 1, 3}
    thresholds, sign = arrays[f"{name}.thresholds"], arrays[f"{name}.sign"]
    sums = np.arange(-60, 61)
    for c in range(len(sign)):
        level = after["low"] + (thresholds[c][:, None] <= sign[c] * sums).sum(axis=0)
        y = arrays[f"{name}.scale"][c] * sums + arrays[f"{name}.offset"][c]
        wanted = np.round((y - after["origin"]) / after["step"]) + after["shift"]
        inside = np.abs(sums) < 40
        np.testing.assert_array_equal(level[inside], np.clip(wanted, after["low"], after["high"])[inside])


def test_other_profiles_export_and_replace_an_earlier_export(trained: Path) -> None:
    export(trained, profile="requantized", pack="none")
    content = record(trained, "export-requantized")
    assert content["sizes"]["file"] == content["sizes"]["unpacked"]
    assert {layer["form"] for layer in content["layers"] if layer["output"] == "integers"} == {"requantized"}
    assert content["gate"] == 0.995
    export(trained, profile="int8", preprocess=True)
    assert record(trained, "export-int8")["verify"][0]["agreement"] >= 0.7
    export(trained, profile="trt", images=50, folder=str(run_folder(trained) / "export-int8"))
    content = record(trained, "export-int8")
    assert content["profile"] == "trt"
    assert content["verify"][0]["images"] == 50
    assert content["sizes"]["file"] < content["sizes"]["unpacked"]
    assert not list(run_folder(trained).glob(".*export*"))


def test_a_file_that_disagrees_is_not_written(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verdict = Verdict(runtime="a runtime", images=96, agreement=0.99, largest_difference=1.0, spread=1.0)
    monkeypatch.setattr(pipeline, "verify", lambda *_, **__: [verdict])
    message = refused(copy, folder=str(copy / "x"))
    assert "agrees with the trained network on 99.00% of 96 validation images, less than the gate of 99.50%" in message
    assert "nothing was written" in message
    assert message.endswith("use gate=NUMBER to accept less")
    assert "fault" not in message
    assert not (copy / "x").exists()
    other = Verdict(runtime="another", images=96, agreement=1.0, largest_difference=0.0, spread=1.0)
    monkeypatch.setattr(pipeline, "verify", lambda *_, **__: [other, verdict])
    message = refused(copy, folder=str(copy / "x"))
    assert "another passes the gate with the same file, so the fault may be the runtime's" in message


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="cannot write") as error, replacing_folder(tmp_path / "file" / "x"):
        pass
    assert "use folder=ANOTHER_FOLDER" in explain(error.value)


@pytest.mark.parametrize("place", [".", "runs/NAME/seed0", "runs", "notes"])
def test_a_folder_of_anything_else_is_refused_before_the_network_is_loaded(
    place: str, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(copy)
    (copy / "notes").mkdir()
    (copy / "notes" / "notes.txt").write_text("mine")
    before = {file: file.read_bytes() for file in copy.rglob("*") if file.is_file()}
    monkeypatch.setattr("sqakd.app.export.trained_network", lambda _: pytest.fail("the network was loaded"))
    message = refused(copy, folder=place.replace("NAME", NAME))
    assert "which no export wrote; nothing there is replaced; use folder=ANOTHER_FOLDER" in message
    assert {file: file.read_bytes() for file in copy.rglob("*") if file.is_file()} == before


def test_an_unfinished_run_is_refused(copy: Path) -> None:
    message = refused(copy, run="runs/nothing")
    assert "no run at runs/nothing" in message
    assert "use run=runs/NAME/seed0" in message
    (run_folder(copy) / "record.json").unlink()
    assert "is not finished" in refused(copy)
    (run_folder(copy) / "config.yaml").unlink()
    assert "is not the folder of a run" in refused(copy)


def test_a_run_of_another_version_is_refused(copy: Path) -> None:
    file = run_folder(copy) / "record.json"
    content = json.loads(file.read_text())
    content["versions"]["sqakd"] = "0.0.7"
    file.write_text(json.dumps(content))
    assert "was trained with sqakd 0.0.7 and this is" in refused(copy)
    file.write_text("{")
    assert "record.json is not a record of a run" in refused(copy)


@pytest.mark.parametrize(
    ("keys", "path"),
    [
        (("dataset",), "os.mkdir"),
        (("dataset", "augment"), "joblib.load"),
        (("model", "net"), "numpy.load"),
        (("quantizer", "weight"), "sqakd.files.write_text"),
    ],
)
def test_a_foreign_class_in_the_configuration_is_never_called(keys: tuple[str, ...], path: str, copy: Path) -> None:
    file = run_folder(copy) / "config.yaml"
    config = yaml.safe_load(file.read_text())
    node = config
    for key in keys:
        node = node[key]
    node.clear()
    node |= {"_target_": path, "path": str(copy / "made")}
    file.write_text(yaml.safe_dump(config))
    assert f"config.yaml: {'.'.join(keys)}._target_ is '{path}', but the configuration of a run may" in refused(copy)
    assert not (copy / "made").exists()


def test_changed_weights_are_refused(copy: Path) -> None:
    file = run_folder(copy) / "weights.pt"
    content = torch.load(file, weights_only=True)
    content["weights"]["linear.bias"] += 1
    torch.save(content, file)
    assert "is not the file that the run wrote" in refused(copy)
    data = bytearray(file.read_bytes())
    file.write_bytes(data[: len(data) // 2])
    assert "weights.pt" in refused(copy)


def test_a_float_run_is_refused(copy: Path) -> None:
    assert "is a float run" in refused(copy, run=str(copy / "runs/digits16-resnet20-none-w32a32-none/seed0"))


@pytest.mark.parametrize(
    "option", [{"profile": "int9"}, {"pack": "zip"}, {"gate": 2}, {"images": 0}, {"calibration_images": 0}]
)
def test_a_wrong_option_is_refused(copy: Path, option: dict[str, Any]) -> None:
    assert refused(copy, **option).startswith(f"{next(iter(option))}=")


@pytest.mark.parametrize(("missing", "error"), [("onnx", SqakdError), ("sqakd.export.artefacts", ModuleNotFoundError)])
def test_only_a_missing_package_is_reported_with_its_installation(
    missing: str, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong import in this project keeps its traceback."""
    monkeypatch.delitem(sys.modules, "sqakd.export.pipeline")
    monkeypatch.delattr("sqakd.export.pipeline")
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(error) as found:
        export_run({})
    assert missing in str(found.value)
    assert ("use pip install -e '.[export]' in the checkout" in str(found.value)) == (error is SqakdError)


@pytest.mark.parametrize("key", ["rounds", "seconds", "batches", "threads"])
def test_a_wrong_option_of_the_benchmark_is_refused(key: str) -> None:
    wrong: dict[str, Any] = QUICK | {key: [0] if isinstance(QUICK[key], list) else -1}
    with pytest.raises(ExportError, match=f"{key}="):
        Timing(**wrong)


@pytest.mark.slow
def test_the_command_prints_its_result_and_writes_the_same_file_again(trained: Path) -> None:
    done = command.script("export.py", f"run=runs/{NAME}/seed0", "benchmark.rounds=0", "folder=mine", folder=trained)
    assert done.returncode == 0, done.stderr
    assert "agrees with the trained network on 100.00% of 96 validation images" in done.stdout
    assert "mine/model.onnx" in done.stdout.splitlines()[-1]
    again = (trained / "mine" / "model.onnx").read_bytes()
    assert again == (run_folder(trained) / "export-exact" / "model.onnx").read_bytes()


def test_the_command_reports_an_error_in_one_line(tmp_path: Path) -> None:
    done = command.script("export.py", folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: no ")
    assert "use run=" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


# predict


@pytest.fixture(scope="module")
def pictures(trained: Path) -> Path:
    """Return a folder with eight validation digits as PNG files."""
    folder = trained / "pictures"
    folder.mkdir()
    data = Digits.__new__(Digits)
    data.image_size = 16
    data.load()
    for i, (pixels, label) in enumerate(zip(data.val_images[:8], data.val_labels[:8], strict=True)):  # type: ignore[index]
        image = Image.fromarray(pixels.permute(1, 2, 0).numpy())
        image.save(folder / f"{i}_is_{int(label)}.png")
    return folder


def test_predict_prints_the_classes(trained: Path, pictures: Path) -> None:
    done = predict(trained, str(pictures), "--top", "1", "--batch", "3")
    assert done.returncode == 0, done.stderr
    model = Model(run_folder(trained) / "export-exact" / "model.onnx")
    files = sorted(pictures.iterdir())
    rows = model.probabilities(np.stack([model.prepare(file) for file in files]))
    np.testing.assert_allclose(rows.sum(axis=1), 1)
    wanted = [f"{f}: {row.argmax()} {100 * row.max():.1f}%" for f, row in zip(files, rows, strict=True)]
    assert done.stdout.splitlines() == wanted


def test_predict_prepares_images_of_any_size_and_mode(trained: Path, pictures: Path, tmp_path: Path) -> None:
    model = Model(run_folder(trained) / "export-exact" / "model.onnx")
    file = sorted(pictures.iterdir())[0]
    pixels = np.asarray(Image.open(file)).transpose(2, 0, 1)
    assert np.array_equal(model.prepare(file), pixels)
    for name, image in {
        "grey.png": Image.open(file).convert("L"),
        "wide.jpg": Image.new("RGB", (60, 20), "red"),
        "clear.png": Image.new("RGBA", (9, 9), (255, 255, 255, 0)),
    }.items():
        image.save(tmp_path / name)
        assert model.prepare(tmp_path / name).shape == (3, 16, 16)
    assert not model.prepare(tmp_path / "clear.png").any()


def test_predict_skips_unreadable_files(trained: Path, pictures: Path, tmp_path: Path) -> None:
    shutil.copytree(pictures, tmp_path / "mixed")
    (tmp_path / "mixed" / "broken.png").write_bytes(b"no image")
    done = predict(trained, str(tmp_path / "mixed"), str(tmp_path / "missing.png"))
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 8
    assert "broken.png: cannot be read" in done.stderr
    assert "2 of 10 images could not be read" in done.stderr
    assert "Traceback" not in done.stderr


def test_predict_refuses_a_missing_or_foreign_model(pictures: Path, tmp_path: Path) -> None:
    done = command.script("-m", "sqakd.predict", "missing.onnx", str(pictures), folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: no file missing.onnx")
    assert "Traceback" not in done.stderr
    (tmp_path / "broken.onnx").write_bytes(b"none")
    with pytest.raises(ValueError, match=r"broken\.onnx is not an ONNX model"):
        Model(tmp_path / "broken.onnx")

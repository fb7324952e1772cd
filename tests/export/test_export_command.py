"""export.py and sqakd.predict as a user types them, on one small trained run; and all that can be wrong with it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import command
import numpy as np
import onnx
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image

from sqakd.app.export import export_run
from sqakd.dataset.digits import Digits
from sqakd.export import pipeline
from sqakd.predict import Model
from sqakd.runs.export_record import Verdict

NAME = "digits16-resnet20-ewgs-w2a2-sqakd"
WORDS = ["dataset=digits16", "dataset.limit=96", "quantizer=ewgs", "bits=2", *command.SMALL]
QUICK = {"rounds": 1, "seconds": 0.01, "batches": [2], "threads": [1]}
FILES = {"model.onnx", "model.float.onnx", "weights_int.npz", "layers.json", "record.json", "report.md", "report.html"}
FILES |= {"layers.png", "latency.png", "pareto.png"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds runs/NAME/seed0, exported, and its float run."""
    folder = tmp_path_factory.mktemp("work")
    done = command.train(*WORDS, runs=folder / "runs")
    assert done.returncode == 0, done.stderr
    assert export(folder, benchmark=QUICK) >= 0.995
    return folder


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Iterator[Path]:
    """The same, to be damaged, without the export."""
    shutil.copytree(trained / "runs", tmp_path / "runs")
    for made in run_folder(tmp_path).glob("export-*"):
        shutil.rmtree(made)
    yield tmp_path
    assert not list(run_folder(tmp_path).glob("*export*")), "nothing is written"
    assert not list(run_folder(tmp_path).glob(".*export*")), "nothing half-written stays"


def run_folder(folder: Path) -> Path:
    return folder / "runs" / NAME / "seed0"


def predict(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    model = run_folder(folder) / "export-exact" / "model.onnx"
    return command.script("-m", "sqakd.predict", str(model), *words, folder=folder)


def export(place: Path, **words: Any) -> float:
    """The command's own work, in this process."""
    with initialize_config_dir(str(command.ROOT / "conf"), version_base="1.3"):
        config = OmegaConf.to_container(compose("export", overrides=[f"run={run_folder(place)}"]))
    assert isinstance(config, dict)
    assert words.keys() <= config.keys()
    return export_run({str(key): value for key, value in config.items()} | {"benchmark": QUICK | {"rounds": 0}} | words)


def refused(place: Path, **words: Any) -> str:
    with pytest.raises(ValueError) as error:
        export(place, **words)
    assert "\n" not in str(error.value)
    return str(error.value)


def record(folder: Path, name: str = "export-exact") -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run_folder(folder) / name / "record.json").read_text())
    return content


def test_the_files_are_there_and_say_what_they_are(trained: Path) -> None:
    folder = run_folder(trained) / "export-exact"
    assert {file.name for file in folder.iterdir()} == FILES
    facts = json.loads(next(p.value for p in onnx.load(folder / "model.onnx").metadata_props if p.key == "sqakd"))
    assert facts["classes"] == [str(i) for i in range(10)]
    assert len(facts["mean"]) == len(facts["std"]) == 3
    assert set(map(tuple, facts["bits"].values())) == {(2, 2)}
    assert facts["image_shape"] == [3, 16, 16]
    assert len(facts["config_hash"]) == 16


def test_the_record_says_how_large_it_is_and_what_stays_float(trained: Path) -> None:
    content = record(trained)
    sizes = content["sizes"]
    assert sizes["file_gzip"] < sizes["file"] < sizes["unpacked"] < sizes["float"]
    assert content["bit_operations"] > 0
    assert [part["name"] for part in content["stays_float"]] == ["conv1", "bn2", "linear"]
    assert len(content["layers"]) == 6
    integers = [layer for layer in content["layers"] if layer["output"] == "integers"]
    assert len(integers) == 3
    assert all(layer["wrong_sums"] <= 1e-3 * layer["reachable_sums"] for layer in integers)
    assert max(layer["codes_that_differ"] for layer in content["layers"]) <= 1e-3
    assert min(verdict["agreement"] for verdict in content["verify"]) >= 0.995


def test_the_report_shows_what_was_measured(trained: Path) -> None:
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
    assert page.count("data:image/png") == 3
    assert all(f"({name})" in text for name in ("layers.png", "latency.png", "pareto.png"))


def test_the_integers_alone_give_the_next_layers_levels(trained: Path) -> None:
    """What an FPGA would do with weights_int.npz: sums, compared with thresholds."""
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


def test_other_profiles_and_pixels(trained: Path) -> None:
    export(trained, profile="int8", preprocess=True)
    assert record(trained, "export-int8")["verify"][0]["agreement"] >= 0.7
    export(trained, profile="trt", pack="none", images=50)
    content = record(trained, "export-trt")
    assert content["verify"][0]["images"] == 50
    assert content["sizes"]["file"] == content["sizes"]["unpacked"]


def test_again_takes_the_place_of_the_first(trained: Path) -> None:
    before = (run_folder(trained) / "export-exact" / "model.onnx").read_bytes()
    export(trained)
    assert (run_folder(trained) / "export-exact" / "model.onnx").read_bytes() == before
    assert not list(run_folder(trained).glob(".*export*"))


def test_a_file_that_disagrees_is_not_written(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verdict = Verdict(runtime="a runtime", images=96, agreement=0.99, largest_difference=1.0, spread=1.0)
    monkeypatch.setattr(pipeline, "verify", lambda *_, **__: [verdict])
    message = refused(copy, folder=str(copy / "x"))
    assert "agrees with the trained network on 99.00% of 96 validation images, less than the gate of 99.50%" in message
    assert "nothing was written" in message
    assert not (copy / "x").exists()


def test_a_folder_that_cannot_be_written(copy: Path) -> None:
    (copy / "file").write_text("")
    assert "type folder=ANOTHER_FOLDER" in refused(copy, folder=str(copy / "file" / "x"))


def test_what_is_no_finished_run(copy: Path) -> None:
    assert "no run at runs/nothing" in refused(copy, run="runs/nothing")
    (run_folder(copy) / "record.json").unlink()
    assert "is not finished" in refused(copy)
    (run_folder(copy) / "config.yaml").unlink()
    assert "is not the folder of a run" in refused(copy)


def test_a_run_of_another_version(copy: Path) -> None:
    file = run_folder(copy) / "record.json"
    content = json.loads(file.read_text())
    content["versions"]["sqakd"] = "0.0.7"
    file.write_text(json.dumps(content))
    assert "was trained with sqakd 0.0.7 and this is" in refused(copy)
    file.write_text("{")
    assert "record.json is not a record of a run" in refused(copy)


def test_weights_that_were_changed(copy: Path) -> None:
    file = run_folder(copy) / "weights.pt"
    content = torch.load(file, weights_only=True)
    content["weights"]["linear.bias"] += 1
    torch.save(content, file)
    assert "is not the file that the run wrote" in refused(copy)
    data = bytearray(file.read_bytes())
    file.write_bytes(data[: len(data) // 2])
    assert "weights.pt" in refused(copy)


def test_a_float_run_has_nothing_to_export(copy: Path) -> None:
    assert "is a float run" in refused(copy, run=str(copy / "runs/digits16-resnet20-none-w32a32-none/seed0"))


@pytest.mark.parametrize(
    "word", [{"profile": "int9"}, {"pack": "zip"}, {"gate": 2}, {"images": 0}, {"calibration_images": 0}]
)
def test_a_wrong_word(copy: Path, word: dict[str, Any]) -> None:
    assert refused(copy, **word).startswith(f"{next(iter(word))}=")


@pytest.mark.slow
def test_the_command_says_what_it_found(trained: Path) -> None:
    done = command.script("export.py", f"run=runs/{NAME}/seed0", "benchmark.rounds=0", "folder=mine", folder=trained)
    assert done.returncode == 0, done.stderr
    assert "agrees with the trained network on 100.00% of 96 validation images" in done.stdout
    assert "mine/model.onnx" in done.stdout.splitlines()[-1]


def test_the_command_ends_in_one_sentence(tmp_path: Path) -> None:
    done = command.script("export.py", folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: no ")
    assert "type run=" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


# predict


@pytest.fixture(scope="module")
def pictures(trained: Path) -> Path:
    """Validation digits as files of several kinds and sizes, in a folder."""
    folder = trained / "pictures"
    folder.mkdir()
    data = Digits.__new__(Digits)
    data.image_size = 16
    data.load()
    for i, (pixels, label) in enumerate(zip(data.val_images[:8], data.val_labels[:8], strict=True)):  # type: ignore[index]
        image = Image.fromarray(pixels.permute(1, 2, 0).numpy())
        image.save(folder / f"{i}_is_{int(label)}.png")
    return folder


def test_predict_names_the_classes(trained: Path, pictures: Path) -> None:
    done = predict(trained, str(pictures), "--top", "1", "--batch", "3")
    assert done.returncode == 0, done.stderr
    model = Model(run_folder(trained) / "export-exact" / "model.onnx")
    files = sorted(pictures.iterdir())
    rows = model.probabilities(np.stack([model.prepare(file) for file in files]))
    np.testing.assert_allclose(rows.sum(axis=1), 1)
    wanted = [f"{f}: {row.argmax()} {100 * row.max():.1f}%" for f, row in zip(files, rows, strict=True)]
    assert done.stdout.splitlines() == wanted


def test_predict_prepares_images_of_any_kind(trained: Path, pictures: Path, tmp_path: Path) -> None:
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


def test_predict_skips_what_is_no_image(trained: Path, pictures: Path, tmp_path: Path) -> None:
    shutil.copytree(pictures, tmp_path / "mixed")
    (tmp_path / "mixed" / "broken.png").write_bytes(b"no image")
    done = predict(trained, str(tmp_path / "mixed"), str(tmp_path / "missing.png"))
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 8
    assert "broken.png: cannot be read" in done.stderr
    assert "2 of 10 images could not be read" in done.stderr
    assert "Traceback" not in done.stderr


def test_predict_takes_only_its_own_models(trained: Path, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"none")
    for model, message in (("missing.onnx", "no file"), (str(tmp_path / "broken.onnx"), "cannot be opened")):
        done = command.script("-m", "sqakd.predict", model, str(pictures), folder=tmp_path)
        assert done.returncode == 2
        assert message in done.stderr
        assert "Traceback" not in done.stderr


def test_predict_imports_no_training_library(trained: Path, pictures: Path) -> None:
    code = (
        "import sys; from sqakd.predict import main; status = main(sys.argv[1:]);"
        " extra = {'torch', 'onnx', 'pytorch_lightning', 'hydra', 'tqdm'} & set(sys.modules);"
        " assert not extra, extra; raise SystemExit(status)"
    )
    model = run_folder(trained) / "export-exact" / "model.onnx"
    done = subprocess.run(
        [sys.executable, "-c", code, str(model), str(pictures)],
        cwd=command.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr

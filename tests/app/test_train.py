"""Whole commands: each trains to its end, all in one folder of runs with one teacher."""

from __future__ import annotations

import json
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import command
import plain_network
import pytest
import small
import torch
from hydra.utils import instantiate
from PIL import Image
from sklearn.datasets import load_digits

import sqakd
from sqakd.quantization.calibrate import calibrate
from sqakd.quantization.convert import quantize

OVERRIDES = [*command.SMALL, "dataset=digits16", "recipe.epochs=1", "trainer.accelerator=cpu"]
TEACHER = "digits16-resnet20-none-w32a32-none"
STEPS = 23  # batches of 64 in 1,437 images


def train(runs: Path, *overrides: str) -> CompletedProcess[str]:
    done = command.train(*OVERRIDES, *overrides, runs=runs)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done


def record(runs: Path, name: str, seed: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((runs / name / f"seed{seed}" / "record.json").read_text())
    for score in ("top1", "agreement"):
        assert all(0 <= value <= 1 for value in found["scores"].get(score, {}).values())
    return found


def has_learned(found: dict[str, Any]) -> bool:
    """Tell whether the student is well above chance, which is 0.1."""
    score = "top1" if found["labels_used"] else "agreement"
    return bool(found["scores"][score]["last"] > 0.3)


def teacher_file(runs: Path) -> str:
    return f"teacher.checkpoint={runs / TEACHER / 'seed0' / 'weights.pt'}"


def steps(run: Path) -> int:
    """Return the number of optimizer steps in a run's checkpoint."""
    state: dict[str, Any] = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    return int(state["global_step"])


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CompletedProcess[str], CompletedProcess[str]]:
    """Start two sweeps at the same moment in an empty folder; one contains an impossible cell."""
    runs = tmp_path_factory.mktemp("commands") / "runs"
    sweeps = (["bits=1,9,8", "-m"], ["w_bits=1", "a_bits=4", "seed=0,1", "-m"])
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda overrides: command.train(*OVERRIDES, *overrides, runs=runs), sweeps)
    return runs, first, second


@pytest.fixture(scope="module")
def runs(pair: tuple[Path, CompletedProcess[str], CompletedProcess[str]]) -> Path:
    return pair[0]


def test_two_simultaneous_sweeps_train_one_teacher(
    pair: tuple[Path, CompletedProcess[str], CompletedProcess[str]],
) -> None:
    runs = pair[0]
    logs = [file.read_text() for file in runs.glob(".sweeps/*/*.log")]
    said = [line for log in logs for line in log.splitlines() if TEACHER in line]
    assert len([line for line in said if line.startswith(f"finished: {TEACHER}")]) == 1
    assert len([line for line in said if line.startswith(f"done before: {TEACHER}")]) == 3
    assert [path.name for path in runs.iterdir() if "-none-" in path.name] == [TEACHER]
    assert record(runs, TEACHER)["labels_used"] is True


def test_a_finished_float32_teacher_serves_a_student_in_bf16(runs: Path) -> None:
    note = "float run in precision 32-true, student in bf16-mixed"
    bf16 = ["trainer.precision=bf16-mixed", "recipe.epochs=0", "name=bf16"]
    planned = train(runs, *bf16, "plan=true").stdout
    assert f"\ndone     {runs / TEACHER / 'seed0'}  {note}\n" in planned
    assert f"\n{note}\n" in train(runs, *bf16).stdout
    assert record(runs, "bf16")["float_run"]["precision"] == "32-true"
    assert record(runs, TEACHER)["changes"].get("trainer.precision") is None


def test_a_failing_cell_does_not_end_its_sweep(
    pair: tuple[Path, CompletedProcess[str], CompletedProcess[str]],
) -> None:
    runs, sweep, other = pair
    assert (sweep.returncode, other.returncode) == (1, 0), sweep.stderr + other.stderr
    assert (
        "\nfailed: digits16-resnet20-ewgs-w9a9-sqakd-seed0: bits=9: expected a whole number from 1 to 8" in sweep.stdout
    )
    assert "Traceback" not in sweep.stdout + sweep.stderr
    assert record(runs, "digits16-resnet20-ewgs-w8a8-sqakd")["epochs"] == 1
    assert not (runs / "digits16-resnet20-ewgs-w9a9-sqakd").exists()


def test_fewer_bits_make_a_smaller_and_cheaper_network(runs: Path) -> None:
    found = {bits: record(runs, f"digits16-resnet20-ewgs-w{bits}a{bits}-sqakd") for bits in (1, 8)}
    floating = record(runs, TEACHER)
    assert [(found[bits]["w_bits"], found[bits]["a_bits"]) for bits in (1, 8)] == [(1, 1), (8, 8)]
    sizes = [one["packed_bytes"] for one in (found[1], found[8], floating)]
    work = [one["bit_operations"] for one in (found[1], found[8], floating)]
    assert sizes == sorted(set(sizes))
    assert work == sorted(set(work))
    for one in found.values():
        assert has_learned(one)
        assert one["labels_used"] is False
        assert one["float_run"]["scores"] == floating["scores"]
        assert one["drop_from_float"] == floating["scores"]["top1"]["last"] - one["scores"]["top1"]["last"]
    assert found[8]["scores"]["agreement"]["last"] > found[1]["scores"]["agreement"]["last"]


def test_a_run_without_epochs_is_only_calibrated(runs: Path, tmp_path: Path) -> None:
    done = train(runs, "recipe.epochs=0", "kd=ft", "bits=8", "name=calibrated")
    found = record(runs, "calibrated")
    assert found["epochs"] == 0
    assert found["scores"]["top1"]["last"] == found["top1_before_training"] > 0.3
    text = "after calibration, before training: top-1 {:.2f}% agreement {:.2f}%\n"
    assert text.format(*(100 * found[f"{score}_before_training"] for score in ("top1", "agreement"))) in done.stdout
    folder = runs / "calibrated" / "seed0"
    written = {"weights.pt", "weights.safetensors", "metrics.csv", "picture.png", "README.md"}
    assert {file.name for file in folder.iterdir()} >= written
    assert not (folder / "checkpoints").exists()
    for file in ("weights.pt", "weights.safetensors"):
        alone = shutil.copy(folder / file, tmp_path / file)
        assert command.same_bits(sqakd.load(alone).state_dict(), command.weights(folder)), file
    trained = record(runs, "digits16-resnet20-ewgs-w8a8-sqakd")
    assert trained["top1_before_training"] == found["top1_before_training"], "the seed and the calibration are the same"


def test_seeds_differ_but_share_their_teacher(runs: Path) -> None:
    name = "digits16-resnet20-ewgs-w1a4-sqakd"
    found = [record(runs, name, seed) for seed in (0, 1)]
    for seed, one in enumerate(found):
        assert (one["seed"], one["w_bits"], one["a_bits"]) == (seed, 1, 4)
        assert one["float_run"]["seed"] == 0
        assert has_learned(one)
    first, second = (command.weights(runs / name / f"seed{seed}") for seed in (0, 1))
    assert first.keys() == second.keys()
    assert not torch.equal(first["conv1.weight"], second["conv1.weight"])


@pytest.mark.slow
def test_gradient_scaling_0_equals_the_straight_through_estimator(runs: Path) -> None:
    train(runs, "quantizer=ste,ewgs_released", "kd=kd", "-m")
    names = [f"digits16-resnet20-{quantizer}-w2a2-kd" for quantizer in ("ste", "ewgs_released")]
    for name in names:
        found = record(runs, name)
        assert found["labels_used"] is True
        assert found["choices"]["kd"] == "kd"
        assert has_learned(found)
        assert {"train/kl", "train/ce"} <= command.metrics(runs / name / "seed0")[0].keys()
    ste, released = (command.weights(runs / name / "seed0") for name in names)
    deltas = {key: value for key, value in released.items() if key not in ste}
    assert deltas
    assert all(key.endswith("rounding.delta") and value == 0 for key, value in deltas.items())
    assert command.same_bits(ste, {key: value for key, value in released.items() if key in ste})


@pytest.mark.slow
def test_a_teacher_of_another_architecture_trains_a_student(runs: Path) -> None:
    train(runs, "model@teacher=resnet32", "teacher.net.blocks=2", "name=taught-by-another")
    found, teacher = record(runs, "taught-by-another"), record(runs, "digits16-resnet32-none-w32a32-none")
    assert has_learned(found)
    assert found["float_run"]["name"] == TEACHER, "the student starts as its own float run"
    assert teacher["parameters"] > record(runs, TEACHER)["parameters"]
    student = command.weights(runs / "taught-by-another" / "seed0")
    assert "layer1.1.conv1.weight" in command.weights(runs / "digits16-resnet32-none-w32a32-none" / "seed0")
    assert "layer1.1.conv1.weight" not in student


def test_a_teacher_from_a_file_gives_the_same_weights_as_one_found_under_runs(runs: Path) -> None:
    done = train(runs, teacher_file(runs), "w_bits=1", "a_bits=4", "name=from-a-file")
    assert "comes first" not in done.stdout
    found = record(runs, "from-a-file")
    assert found["float_run"]["name"] == TEACHER
    there, here = runs / "digits16-resnet20-ewgs-w1a4-sqakd" / "seed0", runs / "from-a-file" / "seed0"
    assert command.same_bits(command.weights(there), command.weights(here))


def test_unlabelled_images_train_in_bfloat16(runs: Path, tmp_path: Path) -> None:
    for i, pixels in enumerate(load_digits().images[:300]):
        image = Image.fromarray((pixels * 255 / 16).astype("uint8"))
        image.resize((16, 16), Image.Resampling.BILINEAR).save(tmp_path / f"{i}.png")
    overrides = [
        "dataset=imagefolder",
        f"dataset.folder={tmp_path}",
        "dataset.image_size=16",
        "dataset.augment.padding=1",
    ]
    overrides += [
        "dataset.mean=[0.3054,0.3054,0.3054]",
        "dataset.std=[0.3237,0.3237,0.3237]",
        "dataset.augment.flip=false",
    ]
    overrides += ["recipe.epochs=2", "recipe.batch_size=16", "trainer.precision=bf16-mixed", teacher_file(runs)]
    names = [f"number{digit}" for digit in range(10)]
    (tmp_path / "names.txt").write_text("\n".join(names) + "\n")
    overrides += [f"dataset.classes={tmp_path / 'names.txt'}", "dataset.resize=20"]
    done = train(runs, *overrides, "bits=4")
    line = (
        r"data: \d+ training and \d+ validation images \(held out by file name\), no labels; 1 left out: 1 not an image"
    )
    assert len(re.findall(f"^{line}", done.stdout, re.MULTILINE)) == 1
    seen = r"teacher resnet20 on (\d+) validation images: mean confidence [\d.]+%, predicted classes number\d \(\d+%\)"
    (held_out,) = re.findall(f"^{seen}", done.stdout, re.MULTILINE)
    assert f"warning: the agreement is measured on {held_out} images" in done.stdout
    found = record(runs, "imagefolder-resnet20-ewgs-w4a4-sqakd")
    assert found["scores"].keys() == {"agreement", "kl"}
    assert "drop_from_float" not in found
    assert found["labels_used"] is False
    assert has_learned(found)
    assert command.facts(runs / found["name"] / "seed0")["class_names"] == names
    weights = command.weights(runs / found["name"] / "seed0")
    assert weights["linear.weight"].shape[0] == 10
    assert {tensor.dtype for tensor in weights.values() if tensor.is_floating_point()} == {torch.float32}


def test_two_devices_share_each_batch(runs: Path) -> None:
    done = train(runs, "trainer.devices=2", "trainer.strategy=ddp", "kd=none")
    name = "digits16-resnet20-ewgs-w2a2-none"
    found, run = record(runs, name), runs / name / "seed0"
    assert found["labels_used"] is True
    assert has_learned(found)
    assert len(re.findall(f"^finished: {name}", done.stdout, re.MULTILINE)) == 1
    (row,) = command.metrics(run)
    assert ("train/ce" in row, "train/kl" in row) == (True, False)
    assert steps(run) == STEPS, "a batch is shared among the devices"


def test_several_batches_set_the_ranges_like_one_batch_of_all_their_images(runs: Path) -> None:
    """The ranges are close only, because the command's memory format rounds differently."""
    train(runs, "recipe.epochs=0", "recipe.calibration_batches=3", "name=three", teacher_file(runs))
    found = command.weights(runs / "three" / "seed0")
    data = instantiate(small.config("dataset=digits16").dataset)
    data.setup()

    def distance(batches: int) -> float:
        network = small.network()
        network.load_state_dict(command.weights(runs / TEACHER / "seed0"))
        quantize(network, small.scheme("quantizer=ewgs", "bits=2"))
        calibrate(network, data.calibration_batch(batches))
        ranges = {key: value.float() for key, value in network.state_dict().items() if "upper" in key or "scale" in key}
        assert len(ranges) > 10
        return float(sum((value - found[key].float()).abs().sum() for key, value in ranges.items()))

    assert distance(3) < 0.2 * distance(1)


def test_gradients_are_accumulated_and_clipped(runs: Path) -> None:
    """A gradient clipped to almost zero changes almost nothing."""
    train(runs, "quantizer=none", "recipe.epochs=2", "recipe.accumulate=2", "recipe.gradient_clip=1e-9", "name=clipped")
    assert steps(runs / "clipped" / "seed0") == 2 * ((STEPS + 1) // 2)
    first, second = (float(row["train/loss"]) for row in command.metrics(runs / "clipped" / "seed0"))
    assert second == pytest.approx(first, rel=0.1)
    first, second = (float(row["train/loss"]) for row in command.metrics(runs / TEACHER / "seed0"))
    assert second < 0.7 * first


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a compiler")
def test_a_compiled_training_learns_and_saves_plain_names(runs: Path) -> None:
    # With drop_last there is one size of batch, so one graph to compile.
    train(runs, "trainer.compile=true", "dataset.drop_last=true", "name=compiled", teacher_file(runs))
    assert has_learned(record(runs, "compiled"))
    assert steps(runs / "compiled" / "seed0") == STEPS - 1
    eager = command.weights(runs / "digits16-resnet20-ewgs-w1a4-sqakd" / "seed0")
    assert command.weights(runs / "compiled" / "seed0").keys() == eager.keys(), "no name of a compiled module"


@pytest.mark.slow
def test_the_score_in_a_checkpoint_counts_only_on_the_same_images(tmp_path: Path) -> None:
    """The accuracy on another data set is no reference for the drop from float."""
    runs = tmp_path / "runs"
    overrides = [*command.SMALL, "dataset.limit=32", "recipe.epochs=1"]
    assert command.train("dataset=digits16", "quantizer=none", *overrides, runs=runs).returncode == 0
    weights = runs / "digits16-resnet20-none-w32a32-none" / "seed0" / "weights.pt"
    for dataset, known in (("digits16", True), ("digits", False)):
        done = command.train(f"dataset={dataset}", f"teacher.checkpoint={weights}", *overrides, runs=runs)
        assert done.returncode == 0, done.stderr
        record = json.loads((runs / f"{dataset}-resnet20-ewgs-w2a2-sqakd" / "seed0" / "record.json").read_text())
        assert (record["float_run"] is not None) == known
        assert ("drop_from_float" in record) == known


def test_epochs_without_validation_have_no_scores_of_other_epochs(tmp_path: Path) -> None:
    overrides = [*command.SMALL, "dataset=digits16", "dataset.limit=64", "quantizer=none", "recipe.epochs=4"]
    done = command.train(*overrides, "+trainer.check_val_every_n_epoch=2", runs=tmp_path / "runs")
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "digits16-resnet20-none-w32a32-none" / "seed0"
    assert [bool(row["val/top1"]) for row in command.metrics(run)] == [False, True, False, True]
    assert json.loads((run / "record.json").read_text())["epochs"] == 4


def test_a_training_that_a_callback_ends_early_is_not_finished(tmp_path: Path) -> None:
    overrides = [*command.SMALL, "dataset=digits16", "dataset.limit=64", "quantizer=none", "recipe.epochs=4"]
    stop = ["+callbacks.stop._target_=pytorch_lightning.callbacks.EarlyStopping", "+callbacks.stop.monitor=val/top1"]
    stop += ["+callbacks.stop.patience=1", "+callbacks.stop.min_delta=2.0", "+callbacks.stop.mode=max"]
    done = command.train(*overrides, *stop, runs=tmp_path / "runs")
    assert done.returncode == 1
    assert "error: stopped after 2 of the 4 epochs of the training; the same command continues it" in done.stderr
    run = tmp_path / "runs" / "digits16-resnet20-none-w32a32-none" / "seed0"
    assert not (run / "record.json").exists()
    assert len(command.metrics(run)) == 2


def test_a_run_with_a_network_of_the_user_announces_that_only_python_exports_it(tmp_path: Path) -> None:
    own = ["model.net._target_=plain_network.plain_network", "model.name=mine", "model.feature_layers=[]"]
    few = ["dataset.limit=256", "trainer.accelerator=cpu", "recipe.epochs=0", "teacher.recipe.epochs=1"]
    small = [*command.SMALL, *own, *few, "quantizer=lsq", "bits=3", "name=mine"]
    done = command.train(*small, runs=tmp_path / "runs")
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "mine" / "seed0"
    notes = [line for line in done.stdout.splitlines() if line.startswith("note: model.net._target_=plain_network")]
    assert len(notes) == 1, "not for the float run as well"
    assert "export.py will refuse this run" in notes[0]
    assert done.stdout.index(notes[0]) < done.stdout.index("data: ")
    refused = command.script("export.py", f"run={run}", folder=tmp_path)
    assert "expected load(WEIGHTS, NETWORK) with a network of that class in memory" in refused.stdout + refused.stderr
    network = plain_network.plain_network(num_classes=10, blocks=1)
    student = sqakd.load(run / "weights.safetensors", sqakd.quantize(network, "lsq", bits=3))
    images = torch.rand(8, 3, 32, 32)
    assert sqakd.export(student, images, tmp_path / "exported").verify[0].agreement == 1
    with pytest.raises(sqakd.SqakdError, match="made for another quantization"):
        sqakd.load(run / "weights.safetensors", sqakd.quantize(network, "lsq", bits=2))

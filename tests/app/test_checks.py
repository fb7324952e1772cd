"""Bad input ends the command in one line with the cause and the cure, before a run folder is claimed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import command
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from PIL import Image

from sqakd.app import start
from sqakd.models.resnet import CifarResNet

STUDENT, TEACHER = "digits-resnet20-ewgs-w2a2-sqakd", "digits-resnet20-none-w32a32-none"
FOLDER = ["dataset=imagefolder", "dataset.image_size=32"]


@pytest.fixture(autouse=True)
def hydra() -> Iterator[None]:
    with initialize_config_dir(str(command.ROOT / "conf"), version_base="1.3"):
        yield
    HydraConfig.instance().cfg = None


def train(base: Path, *overrides: str) -> float | None:
    """Do what train.py does with some overrides, in this process; all files are below `base`."""
    own = ["model.net.blocks=1", "recipe.epochs=2", "trainer.accelerator=cpu"]
    own += [f"paths.runs={base / 'runs'}", f"paths.data={base / 'data'}"]
    cfg = compose("train", overrides=[*own, *overrides], return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    return start.train(OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"]))


def refusal(base: Path, *overrides: str) -> str:
    """Return the line in which a refused command ends; Python writes it to stderr and exits with status 1."""
    with pytest.raises(SystemExit) as stopped:
        train(base, *overrides)
    message = stopped.value.code
    assert isinstance(message, str)
    assert message.startswith("error: ")
    assert "\n" not in message
    return message


def files(folder: Path) -> dict[str, bytes]:
    """Return the content of all files in a folder except locks, which are no part of a run."""
    found = [path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(".lock")]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(found)}


def save_network(file: Path, *, blocks: int = 1, classes: int = 10) -> str:
    torch.save(CifarResNet(blocks=blocks, num_classes=classes).state_dict(), file)
    return f"teacher.checkpoint={file}"


def save_images(folder: Path, count: int = 20) -> str:
    folder.mkdir()
    for i in range(count):
        Image.new("L", (32, 32), 10 * i).save(folder / f"{i}.png")
    return f"dataset.folder={folder}"


class Malice:
    """An object whose unpickling runs code, which would make the folder `trace`."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return os.mkdir, (str(self.trace),)


def test_a_refused_command_exits_with_status_1_and_one_line(tmp_path: Path) -> None:
    done = command.train("bits=0", runs=tmp_path / "runs", new_process=True)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: bits=0: expected a whole number from 1 to 8")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("overrides", "message_part"),
    [
        (["bits=9"], "bits=9: expected a whole number from 1 to 8"),
        (["bits=2.5"], "bits=2.5: expected a whole number"),
        (["trainer.num_nodes=2"], "num_nodes=2: expected a launcher that starts a process on each node"),
        (["kd.temperature=1e-30"], "temperature=1e-30: expected a number from 0.01 to 1000"),
        (
            ["plus=progressive", "recipe.epochs=1"],
            "1 epochs are too few for a bits schedule",
        ),
        (["~teacher"], "teacher is missing: expected an option of this group"),
        (["w_bits=0"], "bits=0: expected a whole number from 1 to 8"),
        (["a_bits=two"], "a_bits=two: expected a whole number"),
        (["layer_bits={layer3:4}"], "layer_bits has 'layer3', which is a module and no layer; layer3.* matches"),
        (["quantizer=none", "layer_bits={conv1:8}"], "layer_bits has no effect with quantizer=none"),
        (["quantizer=none", "residual_bits=8"], "residual_bits has no effect with quantizer=none"),
        (["quantizer=none", "residual_bits=0"], "residual_bits has no effect with quantizer=none"),
        (["residual_bits=9"], "residual_bits=9: expected a whole number from 4 to 8, or null"),
        (["model=vgg8", "model.net.blocks=[1,1,1,1,1]", "residual_bits=8"], "VGG has no module ResidualSum"),
        (["quantizer=none", "bits=2"], "bits are w2 a2; omit bits, or choose a quantizer"),
        (["dataset=imagefolder"], "use dataset.folder=VALUE"),
        (["dataset=imagefolder", "dataset.folder=absent"], "absent is not a folder; expected train/"),
        (["seed=abc"], "seed=abc: expected a whole number"),
        (["seed=1.5"], "seed=1.5: expected a whole number"),
        (["teacher.seed=-1"], "teacher.seed=-1: expected a whole number of at least 0"),
        (["name=a/b"], "name='a/b': expected the name of a folder: printable, without slashes"),
        (["name=.."], "name='..': expected the name of a folder: printable, without slashes"),
        (["plus=[ema]", "plus.ema.epochs=0.001"], "plus.ema.epochs=0.001: this memory of the moving average"),
        (["dataset.limit=32", "dataset.drop_last=true"], "32 images make no batch of batch size 64 on 1 devices"),
        (
            ["+trainer.max_time=00:00:00:05"],
            "trainer.max_time=00:00:00:05: expected no such key, because the recipe",
        ),
        (["+trainer.max_steps=3"], "trainer.max_steps=3: expected no such key, because the recipe sets the length"),
        (["+trainer.check_val_every_n_epoch=3"], "trainer.check_val_every_n_epoch=3: expected a divisor of 2"),
        (
            ["dataset.limit=130", "recipe.calibration_batches=4"],
            "recipe.calibration_batches=4: expected at most 3, the number of batches of 64 images in the data set",
        ),
        (["recipe.epochs=-1"], "recipe.epochs=-1: expected a whole number of at least 0"),
        (["recipe.epochs=0", "plus=[ema]"], "plus=ema has no effect with recipe.epochs=0"),
        (
            ["recipe.epochs=0", "quantizer=none", "bits=32"],
            "recipe.epochs=0 of a float run: expected pretrained weights",
        ),
        (["teacher.recipe.epochs=0"], "recipe.epochs=0 of a float run: expected pretrained weights"),
        (["recipe.lr=fast"], "recipe.lr=fast: expected a finite number"),
        (["recipe.gradient_clip=-1"], "recipe.gradient_clip=-1: expected a positive number, or null"),
        (["+recipe.optimizer.speed=1"], "recipe.optimizer.speed=1: no such key"),
        (["kd.temperature=0"], "temperature=0: expected a number from 0.01 to 1000"),
        (["quantizer.first_last=none"], "quantizer.first_last=none: expected float, 8, same or first"),
        (["quantizer.rounding.delta=-1"], "delta=-1: expected 'hessian' or a number >= 0"),
        (["teacher.checkpoint=absent.pt"], "no checkpoint at absent.pt"),
        (["trainer.accelerator=cuda"], "CUDAAccelerator"),
        (["trainer.precision=half"], "trainer.precision=half: expected 64, 32, 16, "),
        (
            ["callbacks.quantizer_statistics.every_n_epochs=0"],
            "every_n_epochs=0: expected a whole number of at least 1",
        ),
    ],
)
def test_impossible_values_are_refused(overrides: list[str], message_part: str, tmp_path: Path) -> None:
    if "trainer.accelerator=cuda" in overrides and torch.cuda.is_available():
        pytest.skip("this machine has it")
    assert message_part in refusal(tmp_path, *overrides)
    assert files(tmp_path) == {}


def test_a_missing_data_set_is_reported(tmp_path: Path) -> None:
    message = refusal(tmp_path, "dataset=cifar10")
    assert str(tmp_path / "data") in message
    assert "dataset.download=true" in message
    assert list(tmp_path.iterdir()) == []


def test_a_truncated_archive_is_reported(tmp_path: Path) -> None:
    archive = tmp_path / "data" / "cifar-10-python.tar.gz"
    archive.parent.mkdir()
    archive.write_bytes(b"\x1f\x8b half of it")
    before = files(tmp_path)
    message = refusal(tmp_path, "dataset=cifar10")
    assert f"{archive} is truncated or altered" in message
    assert files(tmp_path) == before


@pytest.mark.parametrize("kd", ["none", "kd"])
def test_a_kd_with_labels_is_refused_on_unlabelled_images(kd: str, tmp_path: Path) -> None:
    message = refusal(tmp_path, *FOLDER, save_images(tmp_path / "images"), f"kd={kd}")
    assert f"kd={kd} reads labels" in message
    assert "use kd=sqakd" in message
    assert not (tmp_path / "runs").exists()


def test_unlabelled_images_need_a_teacher_checkpoint(tmp_path: Path) -> None:
    message = refusal(tmp_path, *FOLDER, save_images(tmp_path / "images"))
    assert "use teacher.checkpoint=FILE" in message
    assert files(tmp_path / "runs") == {}


def test_another_number_of_names_than_the_teacher_has_classes_is_refused(tmp_path: Path) -> None:
    overrides = [*FOLDER, save_images(tmp_path / "images"), save_network(tmp_path / "teacher.pt")]
    message = refusal(tmp_path, *overrides, "dataset.classes=[cat,dog]")
    assert "dataset.classes has 2 names, but the teacher" in message
    assert files(tmp_path / "runs") == {}


def test_a_run_whose_teacher_or_images_changed_is_refused(tmp_path: Path) -> None:
    """A path says nothing about the file that lies there now."""
    overrides = [*FOLDER, save_images(tmp_path / "images"), save_network(tmp_path / "teacher.pt")]
    overrides += ["recipe.epochs=1", "recipe.batch_size=8"]
    train(tmp_path, *overrides)
    before = files(tmp_path / "runs")
    torch.manual_seed(1)
    save_network(tmp_path / "teacher.pt")
    assert "holds another run: inputs.teacher: " in refusal(tmp_path, *overrides)
    Image.new("L", (32, 32), 7).save(tmp_path / "images" / "one-more.png")
    assert "holds another run: inputs.images: " in refusal(tmp_path, *overrides)
    assert files(tmp_path / "runs") == before


def test_a_file_that_is_no_image_is_reported(tmp_path: Path) -> None:
    folder = save_images(tmp_path / "images")
    (tmp_path / "images" / "broken.png").write_bytes(b"no image")
    before = files(tmp_path / "images")
    message = refusal(tmp_path, *FOLDER, folder)
    assert "broken.png (not an image of a known format)" in message
    assert "dataset.unreadable=skip" in message
    assert files(tmp_path / "images") == before
    assert files(tmp_path / "data") == {}
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("shape", "message_part"),
    [
        ({"classes": 7}, "has 7 classes, but the data set has 10"),
        ({"blocks": 2}, "made for another network"),
    ],
)
def test_an_incompatible_teacher_is_refused(shape: dict[str, int], message_part: str, tmp_path: Path) -> None:
    word = save_network(tmp_path / "theirs.pt", **shape)
    before = files(tmp_path)
    message = refusal(tmp_path, word)
    assert message_part in message
    assert str(tmp_path / "theirs.pt") in message
    assert files(tmp_path) == before


def test_classes_of_a_sorted_file_are_read_by_name(tmp_path: Path) -> None:
    """Files of safetensors are sorted by name, so their last tensor is not the classifier's."""
    file = tmp_path / "theirs.pt"
    tensors = CifarResNet(blocks=1, num_classes=7).state_dict()
    torch.save(dict(sorted(tensors.items(), key=lambda item: "conv1" in item[0])), file)
    assert "has 7 classes, but the data set has 10" in refusal(tmp_path, f"teacher.checkpoint={file}")


@pytest.mark.parametrize("content", [b"", b"epoch,top1\n0,0.5\n", b"PK\x03\x04 half an archive", b"\x80\x02."])
def test_a_damaged_checkpoint_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "theirs.pt").write_bytes(content)
    message = refusal(tmp_path, f"teacher.checkpoint={tmp_path / 'theirs.pt'}")
    assert str(tmp_path / "theirs.pt") in message
    assert len(message) > len(str(tmp_path / "theirs.pt")) + 40, "it message_part why"
    assert files(tmp_path) == {"theirs.pt": content}


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    trace = tmp_path / "it-ran"
    torch.save(
        {"state_dict": CifarResNet(blocks=1, num_classes=10).state_dict(), "x": Malice(trace)}, tmp_path / "x.pt"
    )
    message = refusal(tmp_path, f"teacher.checkpoint={tmp_path / 'x.pt'}")
    assert "loading it could run code" in message
    assert not trace.exists()
    assert files(tmp_path).keys() == {"x.pt"}


def test_a_refused_command_can_be_corrected(tmp_path: Path) -> None:
    """A refused teacher leaves no configuration in the run's folder."""
    refusal(tmp_path, save_network(tmp_path / "seven.pt", classes=7))
    score = train(tmp_path, save_network(tmp_path / "ten.pt"), "recipe.epochs=1")
    assert score is not None
    record = json.loads((tmp_path / "runs" / STUDENT / "seed0" / "record.json").read_text())
    assert record["scores"]["top1"]["last"] == score


def test_a_folder_of_runs_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    message = refusal(tmp_path, f"paths.runs={tmp_path / 'file' / 'runs'}")
    assert "Not a directory" in message
    assert "use paths.runs=FOLDER" in message
    assert files(tmp_path) == {"file": b"not a folder"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of runs with a finished teacher."""
    base = tmp_path_factory.mktemp("trained")
    with initialize_config_dir(str(command.ROOT / "conf"), version_base="1.3"):
        train(base, "quantizer=none", "recipe.epochs=1")
    return base


def diverged(base: Path, *overrides: str) -> str:
    """Return the message of a student that diverges, and check that its teacher is unchanged."""
    teacher = base / "runs" / TEACHER
    before = files(teacher)
    assert "seed0/record.json" in before
    message = refusal(base, "teacher.recipe.epochs=1", *overrides)
    assert "lower learning rate" in message
    assert "recipe.gradient_clip=1" in message
    assert files(teacher) == before
    return message


def test_divergence_names_the_layer(trained: Path) -> None:
    message = diverged(trained, "recipe.lr=1e30", "name=fast")
    assert "the loss is nan in epoch 0" in message
    assert "layer bn1 has non-finite running_var" in message
    assert "recipe.lr=5e+29" in message
    left = files(trained / "runs" / "fast" / "seed0")
    assert left.keys() <= {"config.yaml", "metrics.csv"}


@pytest.mark.slow
def test_divergence_keeps_the_last_whole_epoch(trained: Path) -> None:
    layer = "layer2.0.conv1"
    poison: list[str] = ["callbacks.progress._target_=poison.Poison", f"+callbacks.progress.layer={layer}"]
    poison += ["+callbacks.progress.victim=resnet20-ewgs", "+callbacks.progress.epoch=1", "+callbacks.progress.step=3"]
    message = diverged(trained, *poison)
    assert "the loss is nan in epoch 1, step 26" in message
    assert f"layer {layer} has non-finite weight" in message
    run = trained / "runs" / STUDENT / "seed0"
    state: dict[str, Any] = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["global_step"] == 23
    assert all(torch.isfinite(t).all() for t in state["state_dict"].values() if t.is_floating_point())
    assert not (run / "record.json").exists()

    assert train(trained, "teacher.recipe.epochs=1") is not None
    first, second = command.metrics(run)
    assert (first["epoch"], second["epoch"]) == ("0", "1")
    assert float(second["train/loss"]) < float(first["train/loss"])

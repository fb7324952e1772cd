"""Intact files that cases copy and damage: small runs, teachers, exports and images. Each is made once."""

from __future__ import annotations

import shutil
from functools import cached_property
from pathlib import Path

import command
import numpy as np
import tiny_imagenet_files
import torch
from PIL import Image
from safetensors.torch import save_file

from sqakd.models.resnet import CifarResNet

# Eight steps an epoch on 64 images of 16x16 pixels: a student with its teacher trains in seconds.
TINY = (
    "dataset=digits16",
    "dataset.limit=64",
    "dataset.eval_batch_size=64",
    "model.net.blocks=1",
    "recipe.epochs=2",
    "recipe.batch_size=8",
    "teacher.recipe.epochs=2",
    "trainer.accelerator=cpu",
)
# A training on the images of `Samples.images`.
IMAGES = (
    *("dataset=imagefolder", "dataset.folder=photos", "dataset.image_size=16", "dataset.augment.padding=1"),
    *("kd=none", "recipe=digits", "recipe@teacher.recipe=digits_float", "teacher.recipe.epochs=1", "recipe.epochs=1"),
    *("model.net.blocks=1", "trainer.accelerator=cpu", "recipe.batch_size=8", "quantizer.rounding.delta=0.001"),
)
TEACHER, STUDENT = "digits16-resnet20-none-w32a32-none", "digits16-resnet20-ewgs-w2a2-sqakd"


class Samples:
    """Sample files below one folder.

    Args:
        folder: absent or empty.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def teacher(self) -> Path:
        """Weights of a float network of somebody else, as a plain state dict."""
        torch.manual_seed(0)
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / "teacher.pt"
        torch.save(CifarResNet(blocks=1, num_classes=10).state_dict(), file)
        return file

    @cached_property
    def runs(self) -> Path:
        """A folder with runs/: a finished teacher and a finished student."""
        place = self.new("finished")
        _done("train.py", *TINY, folder=place)
        return place

    @cached_property
    def interrupted(self) -> Path:
        """The same runs, but the student was killed in its second epoch."""
        place = self.new("interrupted")
        command.script("train.py", *TINY, *command.kill_at(STUDENT, 1, 4, "SIGKILL"), folder=place)
        assert (place / "runs" / STUDENT / "seed0" / "checkpoints" / "last.ckpt").is_file()
        return place

    @cached_property
    def exported(self) -> Path:
        """The finished runs with an export of the student."""
        place = self.new("exported")
        shutil.copytree(self.runs, place, dirs_exist_ok=True)
        _done("export.py", f"run=runs/{STUDENT}/seed0", "benchmark.rounds=0", folder=place)
        return place

    @cached_property
    def swept(self) -> Path:
        """The runs of an undisturbed sweep."""
        from tests.reliability.sweeps import WORDS  # that module needs the samples

        place = self.new("swept")
        shutil.copy(self.teacher, place)
        _done(*WORDS, "-m", folder=place)
        return place

    @cached_property
    def teachers(self) -> Path:
        """A folder with the same weights of somebody else in two formats."""
        place = self.new("teachers")
        weights = torch.load(self.teacher, weights_only=True)
        torch.save(weights, place / "teacher.pt")
        save_file(weights, place / "teacher.safetensors")
        return place

    @cached_property
    def cached(self) -> Path:
        """The folder of images with the decoded images that a training made."""
        place = self.new("cached")
        copied(self.images, place)
        _done("train.py", *IMAGES, folder=place)
        shutil.rmtree(place / "runs")
        return place

    @cached_property
    def tiny_imagenet(self) -> Path:
        """A folder data/ with a small unpacked Tiny-ImageNet."""
        place = self.new("tiny")
        tiny_imagenet_files.build(place / "data").unpack()
        return place

    @cached_property
    def images(self) -> Path:
        """A folder photos/ with train/ and val/ of two classes."""
        place = self.new("images")
        rng = np.random.default_rng(0)
        for split, count in (("train", 8), ("val", 4)):
            for name in ("cat", "dog"):
                for i in range(count):
                    file = place / "photos" / split / name / f"{name}{i}.png"
                    file.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(file)
        return place

    def new(self, name: str) -> Path:
        """Make an empty folder."""
        place = self.folder / name
        place.mkdir(parents=True)
        return place


def copied(source: Path, folder: Path) -> None:
    """Copy everything in `source` into the existing `folder`."""
    shutil.copytree(source, folder, dirs_exist_ok=True, symlinks=True)


def _done(name: str, *arguments: str, folder: Path) -> None:
    done = command.script(name, *arguments, folder=folder)
    if done.returncode:
        raise RuntimeError(f"a sample cannot be made with {name}: {done.stderr}")

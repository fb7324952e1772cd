"""Speed and memory of the data path alone, without a network.

    python benchmarks/loader.py [--passes 7] [--threads 2]     images per second, up to the normalised batch
    python benchmarks/loader.py --memory                       peak memory of this process

Images are random. Rates are measured with the size and number of CIFAR's images (50,000 of 3x32x32, batches of 256,
crop and flip) and with a part of Tiny-ImageNet's (3x64x64, batches of 64, crop to 224x224, flip, colours). Images take
the same path as in training: the data module's loader, then its `on_after_batch_transfer`. The times of both parts are
measured in the same pass.

Memory is measured for Tiny-ImageNet's whole training part: 100,000 images in a mapped file of 1.2 GB, each image read
once in random order. Pages of the file count while they are resident; the operating system may reclaim them any time.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from sqakd.dataset.base import ImageDataModule
from sqakd.dataset.decoded import mapped
from sqakd.dataset.transforms.augment import Augment, Compose, CropFlip
from sqakd.dataset.transforms.colour import ColourJitter
from sqakd.dataset.transforms.resize import ResizeCentreCrop, ResizedCropFlip

TINY_IMAGES, TINY_SHAPE = 100_000, (3, 64, 64)


class RandomImages(ImageDataModule):
    """A number of random images of one size, in memory or mapped from a file."""

    def __init__(self, *, images: int, shape: tuple[int, int, int], file: Path | None, **common: Any) -> None:
        super().__init__(seed=0, drop_last=False, holdout=0.0, limit=None, **common)
        self.images, self.shape, self.file = images, shape, file

    def load(self) -> None:
        if self.file is None:
            self.train_images = torch.randint(0, 256, (self.images, *self.shape), dtype=torch.uint8)
        else:
            self.train_images = mapped(self.file, (self.images, *self.shape))
        self.train_labels = torch.randint(0, 10, (self.images,))
        self.class_names = [str(i) for i in range(10)]


def cifar() -> RandomImages:
    return RandomImages(
        images=50_000,
        shape=(3, 32, 32),
        file=None,
        batch_size=256,
        eval_batch_size=500,
        mean=[0.4914, 0.4822, 0.4465],
        std=[0.2023, 0.1994, 0.2010],
        augment=CropFlip(padding=4, flip=True),
        evaluate=None,
    )


def tiny_imagenet(images: int, file: Path | None) -> RandomImages:
    steps: dict[str, Augment | None] = {
        "crop": ResizedCropFlip(size=224, area=[0.08, 1.0], ratio=[0.75, 1.3333], flip=True),
        "colour": ColourJitter(brightness=0.2, contrast=0.2, saturation=0.2),
    }
    return RandomImages(
        images=images,
        shape=TINY_SHAPE,
        file=file,
        batch_size=64,
        eval_batch_size=200,
        mean=[0.485, 0.456, 0.406],
        std=[0.229, 0.224, 0.225],
        augment=Compose(steps=steps),
        evaluate=ResizeCentreCrop(size=224, margin=32),
    )


def one_pass(data: RandomImages, epoch: int) -> tuple[float, float]:
    """Return the seconds spent in the loader, and those spent in augmentation and normalisation."""
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    loading = changing = 0.0
    count = 0
    start = time.perf_counter()
    for batch in loader:
        loaded = time.perf_counter()
        image = data.on_after_batch_transfer(batch, 0).image
        changed = time.perf_counter()
        loading, changing = loading + loaded - start, changing + changed - loaded
        count += len(image)
        start = changed
    assert count == data.images
    return loading, changing


def measure_rates(name: str, data: RandomImages, passes: int, changes: str) -> None:
    data.setup()
    one_pass(data, 0)  # warms up
    times = [one_pass(data, epoch) for epoch in range(1, passes + 1)]
    print(f"{name}: n = {passes} passes over {data.images:,} images, batch {data.batch_size}")
    print(f"{'':38} {'images/s, median (min - max)':>34}")
    for part, seconds in (
        (f"loader, {changes}", [loading + changing for loading, changing in times]),
        ("  loader alone", [loading for loading, _ in times]),
        (f"  {changes}", [changing for _, changing in times]),
    ):
        rates = [data.images / value for value in seconds]
        print(f"{part:40} {statistics.median(rates):>14,.0f} ({min(rates):,.0f} - {max(rates):,.0f})")


def measure_memory() -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "images.uint8"
        with file.open("wb") as out:
            for _ in range(100):
                out.write(torch.randint(0, 256, (TINY_IMAGES // 100, *TINY_SHAPE), dtype=torch.uint8).numpy().tobytes())
        data = tiny_imagenet(TINY_IMAGES, file)
        before = peak()
        data.setup()
        loaded = peak()
        for _ in data.train_dataloader():  # without augmentation: the loader reads each image once
            pass
        read = peak()
        batch = next(iter(data.train_dataloader()))
        data.on_after_batch_transfer(batch, 0)
        print(f"peak resident memory, {TINY_IMAGES:,} images of {TINY_SHAPE} in {file.stat().st_size / 1e9:.2f} GB")
        for stage, gigabytes in (
            ("before loading (libraries)", before),
            ("mapped", loaded),
            ("each image read once", read),
            ("and one batch at 224x224", peak()),
        ):
            print(f"  {stage:30} {gigabytes:.2f} GB")


def peak() -> float:
    """Return the largest resident memory so far, in GB. Linux counts in kilobytes, macOS in bytes."""
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--passes", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tiny-images", type=int, default=6_400, help="number of images of Tiny-ImageNet's size")
    parser.add_argument("--memory", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    print(f"{_processor()}, {torch.get_num_threads()} threads of {os.cpu_count()}, torch {torch.__version__}")
    print(f"load average {os.getloadavg()[0]:.1f}")
    if options.memory:
        measure_memory()
        return
    measure_rates("CIFAR", cifar(), options.passes, "crop, flip, normalise")
    tiny = tiny_imagenet(options.tiny_images, None)
    measure_rates("Tiny-ImageNet", tiny, options.passes, "crop, flip, colours, normalise")


def _processor() -> str:
    """Return the processor's name from Linux, or else from Python."""
    try:
        with Path("/proc/cpuinfo").open() as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()

"""Images per second of the data path alone: batches from memory, crop and flip, normalisation; no network.

    python benchmarks/loader.py [--passes 7] [--threads 2]

Images are random and of CIFAR's size and number: 50,000 of 3x32x32, batches of 256. The way is the one of training:
the data module's own loader, then its `on_after_batch_transfer`. The share of each part is measured in the same pass.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from pathlib import Path

import torch

from sqakd.dataset.augment import CropFlip
from sqakd.dataset.base import ImageDataModule

IMAGES = 50_000
BATCH = 256


class RandomImages(ImageDataModule):
    """As many images as CIFAR has."""

    def load(self) -> None:
        self.train_images = torch.randint(0, 256, (IMAGES, 3, 32, 32), dtype=torch.uint8)
        self.train_labels = torch.randint(0, 10, (IMAGES,))
        self.class_names = [str(i) for i in range(10)]


def one_pass(data: RandomImages, epoch: int) -> tuple[float, float]:
    """Seconds in the loader, and in augmentation and normalisation."""
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    loading = changing = 0.0
    seen = 0
    start = time.perf_counter()
    for batch in loader:
        loaded = time.perf_counter()
        image = data.on_after_batch_transfer(batch, 0).image
        changed = time.perf_counter()
        loading, changing = loading + loaded - start, changing + changed - loaded
        seen += len(image)
        start = changed
    assert seen == IMAGES
    return loading, changing


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--passes", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    data = RandomImages(
        batch_size=BATCH,
        eval_batch_size=BATCH,
        seed=0,
        mean=[0.4914, 0.4822, 0.4465],
        std=[0.2023, 0.1994, 0.2010],
        augment=CropFlip(padding=4, flip=True),
        drop_last=False,
    )
    data.setup()
    one_pass(data, 0)  # warms up
    times = [one_pass(data, epoch) for epoch in range(1, options.passes + 1)]

    print(f"{_processor()}, {torch.get_num_threads()} threads of {os.cpu_count()}, torch {torch.__version__}")
    print(f"load average {os.getloadavg()[0]:.1f}, n = {options.passes} passes over {IMAGES:,} images, batch {BATCH}")
    print(f"{'':28} {'images/s, median (min - max)':>34}")
    for name, seconds in (
        ("loader, crop, flip, normalise", [loading + changing for loading, changing in times]),
        ("  loader alone", [loading for loading, _ in times]),
        ("  crop, flip, normalise", [changing for _, changing in times]),
    ):
        rates = [IMAGES / value for value in seconds]
        print(f"{name:30} {statistics.median(rates):>14,.0f} ({min(rates):,.0f} - {max(rates):,.0f})")


def _processor() -> str:
    """The name Linux gives, else what Python knows."""
    try:
        with Path("/proc/cpuinfo").open() as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()

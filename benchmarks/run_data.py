"""The data set of benchmarks/run.py: random images in files of CIFAR-10's form."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from run import CHECKSUMS
from torchvision import datasets

from sqakd.dataset.cifar import CIFAR10


class MadeCifar(CIFAR10):
    """CIFAR-10 with other files, whose checksums are the right ones here."""

    def __init__(self, **common: Any) -> None:
        super().__init__(**common)
        md5 = json.loads(Path(os.environ[CHECKSUMS]).read_text(encoding="utf-8"))
        files = {
            "train_list": [[name, md5[name]] for name in md5 if name.startswith("data_")],
            "test_list": [["test_batch", md5["test_batch"]]],
            "meta": {"filename": "batches.meta", "key": "label_names", "md5": md5["batches.meta"]},
        }
        self.source = type("MadeFiles", (datasets.CIFAR10,), files)

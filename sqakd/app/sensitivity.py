"""The sensitivity of a float network on its own training images: measured once, and kept beside its run.

    FOLDER/sensitivity-<quantizer>-<criterion>.json  .csv  .txt  .png

The JSON file has everything that the numbers depend on. If any of it differs, the sensitivity is measured again.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from torch import Tensor, nn
from tqdm import tqdm

from sqakd.allocation.measure import Criterion, Progress, measure
from sqakd.allocation.table import Sensitivity
from sqakd.app.console import first_process, say
from sqakd.dataset.base import ImageDataModule
from sqakd.errors import SqakdError
from sqakd.files import write_errors, write_text
from sqakd.quantization.convert import Scheme
from sqakd.report.sensitivity_picture import draw_sensitivity
from sqakd.runs.fields import read_json
from sqakd.runs.spec import LAYER_BITS, RESIDUAL_BITS


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """How a sensitivity is measured.

    Attributes:
        quantizer: name of the method.
        node: its node in the configuration.
        widths: numbers of bits.
        criterion: "kl" or "curvature".
    """

    quantizer: str
    node: Mapping[str, Any]
    widths: Sequence[int]
    criterion: Criterion

    @property
    def name(self) -> str:
        """Name of the files without their ending."""
        return f"sensitivity-{self.quantizer}-{self.criterion}"


def sensitivity_of(
    folder: Path, network: nn.Module, scheme: Scheme, images: Tensor, how: Measurement
) -> tuple[Sensitivity, Path]:
    """Return the sensitivity of a float network, from the files in a folder or measured now.

    Args:
        folder: where the files are, the float run's own; it exists.
        network: float, with its trained weights.
        scheme: makes the quantizers.
        images: normalised training images [N, C, H, W].
        how: the rest of the measurement.

    Returns:
        The sensitivity, and its JSON file.

    Raises:
        SqakdError: if the sensitivity cannot be measured or written.
    """
    file, key = folder / f"{how.name}.json", _key(network, images, how)
    with write_errors(file):
        lock = FileLock(folder / ".sensitivity.lock")
        lock.acquire()
    try:
        if (known := _read(file, key)) is not None:
            say(f"sensitivity: {file}")
            return known, file
        found = measure(
            network,
            scheme,
            images,
            widths=how.widths,
            criterion=how.criterion,
            progress=progress_bar("sensitivity"),
        )
        _write(file, key, found)
    finally:
        lock.release()
    say(f"sensitivity: {file}, measured on {len(images)} training images")
    return found, file


def _write(file: Path, key: Mapping[str, Any], found: Sensitivity) -> None:
    """Write the files; the JSON file comes last, because it says that the others are complete."""
    write_text(file.with_suffix(".csv"), found.csv())
    write_text(file.with_suffix(".txt"), f"{found.text()}\n")
    draw_sensitivity(file.with_suffix(".png"), **picture_of(found))
    write_text(file, json.dumps({"measurement": dict(key), **found.to_dict()}, indent=1) + "\n")


def picture_of(found: Sensitivity) -> dict[str, Any]:
    """Return the arguments of the picture of a sensitivity."""
    return {
        "layers": [layer.name for layer in found.layers],
        "bits": found.widths,
        "losses": {
            "weights": [[layer.weight[bits] for bits in found.widths] for layer in found.layers],
            "inputs": [[layer.input[bits] for bits in found.widths] for layer in found.layers],
        },
        "unit": "KL divergence" if found.criterion == "kl" else "curvature-weighted squared error",
    }


def _read(file: Path, key: Mapping[str, Any]) -> Sensitivity | None:
    """Return the sensitivity in a file; None if there is none, it is damaged, or it was measured in another way."""
    try:
        content = read_json(file)
        if isinstance(content, dict) and content.get("measurement") == key:
            return Sensitivity.from_dict(content)
    except SqakdError:  # also if the file is missing
        return None
    return None


def _key(network: nn.Module, images: Tensor, how: Measurement) -> dict[str, Any]:
    """Return everything that the numbers depend on, as plain data."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(f"{name} {list(tensor.shape)}".encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    ignored = ("first_last", "outer", *LAYER_BITS, RESIDUAL_BITS)
    node = {key: value for key, value in how.node.items() if key not in ignored}
    for tensor in ("weight", "input"):
        node[tensor] = {key: value for key, value in node[tensor].items() if key != "bits"}
    return {
        "weights": digest.hexdigest(),
        "images": hashlib.sha256(images.cpu().contiguous().numpy().tobytes()).hexdigest(),
        "quantizer": node,
        "widths": sorted(set(how.widths)),
        "criterion": how.criterion,
    }


def training_images(data: ImageDataModule, count: int, seed: int) -> Tensor:
    """Return training images, normalised and not augmented, [N, C, H, W].

    Args:
        data: a data set that is loaded.
        count: largest number.
        seed: chooses the images: that of the float run, so that all its students get the same ones.
    """
    own = copy.copy(data)
    own.seed = seed
    return own.plain_batches(count=1, size=count, epoch=0)[0].image


def progress_bar(name: str) -> Progress:
    """Return a function that shows the finished steps in the terminal, and nothing where there is none."""
    bar: tqdm[Any] = tqdm(total=0, desc=name, unit="step", disable=None if first_process() else True, leave=False)

    def report(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)
        if done == total:
            bar.close()

    return report

"""A folder in the layout of Hugging Face's model hub, made of a finished run and its export. Nothing is sent."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from sqakd.errors import SqakdError, some
from sqakd.files import remove_abandoned, replacing, sha256, write_errors, write_text
from sqakd.images import Preparation
from sqakd.report.model_card import loading, model_card
from sqakd.runs.checkpoint import save_safetensors
from sqakd.runs.record import Record, split_command

CONFIG, WEIGHTS, MODEL, CARD = "config.json", "model.safetensors", "model.onnx", "README.md"
PREPROCESSOR, PICTURE = "preprocessor_config.json", "picture.png"
# Keys of config.json: who wrote the folder, and the SHA-256 of the model card as it was written.
LIBRARY, CARD_DIGEST = "library_name", "sqakd_card_sha256"
FREE = {"LICENSE", "LICENSE.txt", "LICENSE.md"}  # files of the user beside ours


def check_hub_folder(folder: Path, export: Path) -> None:
    """Refuse a folder that holds anything but an earlier hub folder of this program, before anything is written.

    Hidden files, such as those of Git and of killed exports, do not count, and neither does a licence.

    Args:
        folder: where the files shall go.
        export: folder of the export.

    Raises:
        SqakdError: naming what the folder holds.
    """
    if folder.resolve() == export.resolve():
        raise SqakdError(f"hub={folder} is the folder of the export; use another one")
    if not folder.exists():
        return
    if not folder.is_dir():
        raise SqakdError(f"hub={folder}: expected a folder")
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")} - FREE
    foreign = names - {CONFIG, WEIGHTS, MODEL, CARD, PREPROCESSOR, PICTURE}
    if foreign or (names and LIBRARY not in _read(folder / CONFIG)):
        raise SqakdError(
            f"hub={folder} holds {some(sorted(foreign or names))}, which no export wrote; nothing there is"
            " replaced; use a folder that is absent, empty or an earlier one"
        )


def write_hub_folder(
    folder: Path, network: nn.Module, record: Record, facts: dict[str, Any], preparation: Preparation, files: list[Path]
) -> bool:
    """Write weights, configuration, preprocessing and model card, and copy other files.

    Args:
        folder: where to write; each file is replaced at once, except a model card that was changed since it was
            written.
        network: the trained network.
        record: of its run.
        facts: of its weights file.
        preparation: how an image file becomes the pixels that the network gets.
        files: the exported file and the run's picture. One that is missing is left out, and deleted in the folder.

    Returns:
        Whether a changed model card was kept.

    Raises:
        SqakdError: if the folder cannot be written.
    """
    earlier, card = _read(folder / CONFIG), folder / CARD
    kept = card.exists() and sha256(card) != earlier.get(CARD_DIGEST)
    text = model_card(record, facts, use=loading(WEIGHTS), onnx=MODEL)
    digest = hashlib.sha256(text.encode()).hexdigest()
    with write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    # The configuration comes first, because it marks the folder as one of this program.
    write_text(folder / CONFIG, _json(_config(record, facts) | {CARD_DIGEST: digest}))
    save_safetensors(folder / WEIGHTS, network, facts)
    write_text(folder / PREPROCESSOR, _json(_preprocessing(facts, preparation)))
    if not kept:
        write_text(card, text)
    for file in files:
        if file.exists():
            with replacing(folder / file.name, size=file.stat().st_size) as temporary:
                shutil.copyfile(file, temporary)
        else:
            (folder / file.name).unlink(missing_ok=True)
    remove_abandoned(folder)
    return kept


def own_paths(command: str) -> list[str]:
    """Return the overrides of a run's command whose value is a path that means something on one machine only.

    Example:
        >>> own_paths("python train.py dataset.folder=/home/me/photos 'paths.data=~/my data' bits=2")
        ['dataset.folder=/home/me/photos', 'paths.data=~/my data']
    """
    words = split_command(command)
    return [word for word in words if word.partition("=")[2].startswith(("/", "~"))]


def _config(record: Record, facts: Mapping[str, Any]) -> dict[str, Any]:
    names = facts["class_names"] or [f"class {i}" for i in range(facts["num_classes"])]
    return {
        LIBRARY: "sqakd",
        "architectures": [record.model],
        "num_labels": facts["num_classes"],
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
        "weight_bits": record.w_bits,
        "activation_bits": record.a_bits,
        "model": facts["model"],
        "quantizer": facts["quantizer"],
    }


def _preprocessing(facts: Mapping[str, Any], preparation: Preparation) -> dict[str, Any]:
    """Return the way from an image to the network's input, under the keys of image processors for PyTorch."""
    height, width = preparation.size
    margin = preparation.stored_margin if preparation.stored == preparation.size else preparation.margin
    return {
        "do_resize": True,
        "size": {"shortest_edge": min(height, width) + margin},
        "resample": 2,  # bilinear, as numbered by pillow
        "do_center_crop": True,
        "crop_size": {"height": height, "width": width},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": facts["mean"],
        "image_std": facts["std"],
    }


def _read(file: Path) -> dict[str, Any]:
    """Return the content of config.json, empty if there is none that can be read."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2) + "\n"

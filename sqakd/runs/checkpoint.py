"""Weights as plain tensors: written atomically, read without running anything that is in the file."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sqakd.errors import SqakdError
from sqakd.files import replacing

PREFIXES = ("module.", "_orig_mod.", "student.", "model.")


class CheckpointError(SqakdError):
    """A checkpoint that is missing, damaged, unsafe or made for another network."""


def save_weights(path: Path, model: nn.Module, facts: dict[str, Any]) -> None:
    """Write a network's tensors and plain facts about it (numbers, strings, lists).

    Args:
        path: file to write.
        model: its state dict is kept.
        facts: returned by `load_weights` together with the tensors.
    """
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with replacing(path) as temporary:
        torch.save({"weights": weights, "facts": facts}, temporary)


def load_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors by name, and facts, of our own file or of somebody else's checkpoint.

    Foreign files may keep the tensors at the top, or under "state_dict", "model" or "weights", with the prefixes that
    data parallelism and compilation add.

    Raises:
        CheckpointError: if the file is missing, damaged, or holds anything but plain data.
    """
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}; give the path of a weights file, e.g. teacher.checkpoint=FILE")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds more than plain tensors and numbers (or is damaged), so it was not opened: loading it could"
            f" run code. Save it again as torch.save(model.state_dict(), FILE) where it comes from"
        ) from error
    except Exception as error:  # bytes that mean something else make the reader fail in every possible way
        reason = next(iter(str(error).splitlines()), "it ends too early")
        raise CheckpointError(
            f"{path} is no readable checkpoint ({type(error).__name__}: {reason}): it is damaged, or torch.save did not"
            f" write it"
        ) from error
    facts: dict[str, Any] = {}
    if isinstance(content, dict):
        facts = content["facts"] if isinstance(content.get("facts"), dict) else {}
        for key in ("weights", "state_dict", "model"):
            if isinstance(content.get(key), dict):
                content = content[key]
                break
    tensors = {k: v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, dict) else {}
    if not tensors:
        raise CheckpointError(f"{path} holds no tensors by name; expected a state dict")
    while prefix := next((p for p in PREFIXES if all(name.startswith(p) for name in tensors)), None):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors, facts


def restore(model: nn.Module, weights: dict[str, Tensor], *, source: str) -> None:
    """Load tensors into a network, all of them or none.

    Raises:
        CheckpointError: if names or shapes differ; the message says which and what may be wrong.
    """
    own = model.state_dict()
    missing, unknown = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    if missing or unknown:
        raise CheckpointError(
            f"{source} was made for another network: it lacks {_some(missing)} and adds {_some(unknown)};"
            f" choose the network it was made for, e.g. model@teacher=resnet32"
        )
    wrong = [name for name in own if own[name].shape != weights[name].shape]
    if wrong:
        last = wrong[-1]
        raise CheckpointError(
            f"{source} does not fit: {last} has shape {tuple(weights[last].shape)}, expected {tuple(own[last].shape)}"
            f" ({len(wrong)} such tensor(s)). If only the last layer differs, its classes are others"
        )
    model.load_state_dict(weights)


def num_classes(weights: dict[str, Tensor]) -> int:
    """Classes a network tells apart: the length of its last tensor that has elements along one dimension."""
    vectors = [tensor for tensor in weights.values() if tensor.ndim >= 1]
    if not vectors:
        raise CheckpointError("this checkpoint has no layer, so its number of classes is unknown")
    return int(vectors[-1].shape[0])


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more if names else "nothing"

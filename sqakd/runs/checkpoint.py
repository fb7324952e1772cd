"""Weights files: plain tensors, written atomically and read without running any code in the file."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sqakd.errors import SqakdError, some
from sqakd.files import replacing

# Prefixes that data parallelism, compilation, Lightning modules and other trainers put before a tensor's name.
PREFIXES = ("module.", "_orig_mod.", "student.", "model.")


class CheckpointError(SqakdError):
    """Raised for a checkpoint that is missing, damaged, unsafe or made for another network."""


def save_weights(path: Path, model: nn.Module, facts: dict[str, Any]) -> None:
    """Write a network's tensors and plain facts about the network (numbers, strings, lists).

    Args:
        path: file to write.
        model: network whose state dict is written.
        facts: plain data that `load_weights` returns together with the tensors.
    """
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with replacing(path) as temporary:
        torch.save({"weights": weights, "facts": facts}, temporary)


def load_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors by name and the facts, from a file of this project or from a foreign checkpoint.

    A foreign file may hold its tensors at the top level, or under "state_dict", "model" or "weights". Prefixes that
    data parallelism and compilation add to the names are removed.

    Raises:
        CheckpointError: if the file is missing, damaged, or holds anything but plain data.
    """
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}", topic="checkpoint.missing")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} was not opened, because it holds more than plain tensors and numbers (or is damaged): loading it"
            f" could run code",
            topic="checkpoint.unsafe",
        ) from error
    except Exception as error:  # damaged bytes can be read as almost anything, so that any exception may be raised
        reason = next(iter(str(error).splitlines()), "it ends too early")
        raise CheckpointError(
            f"{path} is not a readable checkpoint ({type(error).__name__}: {reason}): it is damaged, or was not written"
            f" by torch.save"
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
    # Wrappers can be nested in any order, e.g. a compiled network inside data parallelism.
    while prefix := next((p for p in PREFIXES if all(name.startswith(p) for name in tensors)), None):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors, facts


def restore(model: nn.Module, weights: dict[str, Tensor], *, source: str) -> None:
    """Load tensors into a network, all of them or none.

    Args:
        model: network to change.
        weights: tensors by name.
        source: name of the tensors' origin, for the message.

    Raises:
        CheckpointError: if names or shapes differ; the message names them.
    """
    own = model.state_dict()
    missing, unknown = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    if missing or unknown:
        raise CheckpointError(
            f"{source} was made for another network: it lacks {some(missing)} and adds {some(unknown)}",
            topic="checkpoint.other_network",
        )
    wrong = [name for name in own if own[name].shape != weights[name].shape]
    if wrong:
        last = wrong[-1]
        raise CheckpointError(
            f"{source} does not fit this network: {last} has shape {tuple(weights[last].shape)}, expected"
            f" {tuple(own[last].shape)} ({len(wrong)} such tensor(s); if only the last layer differs, {source} has"
            f" another number of classes)"
        )
    model.load_state_dict(weights)

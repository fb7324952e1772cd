"""Weights files: plain tensors, written atomically and read without running any code in the file."""

from __future__ import annotations

import io
import json
import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sqakd.errors import SqakdError, some
from sqakd.files import ReadError, read_errors, write_bytes
from sqakd.runs.seal import DamagedError, check_seal

FACTS = "sqakd"  # key of the facts in the metadata of a safetensors file


class CheckpointError(SqakdError):
    """Raised for a checkpoint that is missing, damaged, unsafe or made for another network."""


def save_weights(path: Path, model: nn.Module, facts: dict[str, Any]) -> None:
    """Write a network's tensors and plain facts about the network (numbers, strings, lists).

    Args:
        path: file to write.
        model: network whose state dict is written.
        facts: plain data that `load_weights` returns together with the tensors.

    Raises:
        WriteError: if the file cannot be written.
    """
    buffer = io.BytesIO()  # torch.save itself would turn a full disk into an error without a reason
    torch.save({"weights": _tensors(model), "facts": facts}, buffer)
    write_bytes(path, buffer.getbuffer())


def save_safetensors(path: Path, model: nn.Module, facts: dict[str, Any]) -> None:
    """Write the same tensors and facts as `save_weights`, in the format that model hubs prefer.

    Args:
        path: file to write.
        model: network whose state dict is written.
        facts: plain data that JSON can hold; they become the entry `FACTS` of the file's metadata.

    Raises:
        WriteError: if the file cannot be written.
    """
    from safetensors.torch import save

    tensors = {name: tensor.clone() for name, tensor in _tensors(model).items()}  # the format refuses shared memory
    write_bytes(path, save(tensors, {"format": "pt", FACTS: json.dumps(facts)}))


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}


def load_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors by name and the facts, from a file that `save_weights` or `save_safetensors` wrote.

    Raises:
        CheckpointError: if the file is missing, damaged, or holds anything but plain data.
    """
    content = read_checkpoint(path)
    weights = content.get("weights") if isinstance(content, dict) else None
    if not isinstance(weights, dict) or not weights or not all(isinstance(t, Tensor) for t in weights.values()):
        raise CheckpointError(f"{path} holds no tensors by name; expected a state dict")
    facts = content.get("facts")
    return weights, facts if isinstance(facts, dict) else {}


def read_checkpoint(path: Path) -> Any:
    """Return the content of a file of torch.save or safetensors.

    Raises:
        CheckpointError: if the file is missing, damaged, or holds anything but plain data.
        ReadError: if the file cannot be read at present.
    """
    try:
        with read_errors(path):
            check_seal(path)
            return _content(path)
    except ReadError:
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CheckpointError(f"no checkpoint at {path}", topic="checkpoint.missing") from error
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    except DamagedError as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    except ModuleNotFoundError as error:
        raise CheckpointError(f"{path} needs a missing package ({error})", topic="checkpoint.safetensors") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} was not opened, because it holds more than plain tensors and numbers (or is damaged): loading it"
            f" could run code",
            topic="checkpoint.unsafe",
        ) from error
    except Exception as error:  # damaged bytes can be read as almost anything, so any exception may be raised
        reason = "it ends too early" if isinstance(error, EOFError) else "it is damaged"
        raise CheckpointError(
            f"{path} is not a readable checkpoint: {reason}, or was not written by torch.save or safetensors"
        ) from error


def _content(path: Path) -> Any:
    if path.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (it is no mapping)
            facts = (opened.metadata() or {}).get(FACTS)
        return tensors if facts is None else {"weights": tensors, "facts": json.loads(facts)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of old pickles before it reads them
        return torch.load(path, map_location="cpu", weights_only=True)


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

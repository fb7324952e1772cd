"""The weights of a finished run, read only if they are those that the run wrote."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from sqakd.errors import some
from sqakd.files import read_errors, sha256
from sqakd.runs.checkpoint import CheckpointError, load_weights
from sqakd.runs.folder import RunFolder
from sqakd.runs.record import Record
from sqakd.runs.renames import with_current_paths
from sqakd.runs.spec import LAYER_BITS, TARGET, differences, identity

DESCRIBED = ("model", "quantizer")  # nodes of the configuration that construct the network


def load_run_weights(folder: RunFolder, record: Record) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors by name and the facts of a finished run.

    Args:
        folder: of the run.
        record: of the run; early records lack the checksum of the weights.

    Raises:
        CheckpointError: if the file is missing, damaged, another one than the run wrote, or not of the network that
            config.yaml describes.
        ReadError: if the file cannot be read at present.
    """
    file = folder.weights
    if not file.exists():
        problem = f"{folder.path} has a record, but no {file.name}"
    else:
        try:
            with read_errors(file):
                found = sha256(file)
        except OSError as error:
            raise CheckpointError(f"cannot read {file}: {error.strerror or error}") from error
        if record.weights_sha256 in (None, found):
            tensors, facts = load_weights(file)
            _check_description(folder, facts)
            return tensors, facts
        problem = f"{file} is not the file that the run wrote: its checksum differs from the one in record.json"
    raise CheckpointError(problem, topic="run.weights", file=file, record=folder.record)


def _check_description(folder: RunFolder, facts: Mapping[str, Any]) -> None:
    """Refuse weights whose own description differs from config.yaml; early versions wrote none.

    Raises:
        CheckpointError: naming the keys that differ.
    """
    now, then = (_description(side) for side in (folder.read_config(), facts))
    common = now.keys() & then.keys()  # keys were added since early versions
    if changes := differences(*({key: side[key] for key in common} for side in (now, then))):
        raise CheckpointError(
            f"{folder.config} was changed after the run: {some(changes)}, as {folder.weights.name} says. Its network"
            f" would be another one",
            topic="run.description",
        )


def _description(side: Mapping[str, Any]) -> dict[str, Any]:
    """Return what constructs the network, as {dotted key: value}, with classes and with bits of single layers."""
    nodes = {key: with_current_paths(side[key]) for key in DESCRIBED if key in side}
    layers = dict.fromkeys((f"quantizer.{key}" for key in LAYER_BITS), "") if nodes.get("quantizer") else {}
    return {**layers, **identity(nodes), **_classes(nodes)}


def _classes(node: Any, prefix: str = "") -> dict[str, Any]:
    """Return the classes in a node, which an identity leaves out, by dotted key."""
    if not isinstance(node, Mapping):
        return {}
    found = {f"{prefix}{TARGET}": node[TARGET]} if TARGET in node else {}
    for key, inner in node.items():
        found |= _classes(inner, f"{prefix}{key}.")
    return found

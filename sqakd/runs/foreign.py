"""Weights in other people's files: the one part of a file that fits a network.

Trainers save a dictionary with the network under some key (net, model, state_dict, ema), or under several, and beside
it the epoch, the accuracy and the optimizer. Wrappers put prefixes before the names, and profilers leave counters
among the tensors. No list of such habits is complete, so the network decides: every dictionary of the file and every
prefix is compared with the network's own names and shapes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sqakd.errors import some
from sqakd.runs.checkpoint import CheckpointError, read_checkpoint
from sqakd.runs.layout import Layout

# Parts of a name that data parallelism, compilation, checkpointed activations and sharding insert anywhere in it.
WRAPPERS = {"module", "_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module"}
# Keys that hold the network as it was trained, in order of preference.
PLAIN = ("weights", "state_dict", "model", "net", "module")
AVERAGED = {"ema", "swa", "averaged", "average", "avg", "shadow"}
COUNTERS = {"total_ops", "total_params"}  # of the profiler thop
STEPS = "num_batches_tracked"  # older files lack it, and only training with a cumulative average reads it


@dataclass(frozen=True)
class Part:
    """One part of a file: the tensors of one dictionary whose names have one prefix.

    Attributes:
        place: keys that lead to the dictionary.
        prefix: of the names, which `tensors` lack.
        tensors: by name.
        beside: names of the dictionary's other tensors.
    """

    place: tuple[str, ...]
    prefix: str
    tensors: dict[str, Tensor]
    beside: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The place and the prefix of the part, e.g. "'state_dict', prefix model."."""
        place = ascii(".".join(self.place) or "top level")
        return f"{place}, prefix {self.prefix}" if self.prefix else place

    @property
    def rank(self) -> tuple[bool, int]:
        """Order of preference: weights as trained before their averages, then by the usual keys."""
        words = {word for name in (*self.place, self.prefix) for word in re.split("[^a-z]+", name.lower())}
        known = PLAIN.index(self.place[0]) if self.place and self.place[0] in PLAIN else len(PLAIN)
        return bool(words & AVERAGED), 0 if not self.place else known


@dataclass(frozen=True)
class Found:
    """A network's weights, found in a file.

    Attributes:
        tensors: by name, exactly those of the network.
        classes: width of the logits.
        facts: the file's own facts, if this project wrote the file.
        note: what was taken and what was left out, where there was a choice; else "".
    """

    tensors: dict[str, Tensor]
    classes: int
    facts: dict[str, Any]
    note: str


def find_weights(path: Path, layout: Layout) -> Found:
    """Return a network's weights from a file that may hold other things too.

    Raises:
        CheckpointError: if the file is missing, damaged, holds anything but plain data, or if no part of it, or more
            than one, fits the network.
    """
    content = read_checkpoint(path)
    parts = [
        part
        for place, tensors in _dictionaries(content)
        for names in _spellings(tensors, layout)
        for part in _parts(place, names, layout)
    ]
    if not any(True for _ in _dictionaries(content)):
        raise CheckpointError(f"{path} holds no tensors by name; expected a state dict")
    fitting = sorted((part for part in parts if not _misfit(part, layout)), key=lambda part: part.rank)
    if not fitting:
        nearest = max(parts, key=lambda part: len(part.tensors.keys() & layout.shapes.keys()), default=Part((), "", {}))
        raise CheckpointError(
            f"{path} {_misfit(nearest, layout)}; keys of the file: {_keys(content)}", topic="checkpoint.other_network"
        )
    taken, *others = fitting
    others = [part for part in others if not _same(part, taken)]
    rivals = [part for part in others if part.rank == taken.rank]
    if rivals:
        titles = "; ".join(part.title for part in (taken, *rivals))
        raise CheckpointError(f"{path} holds several networks that fit: {titles}", topic="checkpoint.several")
    notes = [f"also fits: {part.title}" for part in others]
    notes += [f"left out: {some(taken.beside)}"] if taken.beside else []
    note = f"{path}: took {taken.title} ({'; '.join(notes)})" if notes else ""
    facts = content.get("facts") if isinstance(content, dict) else None
    tensors = {name: taken.tensors.get(name, torch.zeros((), dtype=torch.int64)) for name in layout.shapes}
    classes = layout.num_classes(tensors, source=str(path))
    return Found(tensors, classes, facts if isinstance(facts, dict) else {}, note)


def _dictionaries(content: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    """Yield every dictionary that has tensors by name, at most four levels deep, with the keys that lead to it."""
    if not isinstance(content, Mapping) or len(place) > 4:
        return
    named = {key: value for key, value in content.items() if isinstance(key, str)}
    if tensors := {key: value for key, value in named.items() if isinstance(value, Tensor)}:
        yield place, tensors
    for key, value in named.items():
        yield from _dictionaries(value, (*place, key))


def _parts(place: tuple[str, ...], tensors: dict[str, Tensor], layout: Layout) -> Iterator[Part]:
    """Yield the tensors below every prefix that stands before one of the network's own names."""
    prefixes = {""}
    for name in tensors:
        words = name.split(".")
        prefixes |= {
            "".join(f"{word}." for word in words[:i]) for i in range(len(words)) if ".".join(words[i:]) in layout.shapes
        }
    for prefix in sorted(prefixes):
        inside = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
        part = Part(place, prefix, {name: t for name, t in inside.items() if not _spare(name, layout)})
        kept = {prefix + name for name in part.tensors}
        yield replace(part, beside=tuple(n for n in tensors if n not in kept and n.split(".")[-1] not in COUNTERS))


def _spellings(tensors: dict[str, Tensor], layout: Layout) -> list[dict[str, Tensor]]:
    """Return the tensors under their own names, and without the names of wrappers unless two names become one."""
    wrappers = WRAPPERS - {word for name in layout.shapes for word in name.split(".")}
    plain = {".".join(w for w in name.split(".") if w not in wrappers): t for name, t in tensors.items()}
    return [tensors, plain] if len(plain) == len(tensors) and plain.keys() != tensors.keys() else [tensors]


def _spare(name: str, layout: Layout) -> bool:
    """Return True for a tensor that the logits do not depend on: a counter, or part of an auxiliary head."""
    words = name.split(".")
    return name not in layout.shapes and (words[-1] in COUNTERS or any(w.lower().startswith("aux") for w in words))


def _misfit(part: Part, layout: Layout) -> str:
    """Return why a part of a file does not fit the network, or "" if it does."""
    missing = sorted(name for name in layout.shapes.keys() - part.tensors.keys() if not name.endswith(STEPS))
    unknown = sorted(part.tensors.keys() - layout.shapes.keys())
    if missing or unknown:
        return f"was made for another network: it lacks {some(missing)} and adds {some(unknown)}"
    for name, tensor in part.tensors.items():
        found, expected = tuple(tensor.shape), layout.shapes[name]
        if len(found) != len(expected) or any(b not in (None, a) for a, b in zip(found, expected, strict=True)):
            text = str(expected).replace("None", "classes")
            return f"does not fit this network: {name} has shape {found}, expected {text}"
        if tensor.layout is not torch.strided or tensor.is_meta:
            kind = "no values (a meta tensor)" if tensor.is_meta else f"the layout {tensor.layout}"
            return f"holds tensors of another kind: {name} has {kind}, expected a plain tensor"
        if name in layout.floating and not (tensor.is_floating_point() and tensor.device.type == "cpu"):
            return f"does not fit this network: {name} has type {tensor.dtype}, expected floating point"
        if name in layout.floating and not bool(tensor.isfinite().all()):
            return f"holds weights that are no numbers: {name} has NaN or infinite values"
    return ""


def _same(a: Part, b: Part) -> bool:
    return all(name in b.tensors and torch.equal(t, b.tensors[name]) for name, t in a.tensors.items())


def _keys(content: Any) -> str:
    """Return the file's first keys, without what follows a dot, for a message."""
    keys = list(dict.fromkeys(ascii(str(key).split(".")[0])[1:-1] for key in content))
    return ", ".join(keys[:8]) + (f" and {len(keys) - 8} more" if len(keys) > 8 else "")

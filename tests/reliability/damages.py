"""Kinds of damage to a file: each takes the intact file and leaves something else in its place."""

from __future__ import annotations

import json
import pickle
import random
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

from tests.reliability.attempt import MARKER

Damage = Callable[[Path], object]
HOSTILE = f"touch {MARKER}"


class Hostile:
    """An object whose unpickling runs a shell command."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        import os

        return os.system, (HOSTILE,)


def of_bytes(change: Callable[[bytes], bytes]) -> Damage:
    """Return a damage that changes a file's bytes."""
    return lambda file: file.write_bytes(change(file.read_bytes()))


def cut(share: float) -> Damage:
    """Return a damage that leaves a share of the length."""
    return of_bytes(lambda content: content[: int(share * len(content))])


def of_text(text: str) -> Damage:
    """Return a damage that writes another text."""
    return lambda file: file.write_text(text, encoding="utf-8")


def flip(share: float, bit: int) -> Damage:
    """Return a damage that changes one bit at a share of the length."""

    def change(content: bytes) -> bytes:
        data = bytearray(content)
        data[min(int(share * len(data)), len(data) - 1)] ^= 1 << bit
        return bytes(data)

    return of_bytes(change)


def folder_instead(file: Path) -> None:
    """Put a folder in the file's place."""
    file.unlink()
    file.mkdir()


def link_to_nothing(file: Path) -> None:
    """Put a dangling link in the file's place."""
    file.unlink()
    file.symlink_to("nowhere")


def link_to_itself(file: Path) -> None:
    """Put a link that points to itself in the file's place."""
    file.unlink()
    file.symlink_to(file.name)


def generic(seed: str, *, flips: int = 3) -> Iterator[tuple[str, Damage]]:
    """Yield (name, damage) of kinds that any file can have; the flipped bits depend on the seed alone."""
    rng = random.Random(seed)
    yield "empty", of_bytes(lambda _: b"")
    for share in (0.01, 0.5, 0.95):
        yield f"cut to {share:.0%}", cut(share)
    # A line break at the end of a text means nothing.
    yield "last byte missing", of_bytes(lambda content: content.rstrip()[:-1])
    yield "zeros", of_bytes(lambda content: bytes(len(content)))
    yield "noise", of_bytes(lambda content: rng.randbytes(len(content)))
    yield "text", of_bytes(lambda _: b"<html><body>404 not found</body></html>\n")
    yield "not UTF-8", of_bytes(lambda content: b"\xff\xfe\x80" + content)
    yield "first half zeros", of_bytes(lambda content: bytes(len(content) // 2) + content[len(content) // 2 :])
    for _ in range(flips):
        share, bit = rng.random(), rng.randrange(8)
        yield f"bit {bit} at {share:.1%}", flip(share, bit)
    yield "folder", folder_instead
    yield "dangling link", link_to_nothing
    yield "circular link", link_to_itself


def hostile_torch(file: Path) -> None:
    """Write a file of torch.save whose unpickling runs code."""
    torch.save({"weights": Hostile(), "state_dict": Hostile()}, file)


def hostile_pickle(file: Path) -> None:
    """Write a plain pickle whose unpickling runs code."""
    file.write_bytes(pickle.dumps(Hostile()))


def other_torch(value: Any) -> Damage:
    """Return a damage that saves another value with torch.save."""
    return lambda file: torch.save(value, file)


def torch_shapes() -> Iterator[tuple[str, Damage]]:
    """Yield damages of files of torch.save."""
    yield "code in torch.save", hostile_torch
    yield "code in a pickle", hostile_pickle
    values = {"number": 3, "none": None, "list": [1], "empty dict": {}, "dict of numbers": {"a": 1}}
    tensors = {"one tensor": torch.zeros(3), "another network": {"weights": {"a.weight": torch.zeros(3)}, "facts": {}}}
    for name, value in (values | tensors).items():
        yield f"{name} in torch.save", other_torch(value)
    yield "an archive", an_archive
    yield "another directory", directory_swapped


def an_archive(file: Path) -> None:
    """Write a zip archive that torch did not make."""
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("../outside", "x")


def directory_swapped(file: Path) -> None:
    """Put the content of one member of the archive into another."""
    content: dict[str, bytes] = {}
    with zipfile.ZipFile(file) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    largest = sorted((name for name in content if "/data/" in name), key=lambda name: -len(content[name]))
    if len(largest) > 1:
        content[largest[0]], content[largest[1]] = content[largest[1]], content[largest[0]]
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)


def nan_weights(file: Path) -> None:
    """Put NaN into each tensor of a file of torch.save."""
    content = torch.load(file, weights_only=True)
    tensors = content.get("weights", content)
    for tensor in tensors.values():
        if tensor.is_floating_point():
            tensor.fill_(float("nan"))
    torch.save(content, file)


def json_shapes() -> Iterator[tuple[str, Damage]]:
    """Yield damages of a JSON file with an object."""
    texts = {
        "empty list": "[]",
        "number": "3",
        "null": "null",
        "empty object": "{}",
        "string": '"x"',
        "deep nesting": "[" * 100_000,
        "deep objects": '{"a":' * 100_000,
        "two objects": "{}{}",
        "huge number": '{"seed": 1e999, "epochs": ' + "9" * 5000 + "}",
        "byte order mark": "\ufeff{}",
        "nan alone": "NaN",
    }
    for name, text in texts.items():
        yield name, of_text(text)


def json_keys(seed: str, count: int) -> Iterator[tuple[str, Damage]]:
    """Yield damages that remove a key of a JSON object or give it a value of another type."""
    rng = random.Random(seed)
    for number in range(count):
        value = rng.choice(
            [None, -1, "x", [], {}, True, float("nan"), [[1]], {"a": None}, 10**400, "\u202e\x1b[2J\n|<b>"]
        )
        share = rng.random()
        yield f"key {number} is {ascii(value)[:20]}", _set_key(share, value)
        yield f"key {number} missing", _set_key(share, None, remove=True)


def _set_key(share: float, value: object, *, remove: bool = False) -> Damage:
    def change(file: Path) -> None:
        content = json.loads(file.read_text())
        places = list(_places(content))
        node, key = places[int(share * len(places))]
        if remove:
            del node[key]
        else:
            node[key] = value
        file.write_text(json.dumps(content))

    return change


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    for key, value in list(node.items()):
        yield node, key
        if isinstance(value, dict):
            yield from _places(value)


def yaml_shapes() -> Iterator[tuple[str, Damage]]:
    """Yield damages of a YAML file with a mapping."""
    laughs = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
    texts = {
        "empty list": "[]",
        "number": "3",
        "null": "null",
        "string": "x",
        "deep nesting": "[" * 5000,
        "tab": "\tkey: 1",
        "two documents": "a: 1\n---\nb: 2\n",
        "code": f"!!python/object/apply:os.system ['{HOSTILE}']\n",
        "code in a key": f"model: !!python/object/apply:os.system ['{HOSTILE}']\n",
        "interpolation": "model: ${oc.env:HOME}\nseed: ${nonsense}\n",
        "many copies": laughs,
        "list as key": "? [a]\n: 1\n",
        "control character": "name: \x07\n",
    }
    for name, text in texts.items():
        yield name, of_text(text)


def hostile_targets() -> Iterator[tuple[str, Damage]]:
    """Yield configurations whose classes are foreign functions that leave a mark."""
    calls: dict[str, dict[str, Any]] = {
        "os.mkdir": {"path": MARKER},
        "os.system": {"command": HOSTILE},
        "os.makedirs": {"name": MARKER},
        "subprocess.run": {"args": HOSTILE.split()},
        "subprocess.check_output": {"_args_": [HOSTILE.split()]},
        "builtins.eval": {"_args_": [f"open({MARKER!r}, 'w')"]},
        "builtins.exec": {"_args_": [f"open({MARKER!r}, 'w')"]},
        "builtins.open": {"file": MARKER, "mode": "w"},
        "io.open": {"file": MARKER, "mode": "w"},
        "shutil.copyfile": {"src": "runs/foreign", "dst": MARKER},
        "pathlib.Path.touch": {"_args_": [MARKER]},
        "sqakd.files.write_text": {"path": MARKER, "text": ""},
        "torch.save": {"obj": 1, "f": MARKER},
        "torch.optim.lr_scheduler.os.mkdir": {"path": MARKER},
        "torch.optim.optimizer.torch.save": {"obj": 1, "f": MARKER},
        "sqakd.runs.folder.os.mkdir": {"path": MARKER},
        "sqakd.export.folder.shutil.rmtree": {"path": "runs"},
        "hydra.utils.call": {"_args_": [{"_target_": "os.mkdir", "path": MARKER}]},
    }
    places = ("model.net", "dataset", "quantizer", "quantizer.weight", "quantizer.rounding", "dataset.augment")
    for number, (target, arguments) in enumerate(calls.items()):
        place = places[number % len(places)]
        yield f"{place} is {target}", _set_target(place, {"_target_": target, **arguments})
        if number < len(places):
            yield f"{places[number]} adds os.mkdir", _add_target(places[number])


def _set_target(place: str, node: dict[str, Any]) -> Damage:
    def change(file: Path) -> None:
        content = yaml.safe_load(file.read_text())
        *above, last = place.split(".")
        target = content
        for key in above:
            target = target[key]
        target[last] = node
        file.write_text(yaml.safe_dump(content))

    return change


def _add_target(place: str) -> Damage:
    def change(file: Path) -> None:
        content = yaml.safe_load(file.read_text())
        target = content
        for key in place.split("."):
            target = target[key]
        target["extra"] = {"_target_": "os.mkdir", "path": MARKER}
        file.write_text(yaml.safe_dump(content))

    return change


def picture(file: Path) -> None:
    """Write a small picture in the format of the file's suffix."""
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file)


def replace_by_copy(source: Path) -> Damage:
    """Return a damage that puts another file in the file's place."""
    return lambda file: shutil.copyfile(source, file)

"""The description inside an exported ONNX file, and the check that the file is undamaged.

The exporter writes the description as JSON into the file's metadata, and `sqakd.predict` reads it. Both use this
module. It parses the outer layer of the file itself, so that a damaged file is found before a runtime opens it, and
without the package onnx.

Layout of a file: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto, ModelProto. Encoding:
https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

METADATA = "sqakd"  # key of the description in the file's metadata
FORMAT = 2  # of the description: 1 had no format, no digest and no stored size
QONNX = "qonnx"  # the profile of a QONNX file, in its description and in the name of its folder
LARGEST_SIDE = 4096  # pixels of the network's input; a larger number in a damaged file would fill the memory
_METADATA_FIELD = 14  # number of the field metadata_props in ModelProto
_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5


class ModelFileError(ValueError):
    """A file that is damaged or that the exporter did not write. The message does not contain the file's name."""


@dataclass(frozen=True, kw_only=True)
class Description:
    """The facts that are needed to use an exported file.

    Attributes:
        classes: names in the order of the logits; empty if unknown.
        image_shape: channels, height and width of the network's input.
        mean: mean of each channel, of pixels scaled to 0 .. 1.
        std: standard deviation of each channel.
        stored: height and width at which the data set keeps its images; None in files of format 1.
        margin: pixels that the centre crop of the evaluation removes.
        stored_margin: pixels that the centre crop removes when the data set stores an image.
        takes_pixels: whether the file takes pixels and normalises them itself.
    """

    classes: list[str]
    image_shape: tuple[int, int, int]
    mean: list[float]
    std: list[float]
    stored: tuple[int, int] | None
    margin: int
    stored_margin: int
    takes_pixels: bool


def with_digest(model: bytes, facts: Mapping[str, Any]) -> str:
    """Return the text of a description that also contains the digest of its file.

    Args:
        model: the file with any metadata.
        facts: the description without its digest, plain data.
    """
    return _text(dict(facts) | {"digest": digest(model, facts)})


def digest(model: bytes, facts: Mapping[str, Any]) -> str:
    """Return the SHA-256 of everything in a file that its predictions depend on: the graph, and the description.

    Metadata of other programs does not count.

    Args:
        model: content of the file.
        facts: the description; its digest does not count.
    """
    hasher = hashlib.sha256()
    for number, raw, _ in _fields(model):
        if number != _METADATA_FIELD:
            hasher.update(raw)
    hasher.update(_text({key: value for key, value in facts.items() if key != "digest"}).encode())
    return hasher.hexdigest()


def describe(model: bytes) -> Description:
    """Check a file and return its description.

    Args:
        model: content of the file.

    Raises:
        ModelFileError: if the file is damaged, was changed, or was not written by the exporter.
    """
    text = _metadata(model).get(METADATA)
    if text is None:
        raise ModelFileError("was not written by export.py: its metadata does not describe its images")
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelFileError("is damaged: its description is not JSON") from error
    if not isinstance(facts, dict):
        raise ModelFileError("is damaged: its description is not a JSON object")
    version = facts.get("format", 1)
    if version not in (1, FORMAT):
        raise ModelFileError(f"has a description of format {version!r}; expected {FORMAT} or lower")
    if (version == FORMAT or "digest" in facts) and facts.get("digest") != digest(model, facts):
        raise ModelFileError("is damaged, or was changed after export.py wrote it: its digest differs")
    if facts.get("profile") == QONNX:
        raise ModelFileError(
            "has the nodes of QONNX, which ONNX Runtime does not know; export the run with format=onnx"
        )
    return _checked(facts)


def _checked(facts: Mapping[str, Any]) -> Description:
    """Return the description in plain data.

    Raises:
        ModelFileError: if a value is missing or is no possible one.
    """

    def refuse(key: str, expected: str) -> ModelFileError:
        return ModelFileError(f"has a wrong description: {key} is {_short(facts.get(key))}; expected {expected}")

    classes, shape, resize = facts.get("classes"), facts.get("image_shape"), facts.get("resize")
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise refuse("classes", "a list of names")
    if not isinstance(shape, list) or len(shape) != 3 or shape[0] not in (1, 3) or not all(map(_is_side, shape)):
        raise refuse("image_shape", f"[1 or 3, height, width] with sides of 1 to {LARGEST_SIDE} pixels")
    for key in ("mean", "std"):
        found = facts.get(key)
        if not isinstance(found, list) or len(found) != shape[0] or not all(map(_is_finite, found)):
            raise refuse(key, f"finite numbers, as many as channels ({shape[0]})")
    if min(facts["std"]) <= 0:
        raise refuse("std", "numbers above 0")
    if not isinstance(facts.get("preprocess"), bool):
        raise refuse("preprocess", "true or false")
    given: dict[str, Any] = resize if isinstance(resize, dict) else {}
    margin, stored, stored_margin = given.get("margin"), given.get("stored"), given.get("stored_margin", 0)
    if not _is_margin(margin) or not _is_margin(stored_margin):
        raise refuse("resize", f"a margin of 0 to {LARGEST_SIDE} pixels")
    if stored is not None and (not isinstance(stored, list) or len(stored) != 2 or not all(map(_is_side, stored))):
        raise refuse("resize", f"stored as [height, width] with sides of 1 to {LARGEST_SIDE} pixels")
    return Description(
        classes=classes,
        image_shape=(shape[0], shape[1], shape[2]),
        mean=facts["mean"],
        std=facts["std"],
        stored=(stored[0], stored[1]) if stored else None,
        margin=margin,
        stored_margin=stored_margin,
        takes_pixels=facts["preprocess"],
    )


def _is_side(value: object) -> bool:
    return type(value) is int and 1 <= value <= LARGEST_SIDE


def _is_margin(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 <= value <= LARGEST_SIDE


def _is_finite(value: object) -> bool:
    # A comparison, because math.isfinite fails for whole numbers that no float can hold.
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e30 < value < 1e30


def _short(value: object) -> str:
    """Return a value as text of at most 60 characters in one line."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _text(facts: Mapping[str, Any]) -> str:
    """Return facts as JSON. The same facts have the same text, also after they were read from JSON."""
    return json.dumps(facts, separators=(",", ":"))


def _metadata(model: bytes) -> dict[str, str]:
    """Return the metadata entries of a file."""
    found: dict[str, str] = {}
    for number, _, content in _fields(model):
        if number == _METADATA_FIELD:
            entry = {inner: value for inner, _, value in _fields(content)}
            # A damaged letter must not hide the entry: whatever is not UTF-8 becomes a replacement character.
            found[entry.get(1, b"").decode("utf-8", "replace")] = entry.get(2, b"").decode("utf-8", "replace")
    return found


def _fields(message: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield the fields of a protobuf message: number, all bytes, and the content of a field with a length.

    Raises:
        ModelFileError: if the bytes are not a message.
    """
    position = 0
    while position < len(message):
        start = position
        key, position = _varint(message, position)
        kind, content = key & 7, b""
        if kind == _VARINT:
            _, position = _varint(message, position)
        elif kind == _BYTES:
            length, position = _varint(message, position)
            content = message[position : position + length]
            position += length
        elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
            position += 8 if kind == _EIGHT_BYTES else 4
        else:
            raise ModelFileError("is not an ONNX model, or is damaged")
        if position > len(message):
            raise ModelFileError("is not an ONNX model, or its end is missing")
        yield key >> 3, message[start:position], content


def _varint(message: bytes, position: int) -> tuple[int, int]:
    """Return a number of variable length, 7 bits in each byte, and the position behind it."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            break
        byte = message[position]
        value |= (byte & 127) << shift
        position += 1
        if byte < 128:
            return value, position
    raise ModelFileError("is not an ONNX model, or its end is missing")

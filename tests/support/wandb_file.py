"""Reading what Weights & Biases wrote offline: a log of protocol-buffer records in LevelDB's log format."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2 as messages

HEADER, BLOCK = 7, 32768  # bytes; each chunk of a block: checksum, length, type, data


def chunks(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, data) of each chunk; 1 is a whole record, 2, 3 and 4 its beginning, middle and end."""
    assert data.startswith(b":W&B"), data[:HEADER]
    at = HEADER
    while at + HEADER <= len(data):
        if BLOCK - at % BLOCK < HEADER:  # what is left of a block that no chunk fits in
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + HEADER])
        yield kind, data[at + HEADER : at + HEADER + length]
        at += HEADER + length


def records(file: Path) -> Iterator[Any]:
    """Each record of a .wandb file."""
    whole = b""
    for kind, part in chunks(file.read_bytes()):
        whole = part if kind in (1, 2) else whole + part
        if kind in (1, 4):
            record = messages.Record()
            record.ParseFromString(whole)
            yield record


def name(item: Any) -> str:
    return item.key or ".".join(item.nested_key)


@dataclass
class Logged:
    """What one run's file holds.

    Attributes:
        config: top-level keys with their values.
        history: the rows that were logged, in order.
        summary: last values.
        artifacts: paths of the files of each artifact, except those that wandb makes itself for tables.
    """

    run_id: str = ""
    group: str = ""
    job_type: str = ""
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    artifacts: dict[str, list[str]] = field(default_factory=dict)

    @property
    def metrics(self) -> set[str]:
        """Names in the history, without wandb's own; the fields of a histogram, a table or a picture are one name."""
        names = {name for row in self.history for name in row}
        own = {"trainer/global_step", *(name for name in names if name.startswith("_"))}
        return {re.sub(r"^(histogram/.*|quantizers|picture)\.\w+$", r"\1", name) for name in names - own}


def read(folder: Path) -> Logged:
    """The single .wandb file somewhere below a folder."""
    (file,) = folder.rglob("*.wandb")
    logged = Logged()
    for record in records(file):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            logged.run_id, logged.group = record.run.run_id, record.run.run_group
            logged.job_type = record.run.job_type
            logged.tags = list(record.run.tags)
            logged.config |= {name(i): json.loads(i.value_json) for i in record.run.config.update}
        elif kind == "config":
            logged.config |= {name(i): json.loads(i.value_json) for i in record.config.update}
        elif kind == "history":
            logged.history.append({name(i): json.loads(i.value_json) for i in record.history.item})
        elif kind == "artifact" and not record.artifact.name.startswith("run-"):
            logged.artifacts[record.artifact.name] = sorted(e.path for e in record.artifact.manifest.contents)
        elif kind == "summary":
            logged.summary |= {name(i): json.loads(i.value_json) for i in record.summary.update}
    return logged

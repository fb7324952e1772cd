"""The record of a finished run: a typed, versioned value, and the reader and writer of the run's record.json.

A run folder with a record is finished. Version 1 of the file, written before the key "version" existed, has the same
keys as version 2, except that early records lack some; those are None or empty here.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sqakd.errors import SqakdError
from sqakd.files import ReadError, write_text
from sqakd.runs.fields import Fields, read_json

VERSION = 2
# Written only where they are known: earlier versions did so, and readers of record.json ask whether the key is there.
ONLY_IF_KNOWN = (
    *("drop_from_float", "difference_from_paper", "weights_sha256"),
    *("top1_before_training", "agreement_before_training", "compiled_from", "layer_bits", "chosen_bits"),
)
SHARES = ("top1", "top5", "agreement")  # scores between 0 and 1; others are divergences
ROUNDING = "quantizer/rounding="
ITS_OWN, WITHOUT_RELEASED = "its own", "without _released"


@dataclass(frozen=True, kw_only=True)
class Score:
    """One score over the epochs of a run, a share between 0 and 1 (a divergence may be larger).

    Attributes:
        last: of the last epoch.
        best: of the best epoch on the validation images.
        mean_of_last_5: mean of the last five epochs.
    """

    last: float
    best: float
    mean_of_last_5: float

    @classmethod
    def from_fields(cls, fields: Fields, *, is_share: bool) -> Score:
        """Return the score in a JSON object."""
        read = fields.share if is_share else fields.number
        return cls(last=read("last"), best=read("best"), mean_of_last_5=read("mean_of_last_5"))


@dataclass(frozen=True, kw_only=True)
class FloatRun:
    """The float run that a student started from.

    Attributes:
        name: of its folder.
        seed: of the run.
        scores: as in its own record.
        precision: in which it was trained, if that is not the student's own, e.g. "32-true"; else None.
    """

    name: str
    seed: int
    scores: Mapping[str, Score]
    precision: str | None = None

    @classmethod
    def from_fields(cls, fields: Fields) -> FloatRun:
        """Return the float run in a JSON object."""
        precision = fields.text("precision") if fields.has("precision") else None
        return cls(name=fields.text("name"), seed=fields.whole("seed"), scores=_scores(fields), precision=precision)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data as in record.json, without `precision` if it is None."""
        plain = asdict(self)
        return {key: value for key, value in plain.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Published:
    """The published number of a run's cell.

    Attributes:
        top1: a share between 0 and 1.
        source: "paper", "re-run" (another paper trained the cell again) or "second-hand" (quoted by another paper);
            the key in record.json is "kind".
        table: the table that has the number.
        compared_with: the cell that has the number: `ITS_OWN`, or `WITHOUT_RELEASED` if it is the cell without
            "_released" in its name; the key in record.json is "cell".
    """

    top1: float
    source: str
    table: str
    compared_with: str

    @classmethod
    def from_fields(cls, fields: Fields) -> Published:
        """Return the published number in a JSON object."""
        return cls(
            top1=fields.share("top1"),
            source=fields.text("kind"),
            table=fields.text("table"),
            compared_with=fields.text("cell"),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the number under the keys of record.json."""
        return {"top1": self.top1, "kind": self.source, "table": self.table, "cell": self.compared_with}


@dataclass(frozen=True, kw_only=True)
class Record:
    """The choices and results of a finished run. The fields are the keys of record.json, in their order.

    Attributes:
        name: of the run's folder.
        seed: of the run.
        choices: the chosen option of each configuration group.
        changes: values that differ from those of the choices alone.
        model: name of the network.
        w_bits: bits of the weights; 32 for a float run; the rounded average if they were chosen for each layer.
        a_bits: bits of the activations in the same way.
        layer_bits: bits of weight and input of each quantized layer, in network order; None if no single layer
            was given bits of its own.
        chosen_bits: the budget that chose the bits, as in the name of the run, e.g. "auto+40kB"; None without one, and
            in older records.
        epochs: how many were trained, with those of the recipe that a stage before the training took; 0 for a run that
            was only calibrated.
        scores: top1, top5, agreement, kl; without labels only agreement and kl.
        top1_before_training: top-1 after calibration, before any training step; older records lack it.
        agreement_before_training: agreement with the teacher at that moment; older records lack it.
        labels_used: whether the loss read labels.
        float_run: the float run that the student started from, if it is known.
        paper: the published number of the run's cell, if there is one.
        parameters: number of parameters of the trained network.
        packed_bytes: size of the network with quantized weights at their bits and everything else at 32.
        bit_operations: multiply-adds times the bits of both factors, summed over the layers, for one image.
        images_per_second: median over the epochs.
        training_seconds: of all epochs and of a stage before them, over all starts of the run.
        commit: of the code, with a "+" if code differed from it; None outside a checkout.
        versions: of the packages that computed the result.
        device: name of the device.
        devices: how many devices trained together.
        threads: of torch on the processor.
        compiled_from: the step of the training from which on steps were compiled code, from 0; None if none was, and in
            older records. A stage before the training is not meant.
        finished: time of day, ISO 8601, UTC.
        command: the command that trains the run again.
        drop_from_float: the float run's last top-1 minus the run's own.
        difference_from_paper: the run's last top-1 minus the published one.
        weights_sha256: checksum of weights.pt.
    """

    name: str
    seed: int
    choices: Mapping[str, str]
    changes: Mapping[str, Any]
    model: str
    w_bits: int
    a_bits: int
    layer_bits: Mapping[str, Sequence[int]] | None = None
    chosen_bits: str | None = None
    epochs: int
    scores: Mapping[str, Score]
    top1_before_training: float | None = None
    agreement_before_training: float | None = None
    labels_used: bool | None = None
    float_run: FloatRun | None = None
    paper: Published | None = None
    parameters: int | None = None
    packed_bytes: int
    bit_operations: int
    images_per_second: float | None = None
    training_seconds: float | None = None
    commit: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    device: str | None = None
    devices: int | None = None
    threads: int | None = None
    compiled_from: int | None = None
    finished: str | None = None
    command: str
    drop_from_float: float | None = None
    difference_from_paper: float | None = None
    weights_sha256: str | None = None

    @property
    def dataset(self) -> str:
        """The chosen data set."""
        return self.choices["dataset"]

    @property
    def quantizer(self) -> str:
        """The chosen quantizer; "none" for a float run."""
        return self.choices["quantizer"]

    @property
    def kd(self) -> str:
        """The chosen distillation loss; "none" for labels alone."""
        return self.choices["kd"]

    @property
    def add_ons(self) -> str:
        """The chosen add-ons, joined by "+"; empty if there are none."""
        return self.choices.get("plus", "")

    @property
    def rounding(self) -> str:
        """The rounding rule that the command names, e.g. "ste"; empty for the quantizer's own."""
        words = (word for word in split_command(self.command) if word.startswith(ROUNDING))
        return next(words, "").removeprefix(ROUNDING)

    @property
    def main_score(self) -> float | None:
        """The last top-1, or the last agreement with the teacher where there are no labels."""
        score = self.scores.get("top1") or self.scores.get("agreement")
        return None if score is None else score.last

    def summary(self) -> str:
        """Return the result in one line."""
        parts = [f"{self.name} seed {self.seed}"]
        if top1 := self.scores.get("top1"):
            parts.append(f"top-1 {100 * top1.last:.2f}% (best {100 * top1.best:.2f}%)")
        if self.paper:
            note = "" if self.paper.compared_with == ITS_OWN else f" ({self.paper.compared_with})"
            parts.append(f"paper {100 * self.paper.top1:.2f}%{note}")
        if self.drop_from_float is not None and self.float_run and "top1" in self.float_run.scores:
            parts.append(f"float {100 * self.float_run.scores['top1'].last:.2f}%")
        if agreement := self.scores.get("agreement"):
            parts.append(f"agrees with its teacher on {100 * agreement.last:.2f}%")
        parts.append(f"{self.packed_bytes / 1000:.1f} kB packed")
        return ", ".join(parts)

    def metrics(self) -> dict[str, float]:
        """Return the results under the names that loggers get: {"record/top1/last": 0.91, ...}."""
        flat = {f"{name}/{part}": value for name, score in self.scores.items() for part, value in asdict(score).items()}
        single = {
            "before_training/top1": self.top1_before_training,
            "before_training/agreement": self.agreement_before_training,
            "paper/top1": self.paper.top1 if self.paper else None,
            "drop_from_float": self.drop_from_float,
            "difference_from_paper": self.difference_from_paper,
            "packed_bytes": self.packed_bytes,
            "bit_operations": self.bit_operations,
            "images_per_second": self.images_per_second,
            "training_seconds": self.training_seconds,
        }
        flat |= {name: float(value) for name, value in single.items() if value is not None}
        return {f"record/{name}": value for name, value in flat.items()}

    def to_dict(self) -> dict[str, Any]:
        """Return plain data as in record.json."""
        plain = {"version": VERSION} | asdict(self)
        plain["paper"] = None if self.paper is None else self.paper.to_dict()
        plain["float_run"] = None if self.float_run is None else self.float_run.to_dict()
        return {key: value for key, value in plain.items() if value is not None or key not in ONLY_IF_KNOWN}

    @classmethod
    def from_dict(cls, content: object) -> Record:
        """Return the record in plain data of this version or an earlier one.

        Raises:
            SqakdError: if a newer version wrote the data, or a field is missing or of the wrong type.
        """
        fields = Fields(content)
        version = fields.whole("version") if fields.has("version") else 1
        if version > VERSION:
            raise SqakdError(
                f"record version {version}, but this code reads versions 1 to {VERSION}", topic="record.newer"
            )
        choices = fields.inside("choices")
        for group in ("dataset", "quantizer", "kd"):
            choices.text(group)
        optional = fields.optional(
            {
                fields.text: ("commit", "device", "finished", "weights_sha256", "chosen_bits"),
                fields.whole: ("parameters", "devices", "threads", "compiled_from"),
                fields.number: (
                    *("images_per_second", "training_seconds", "drop_from_float", "difference_from_paper"),
                ),
                fields.share: ("top1_before_training", "agreement_before_training"),
                fields.flag: ("labels_used",),
                fields.whole_lists: ("layer_bits",),
                fields.texts: ("versions",),
            }
        )
        return cls(
            name=fields.text("name"),
            seed=fields.whole("seed"),
            choices=fields.texts("choices"),
            changes=fields.plain("changes"),
            model=fields.text("model"),
            w_bits=fields.whole("w_bits"),
            a_bits=fields.whole("a_bits"),
            epochs=fields.whole("epochs", minimum=0),
            scores=_scores(fields),
            float_run=FloatRun.from_fields(fields.inside("float_run")) if fields.has("float_run") else None,
            paper=Published.from_fields(fields.inside("paper")) if fields.has("paper") else None,
            packed_bytes=fields.whole("packed_bytes"),
            bit_operations=fields.whole("bit_operations"),
            command=fields.text("command"),
            **optional,
        )


def changes_text(changes: Mapping[str, Any]) -> str:
    """Return changed values as text, empty if there are none.

    >>> changes_text({"recipe.lr": 0.1, "name": "a"})
    'recipe.lr=0.1, name="a"'
    """
    return ", ".join(f"{key}={json.dumps(value)}" for key, value in changes.items())


def split_command(command: str) -> list[str]:
    """Split a command as a shell does; commands in early records were written without quotes.

    >>> split_command("python train.py 'name=my run' bits=1"), split_command("python train.py name=it's")
    (['python', 'train.py', 'name=my run', 'bits=1'], ['python', 'train.py', "name=it's"])
    """
    try:
        return shlex.split(command)
    except ValueError:
        return command.split()


def _scores(fields: Fields) -> dict[str, Score]:
    scores = fields.inside("scores")
    return {name: Score.from_fields(scores.inside(name), is_share=name in SHARES) for name in scores.content}


def read_record(file: Path) -> Record:
    """Read the record of a finished run.

    Raises:
        SqakdError: if there is no such file, or the file is not a record that this code can read; the file is named.
    """
    if not file.exists():
        raise SqakdError(f"no {file}: expected the record of a finished run")
    try:
        return Record.from_dict(read_json(file))
    except ReadError:
        raise
    except SqakdError as error:
        if error.topic == "record.newer":
            raise SqakdError(f"{file}: {error}", topic="record.newer") from error
        raise SqakdError(f"{file} is not a record of a run ({error})", topic="record.damaged", file=file) from error


def write_record(file: Path, record: Record) -> None:
    """Write record.json atomically. Write it last: the file's existence says that the run is finished."""
    write_text(file, json.dumps(record.to_dict(), indent=2) + "\n")

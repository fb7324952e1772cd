"""Odd values for each type of value in a configuration, each with the ending it must have.

The type of a key is that of its default. A default of null says nothing about the type, so `NULLABLE` lists those keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tests.reliability.case import Expected

REFUSED, EITHER = Expected.REFUSED, Expected.EITHER


@dataclass(frozen=True)
class Odd:
    """An odd value.

    Attributes:
        kind: what is odd about it.
        text: as it stands in an override after the equals sign.
        expected: the ending it must have.
    """

    kind: str
    text: str
    expected: Expected = REFUSED


CONTAINERS = (Odd("list", "[1]"), Odd("dict", "{a:1}"))
LIST = CONTAINERS[:1]
NUMBER = (
    Odd("word for a number", "abc"),
    Odd("nan", "nan"),
    Odd("inf", "inf"),
    Odd("negative", "-1"),
    Odd("true for a number", "true"),
    Odd("null", "null"),
    Odd("empty", "''"),
    *LIST,
)
WHOLE = (*NUMBER, Odd("fraction", "1.5"), Odd("zero", "0", EITHER))
BOOLEAN = (
    *(Odd("word for a boolean", word) for word in ("no", "off", "yes", "on", "maybe")),
    Odd("number for a boolean", "2"),
    Odd("number for a boolean", "0.5"),
    Odd("nan", "nan"),
    Odd("null", "null"),
    Odd("empty", "''"),
    *LIST,
)
TEXT = (
    Odd("number for a word", "5", EITHER),
    Odd("true for a word", "true", EITHER),
    Odd("nan", "nan", EITHER),
    Odd("null", "null", EITHER),
    Odd("empty", "''", EITHER),
    Odd("line break", "'a\nb'", EITHER),
    *CONTAINERS,
)
COLOURS = (
    Odd("word for a list", "abc"),
    Odd("number for a list", "0.5"),
    Odd("empty", "[]"),
    Odd("wrong length", "[0.5]"),
    Odd("wrong length", "[0.5,0.5,0.5,0.5]"),
    Odd("word for a number", "[a,b,c]"),
    Odd("nan", "[0.5,nan,0.5]"),
    Odd("inf", "[0.5,inf,0.5]"),
    Odd("negative", "[-1,-1,-1]"),
    Odd("true for a number", "[true,true,true]"),
    Odd("null", "[null,null,null]"),
    Odd("null", "null"),
    Odd("wrong unit", "[127.5,127.5,127.5]"),
    Odd("nested list", "[[0.5],[0.5],[0.5]]"),
    Odd("dict", "{a:1}"),
)
WORDS = (
    Odd("word for a list", "abc"),
    Odd("number for a list", "5"),
    Odd("number for a word", "[1,2]"),
    Odd("null", "[null]"),
    Odd("nested list", "[[a]]"),
    Odd("dict", "{a:1}"),
)
TARGET = (
    Odd("foreign class", "os.system"),
    Odd("foreign class", "builtins.eval"),
    Odd("unknown class", "sqakd.nonsense.Class"),
    Odd("unknown class", "nonsense"),
    Odd("another class", "sqakd.files.write_text"),
    Odd("number for a word", "5"),
    Odd("null", "null"),
    Odd("empty", "''"),
    *CONTAINERS,
)
# Values for keys whose default is null, by what they take.
OPTIONAL_WHOLE = tuple(odd for odd in WHOLE if odd.kind != "null")
OPTIONAL_NUMBER = tuple(odd for odd in NUMBER if odd.kind != "null")
NODE = (Odd("word for a node", "abc"), Odd("number for a node", "5"), Odd("true for a node", "true"), *CONTAINERS)
NULLABLE: dict[str, tuple[Odd, ...]] = {
    "dataset.limit": OPTIONAL_WHOLE,
    "recipe.gradient_clip": OPTIONAL_NUMBER,
    "teacher.recipe.gradient_clip": OPTIONAL_NUMBER,
    "dataset.evaluate": NODE,
    "dataset.augment": NODE,
    "kd.feature_loss": NODE,
    "model.first": WORDS,
    "teacher.first": WORDS,
    "teacher.checkpoint": TEXT,
    "kd.feature_loss.tap": (Odd("unknown layer", "nonsense"), Odd("number for a word", "5"), *CONTAINERS),
    "kd.feature_loss.window": OPTIONAL_WHOLE,
    "gate": OPTIONAL_NUMBER,
    "images": OPTIONAL_WHOLE,
    "folder": (Odd("number for a word", "5", EITHER), Odd("true for a word", "true", EITHER), *CONTAINERS),
}
# Where a general rule is wrong: (key, text of the value) and the right ending.
EXCEPTIONS: dict[tuple[str, str], Expected] = {
    ("seed", "-1"): EITHER,
    ("teacher.seed", "-1"): EITHER,
    ("dataset.seed", "-1"): EITHER,
    ("trainer.devices", "-1"): EITHER,  # Lightning's word for all devices
    ("kd.feature_loss", "null"): EITHER,
    ("model.net.blocks", "[1]"): REFUSED,
}


def odd_values(key: str, default: object) -> Iterator[Odd]:
    """Yield the odd values for a key."""
    for odd in _values(key, default):
        # For Lightning, null is the default of each of its arguments.
        default_of_lightning = key.startswith("trainer.") and odd.text == "null"
        usual = EITHER if default_of_lightning else odd.expected
        yield Odd(odd.kind, odd.text, EXCEPTIONS.get((key, odd.text), usual))


def _values(key: str, default: object) -> tuple[Odd, ...]:
    last = key.rpartition(".")[2]
    if key in NULLABLE:
        return NULLABLE[key]
    if last == "_target_":
        return TARGET
    if isinstance(default, bool):
        return BOOLEAN
    if isinstance(default, int):
        return WHOLE
    if isinstance(default, float):
        return NUMBER
    if isinstance(default, list):
        return COLOURS if default and isinstance(default[0], float) else WORDS
    return TEXT

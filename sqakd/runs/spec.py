"""A composed configuration as plain data, and the sentence of the float run that belongs to it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

# What a student's sentence and its float run's have in common; the rest (quantizer, kd, plus, bits, recipe) is its own.
SHARED = ("dataset", "experiment", "paths", "trainer", "logger", "callbacks.progress", "debug", "hparams", "local")
# Keys beside a network's own: how it is quantized, what a student looks at, and the run that trains it.
NOT_NETWORK = ("first", "feature_layers", "checkpoint", "seed", "recipe")
# The groups whose choices say which cell of a table a run is.
CELL = ("experiment", "dataset", "model", "quantizer", "kd")


# Keys that say how or where a run is executed, not what it computes.
NOT_IDENTITY = (
    "paths",
    "logger",
    "plan",
    "cell",
    "released",
    "callbacks.progress",
    "callbacks.quantizer_statistics",
    "callbacks.histograms",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.strategy",
    "trainer.sync_batchnorm",
    "trainer.compile",
    "trainer.channels_last",
    "dataset.root",
    "dataset.download",
    "dataset.cache",
)


@dataclass(frozen=True)
class Sentence:
    """What one run is.

    Attributes:
        config: resolved, plain data.
        choices: chosen option of each configuration group.
        overrides: the words typed, e.g. "quantizer=ewgs".
    """

    config: dict[str, Any]
    choices: dict[str, str]
    overrides: tuple[str, ...]

    def float_run(self, role: str) -> list[str]:
        """Words of the float run of this sentence's network.

        Args:
            role: "model" for the student's own network, "model@teacher" for the teacher's.
        """
        same = self.choices["model"] == self.choices["model@teacher"]
        # The student's own float run shares the words for its network; so does the teacher where they are the same.
        renamed = {"teacher.recipe.": "recipe.", "recipe@teacher.recipe=": "recipe="}
        networks = [*(["model."] if role == "model" or same else []), *(["teacher."] if role != "model" else [])]
        shared = tuple(f"{root}{end}" for root in SHARED for end in (".", "=", "@", "/"))
        words = [word for word in self.overrides if (bare := word.lstrip("+~")).startswith(shared) or bare in SHARED]
        for old, new in renamed.items():
            words += [word.replace(old, new, 1) for word in self.overrides if word.lstrip("+~").startswith(old)]
        for root in networks:  # the teacher's own words come last and so win
            words += [word.replace(root, "model.", 1) for word in self.overrides if _describes_network(word, root)]
        return [
            *words,
            "quantizer=none",
            "bits=32",
            "kd=none",
            "plus=[]",
            f"model={self.choices[role]}",
            f"seed={self.config['teacher']['seed']}",
        ]

    def plain(self) -> list[str]:
        """Words of the same choices with nothing changed: what a cell of a table is."""
        words = [f"{group}={self.choices[group]}" for group in CELL if self.choices.get(group, "None") != "None"]
        words += [word for word in self.overrides if word.startswith(("quantizer/rounding=", "plus="))]
        words += [word for word in self.overrides if _describes_network(word, "model.")]
        return [*words, *(f"{key}={self.config[key]}" for key in ("w_bits", "a_bits", "seed"))]


def _describes_network(word: str, root: str) -> bool:
    """Whether a word such as "model.arch=resnet50" says which network it is; `root` is "model." or "teacher."."""
    bare = word.lstrip("+~")
    return bare.startswith(root) and re.split("[.=]", bare.removeprefix(root))[0] not in NOT_NETWORK


def identity(config: dict[str, Any]) -> dict[str, Any]:
    """Flat {dotted key: value} of everything that decides what a run computes."""
    flat: dict[str, Any] = {}

    def walk(prefix: str, value: Any) -> None:
        if any(prefix == key or prefix.startswith(key + ".") for key in NOT_IDENTITY):
            return
        if isinstance(value, dict) and value:
            for key, inner in value.items():
                walk(f"{prefix}.{key}" if prefix else str(key), inner)
        else:
            flat[prefix] = value

    walk("", config)
    return flat


def differences(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """Sentences "key: there -> here" for each key that differs."""
    absent = "(absent)"
    return [
        f"{key}: {there.get(key, absent)} -> {here.get(key, absent)}"
        for key in sorted(there.keys() | here.keys())
        if there.get(key, absent) != here.get(key, absent)
    ]

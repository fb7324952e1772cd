"""A composed configuration as plain data, and the sentence of the float run that belongs to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# What a student's sentence and its float run's have in common; the rest (quantizer, kd, bits, recipe) is its own.
SHARED = ("dataset", "experiment", "paths", "trainer", "logger", "callbacks", "debug", "local")


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
        renamed |= {"model.net.": "model.net."} if role == "model" or same else {}
        renamed |= {"teacher.net.": "model.net."} if role != "model" else {}
        words = []
        for word in self.overrides:
            bare = word.lstrip("+~")
            if bare.startswith(tuple(f"{root}{end}" for root in SHARED for end in (".", "=", "@", "/"))):
                words.append(word)
            for old, new in renamed.items():
                if bare.startswith(old):
                    words.append(word.replace(old, new, 1))
        return [
            *words,
            "quantizer=none",
            "kd=none",
            f"model={self.choices[role]}",
            f"seed={self.config['teacher']['seed']}",
        ]

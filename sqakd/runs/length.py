"""The length of a run: the epochs of its training, and those of a stage before it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqakd.numbers import is_number, is_whole

SHARE, OWN = "pretrain_share", "pretrain_epochs"  # keys of a feature loss


@dataclass(frozen=True)
class Length:
    """Epochs of a run.

    Attributes:
        recipe: epochs of the recipe.
        taken: epochs of the recipe that the stage takes.
        added: epochs that the stage has in addition to the recipe.
    """

    recipe: int
    taken: int
    added: int

    @property
    def stage(self) -> int:
        """The epochs of the stage; at most one of its two parts is not 0."""
        return self.taken + self.added

    @property
    def training(self) -> int:
        """The epochs of the training."""
        return self.recipe - self.taken


def length(epochs: int, *, share: float, own: int) -> Length:
    """Return the length of a run.

    Args:
        epochs: of the recipe; with 0 there is no stage either.
        share: of these epochs that a stage takes, rounded down to whole epochs, and at least one; 0: none.
        own: epochs of a stage in addition to the recipe's.

    Example:
        >>> length(8, share=0.25, own=0), length(100, share=0.29, own=0)
        (Length(recipe=8, taken=2, added=0), Length(recipe=100, taken=29, added=0))
        >>> length(8, share=0, own=30)
        Length(recipe=8, taken=0, added=30)
    """
    if epochs == 0:
        return Length(0, 0, 0)
    whole = math.floor(round(share * epochs, 6))  # 0.29 * 100 is a little less than 29
    return Length(epochs, max(whole, 1) if share else 0, own)


def length_of(config: Mapping[str, Any]) -> Length:
    """Return the length of a run from its nodes `recipe` and `kd`.

    Values of other types count as 0: the constructors of recipe and kd refuse them.
    """
    loss = _node(_node(config, "kd"), "feature_loss")
    epochs, own = (value if is_whole(value) else 0 for value in (_node(config, "recipe").get("epochs"), loss.get(OWN)))
    share = loss.get(SHARE)
    return length(max(epochs, 0), share=share if is_number(share) and 0 < share < 1 else 0.0, own=own)


def _node(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return a node below another; without values if it is no mapping."""
    node = config.get(key)
    return node if isinstance(node, Mapping) else {}

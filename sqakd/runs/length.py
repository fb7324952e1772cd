"""The length of a run: the epochs of its training, and those of a stage before it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqakd.numbers import is_number, is_whole


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


def length_of(config: Mapping[str, Any]) -> Length:
    """Return the length of a run from its nodes `recipe` and `kd`.

    A share is rounded down to whole epochs, and at least one. Without a training there is no stage. Values that are not
    numbers count as 0: the constructors of recipe and kd refuse them.

    Example:
        >>> length_of({"recipe": {"epochs": 8}, "kd": {"feature_loss": {"pretrain_share": 0.25}}})
        Length(recipe=8, taken=2, added=0)
        >>> length_of({"recipe": {"epochs": 8}, "kd": {"feature_loss": {"pretrain_epochs": 30}}})
        Length(recipe=8, taken=0, added=30)
    """
    epochs = config.get("recipe", {}).get("epochs")
    loss = config.get("kd", {}).get("feature_loss") or {}
    if not is_whole(epochs) or epochs < 1:
        return Length(0, 0, 0)
    share, own = loss.get("pretrain_share", 0), loss.get("pretrain_epochs", 0)
    taken = max(int(share * epochs), 1) if is_number(share) and 0 < share < 1 else 0
    return Length(epochs, taken, own if is_whole(own) else 0)

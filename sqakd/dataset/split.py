"""Splits of a data set that are part of the data set: they never depend on the seed of a run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from sqakd.dataset.errors import DataError

T = TypeVar("T")
SPLIT_SEED = 0


def subset(count: int, wanted: int) -> Tensor:
    """Return the positions of `wanted` of `count` images in ascending order, the same ones in every run.

    The images are drawn at random, because many data sets are stored class by class.
    """
    order = torch.randperm(count, generator=torch.Generator().manual_seed(SPLIT_SEED))
    return order[:wanted].sort().values


def split_by_share(count: int, share: float) -> tuple[Tensor, Tensor]:
    """Return the positions of `count` images in two parts: the larger rest, and a random share that is held out.

    Raises:
        DataError: if one part would be empty.
    """
    held_out = subset(count, round(share * count))
    if not 0 < len(held_out) < count:
        raise DataError(f"holdout={share} of {count} training images leaves no image on one side")
    rest = torch.ones(count, dtype=torch.bool)
    rest[held_out] = False
    return rest.nonzero().flatten(), held_out


def split_by_name(items: Sequence[T], name: Callable[[T], str], share: float) -> tuple[list[T], list[T]]:
    """Return the items in two parts: the rest, and those held out because of a hash of their name.

    Each item is held out with probability `share`. Adding items therefore moves none of the others. No part is empty if
    there are at least two items.
    """
    ranked = sorted(items, key=lambda item: _place(name(item)))
    held_out = sum(_place(name(item)) < share for item in items)
    cut = min(max(held_out, 1), len(items) - 1) if items else 0
    return ranked[cut:], ranked[:cut]


def _place(name: str) -> float:
    """Return a number from 0 to 1 that is evenly spread over names."""
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2**64

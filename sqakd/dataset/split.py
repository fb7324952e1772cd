"""Splits of a data set that are part of the data set: they never depend on the seed of a run."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from sqakd.dataset.errors import DataError
from sqakd.errors import some

T = TypeVar("T", bound=Hashable)
G = TypeVar("G", bound=Hashable)
SPLIT_SEED = 0


def subset(count: int, wanted: int) -> Tensor:
    """Return the positions of `wanted` of `count` images in ascending order, the same ones in every run.

    The images are drawn at random, because many data sets are stored class by class.
    """
    order = torch.randperm(count, generator=torch.Generator().manual_seed(SPLIT_SEED))
    return order[:wanted].sort().values


def split_by_share(
    count: int, share: float, *, group: Callable[[int], G] | None = None, class_name: Callable[[G], str] = str
) -> tuple[Tensor, Tensor]:
    """Return the positions of `count` images in two parts: the larger rest, and a random share that is held out.

    Args:
        count: number of images.
        share: share of the images to hold out.
        group: function that returns the class of the image at a position; see `in_both_parts`.
        class_name: function that returns the text of a class for the message.

    Raises:
        DataError: if one part would be empty, or a class has only one image.
    """
    wanted = round(share * count)
    if not 0 < wanted < count:
        raise DataError(f"holdout={share} of {count} training images leaves no image on one side")
    order = torch.randperm(count, generator=torch.Generator().manual_seed(SPLIT_SEED)).tolist()
    rest, held_out = order[wanted:], order[:wanted]
    if group is not None:
        rest, held_out = in_both_parts(rest, held_out, group, class_name)
    return torch.tensor(sorted(rest)), torch.tensor(sorted(held_out))


def split_by_name(
    items: Sequence[T], name: Callable[[T], str], share: float, *, group: Callable[[T], Hashable] | None = None
) -> tuple[list[T], list[T]]:
    """Return the items in two parts: the rest, and those held out because of a hash of their name.

    Each item is held out with probability `share`. Adding items therefore moves none of the others. No part is empty if
    there are at least two items.

    Args:
        items: to split.
        name: function that returns the name of an item.
        share: probability of an item to be held out.
        group: function that returns the class of an item; see `in_both_parts`.

    Raises:
        DataError: if a class has only one item.
    """
    places = [_place(name(item)) for item in items]
    ranked = [items[i] for i in sorted(range(len(items)), key=places.__getitem__)]
    held_out = sum(place < share for place in places)
    cut = min(max(held_out, 1), len(items) - 1) if items else 0
    rest, held = ranked[cut:], ranked[:cut]
    return (rest, held) if group is None else in_both_parts(rest, held, group)


def in_both_parts(
    rest: list[T], held_out: list[T], group: Callable[[T], G], class_name: Callable[[G], str] = str
) -> tuple[list[T], list[T]]:
    """Move items so that each class has at least one item in both parts. A split that has them stays as it is.

    Args:
        rest: items for training, those first that would be held out next.
        held_out: items for validation, those last that would be returned first.
        group: function that returns the class of an item.
        class_name: function that returns the text of a class for the message.

    Raises:
        DataError: if a class has only one item.
    """
    counts = Counter(map(group, [*rest, *held_out]))
    single = sorted(class_name(name) for name, count in counts.items() if count == 1)
    if single:
        raise DataError(
            f"class(es) with a single image: {some(single)}; expected at least two images in each class, one for"
            " training and one for validation"
        )
    next_out = {group(item): item for item in reversed(rest)}
    last_out = {group(item): item for item in held_out}
    moved_out = [item for name, item in next_out.items() if name not in last_out]
    returned = [item for name, item in last_out.items() if name not in next_out]
    if not moved_out and not returned:
        return rest, held_out
    gone, back = set(moved_out), set(returned)
    return (
        [item for item in rest if item not in gone] + returned,
        [item for item in held_out if item not in back] + moved_out,
    )


def _place(name: str) -> float:
    """Return a number from 0 to 1 that is evenly spread over names."""
    digest = hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2**64

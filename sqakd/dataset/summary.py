"""The images that a training uses and those that it leaves out, in one line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqakd.image_files import LeftOut, left_out_text
from sqakd.terminal import printable


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The numbers of images in a data set; `str` returns them in one line.

    Attributes:
        train_images: number of training images.
        val_images: number of validation images.
        class_names: of labelled images.
        train_counts: training images of each class; None for unlabelled images.
        val_counts: validation images of each class; None for unlabelled images.
        val_source: where validation images come from that have no folder of their own, e.g. "held out by file name".
        limit: largest number of images of each part, None for all; the other attributes count what is left.
        left_out: files and folders that are not used, by the reason.
    """

    train_images: int
    val_images: int
    class_names: Sequence[str]
    train_counts: Sequence[int] | None
    val_counts: Sequence[int] | None
    val_source: str | None
    limit: int | None
    left_out: LeftOut

    def __str__(self) -> str:
        held_out = f" ({self.val_source})" if self.val_source else ""
        text = f"{self.train_images} training and {self.val_images} validation images{held_out}"
        if self.train_counts is None or self.val_counts is None:
            text += ", no labels"
        else:
            fewest = f"{self._fewest(self.train_counts, 'training')} and {self._fewest(self.val_counts, 'validation')}"
            text += f", {len(self.class_names)} classes with at least {fewest} images each"
        if self.limit is not None:
            text += f"; limited to {self.limit}"
        return f"{text}; {left_out_text(self.left_out)}" if self.left_out else text

    def _fewest(self, counts: Sequence[int], part: str) -> str:
        """Return the number of images of the smallest class, with its name if another class has more."""
        fewest = min(counts)
        which = f" ({printable(self.class_names[counts.index(fewest)])})" if fewest < max(counts) else ""
        return f"{fewest} {part}{which}"

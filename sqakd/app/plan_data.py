"""The data sets of a plan: whether their files are there, and whether their images have labels. No image is read."""

from __future__ import annotations

import json
from dataclasses import dataclass

from sqakd.advice import explain
from sqakd.app.compose import make
from sqakd.dataset.base import ImageDataModule
from sqakd.errors import SqakdError
from sqakd.runs.spec import Spec

PLACES = ("root", "folder", "download")  # keys of a data set that say where its files are


@dataclass(frozen=True)
class Found:
    """What is known of one data set.

    Attributes:
        missing: why its files cannot be used; "" if they are there.
        labelled: whether the images have labels; true also if files are missing.
    """

    missing: str
    labelled: bool


class PlannedData:
    """Looks for each data set of a plan once, however many runs have it. A folder of images may be large."""

    def __init__(self) -> None:
        self.found: dict[str, Found] = {}

    def look(self, spec: Spec) -> Found:
        """Return what is known of the data set of a run that nothing else is known against."""
        node = spec.config["dataset"]
        key = json.dumps([node.get("_target_"), {key: node[key] for key in PLACES if key in node}], default=str)
        if key not in self.found:
            try:
                data: ImageDataModule = make(node, "dataset")
                data.require()
                self.found[key] = Found("", data.has_labels())
            except SqakdError as error:
                self.found[key] = Found(f"dataset={spec.choices.get('dataset')}: {explain(error)}", labelled=True)
        return self.found[key]

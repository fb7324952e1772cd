"""train.py in a process whose measured sensitivities are others than those of the first process.

It writes the bits that the training has, and whether this process drew them, to standard error.
"""

from __future__ import annotations

import os
import runpy
import sys
from dataclasses import replace
from typing import Any

import command
import pytest

from sqakd.app import allocation, sensitivity, train
from sqakd.report import sensitivity_picture

RANK = int(os.environ.get("RANK", "0"))
measured, fit, draw = sensitivity.sensitivity_of, train.fit, sensitivity_picture.draw_sensitivity


def other_sensitivity(*arguments: Any) -> Any:
    """Return the sensitivity, in the second process with the layers in the opposite order of their need."""
    found, file = measured(*arguments)
    losses = [(layer.weight, layer.input) for layer in found.layers][:: -1 if RANK else 1]
    layers = [
        replace(layer, weight=weight, input=value) for layer, (weight, value) in zip(found.layers, losses, strict=True)
    ]
    return replace(found, layers=tuple(layers)), file


def fit_and_tell(spec: Any, *arguments: Any) -> Any:
    bits = spec.config["quantizer"]
    print("bits", bits["layer_w_bits"], bits["layer_a_bits"], file=sys.stderr)
    return fit(spec, *arguments)


def draw_and_tell(*arguments: Any, **options: Any) -> None:
    print("drawn", file=sys.stderr)
    draw(*arguments, **options)


if __name__ == "__main__":
    patch = pytest.MonkeyPatch()
    patch.setattr(allocation, "sensitivity_of", other_sensitivity)
    patch.setattr(train, "fit", fit_and_tell)
    patch.setattr(allocation, "draw_sensitivity", draw_and_tell)
    script = str(command.ROOT / "train.py")
    sys.argv[0] = script
    runpy.run_path(script, run_name="__main__")

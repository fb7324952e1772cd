"""The table of sensitivities as JSON, CSV, text and picture."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from PIL import Image

from sqakd.allocation.table import LayerSensitivity, Sensitivity
from sqakd.errors import SqakdError
from sqakd.report.sensitivity_picture import draw_sensitivity

LAYER = LayerSensitivity(
    name="conv", weights=9, multiply_adds=90, inputs=10, weight={1: 0.5, 8: 1e-7}, input={1: 0.25, 8: 0.0}
)
TABLE = Sensitivity(criterion="kl", images=64, widths=(1, 8), layers=(LAYER,))


def test_the_table_is_read_back_from_json_as_it_was() -> None:
    assert Sensitivity.from_dict(json.loads(json.dumps(TABLE.to_dict()))) == TABLE


def test_a_damaged_table_is_refused() -> None:
    content = TABLE.to_dict()
    del content["layers"][0]["input"]["8"]
    with pytest.raises(SqakdError, match=r"layers\[0\]\.input\.8 is missing"):
        Sensitivity.from_dict(content)


def test_csv_has_a_row_for_each_tensor_and_number_of_bits() -> None:
    rows = list(csv.DictReader(io.StringIO(TABLE.csv())))
    assert [(row["tensor"], row["bits"], float(row["loss"])) for row in rows] == [
        ("weight", "1", 0.5),
        ("weight", "8", 1e-7),
        ("input", "1", 0.25),
        ("input", "8", 0.0),
    ]


def test_the_picture_marks_the_chosen_bits(tmp_path: Path) -> None:
    losses = {"weights": [[0.5, 1e-7]], "inputs": [[0.25, 0.0]]}
    for name, chosen in (("plain", None), ("marked", {"weights": {"conv": 8}, "inputs": {"conv": 1}})):
        draw_sensitivity(
            tmp_path / f"{name}.png", layers=["conv"], bits=[1, 8], losses=losses, unit="loss", chosen=chosen
        )
    plain, marked = (Image.open(tmp_path / f"{name}.png") for name in ("plain", "marked"))
    assert plain.size == marked.size
    assert plain.tobytes() != marked.tobytes()

"""The published number of one cell: what a run's own result is to be compared with.

results/paper.csv lies beside the package in a checkout; where it is not, there is nothing to compare with. Top-1 is in
percent there and a share here, as in a run's record.
"""

from __future__ import annotations

import csv
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from sqakd.runs.spec import Sentence

FILE = Path(__file__).parents[2] / "results" / "paper.csv"
RELEASED = "_released"
ITS_OWN, WITHOUT_RELEASED = "its own", "without _released"


def published(sentence: Sentence, changes: dict[str, Any], *, file: Path | None = None) -> dict[str, Any] | None:
    """The number of the sentence's cell; of several tables that have it, the first.

    A cell of the released code's reading (`_released`) stands beside the paper's cell without that word.

    Args:
        sentence: what is run.
        changes: values that differ from those of the choices alone; a run that has any is no cell of the paper.
        file: instead of the project's own.

    Returns:
        top1 (a share), kind (how the number was come by), table, and cell ("its own" or "without _released"), or None.

    Raises:
        ValueError: if the file cannot be read as a table of published numbers.
    """
    file = FILE if file is None else file
    config, choices = sentence.config, sentence.choices
    other_rounding = any(word.startswith("quantizer/rounding=") for word in sentence.overrides)
    if changes or choices.get("plus") or other_rounding or config["w_bits"] != config["a_bits"] or not file.is_file():
        return None
    methods = choices["quantizer"], choices["kd"]
    quantizer, kd = (method.removesuffix(RELEASED) for method in methods)
    wanted = (choices["dataset"], config["model"]["name"], quantizer, str(config["w_bits"]), kd)
    with file.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            try:
                cell = tuple(row[key] for key in ("dataset", "model", "quantizer", "bits", "kd"))
                if cell == wanted and row["top1"]:
                    top1 = float(Decimal(row["top1"]) / 100)
                    beside = ITS_OWN if (quantizer, kd) == methods else WITHOUT_RELEASED
                    return {"top1": top1, "kind": row["kind"], "table": row["table"], "cell": beside}
            except (KeyError, InvalidOperation) as error:
                raise ValueError(
                    f"{file} is no table of published numbers ({type(error).__name__}: {error}): expected the columns"
                    f" table, dataset, model, quantizer, bits, kd, top1, kind; restore it, or remove it"
                ) from error
    return None

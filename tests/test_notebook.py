"""examples/quickstart.ipynb: its cells run one after the other and show what its text says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import command

FILE = command.ROOT / "examples" / "quickstart.ipynb"
SHOW = 'import json; print(json.dumps(scores | {"before": result.scores_before, "proof": record.verify[0].agreement}))'


def cells(kind: str) -> list[str]:
    notebook = json.loads(FILE.read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == kind]


def test_the_cells_run_and_each_step_helps(tmp_path: Path) -> None:
    # A process of its own, because the notebook sets the seed and imports what it needs.
    done = command.script("-c", "\n\n".join([*cells("code"), SHOW]), folder=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    *_, answer, last = done.stdout.splitlines()
    scores = json.loads(last)
    assert scores["2 bits, calibrated"] < scores["2 bits, distilled"] <= scores["float"] + 0.02
    assert scores["float"] > 0.9
    assert scores["proof"] == 1
    assert re.fullmatch(r"digit (\d) \(.*%\); the label is \1", answer)
    assert {"quickstart.png", "exported", "digit.png"} == {path.name for path in tmp_path.iterdir()}


def test_the_notebook_is_stored_without_outputs() -> None:
    notebook = json.loads(FILE.read_text(encoding="utf-8"))
    assert all(cell["outputs"] == [] for cell in notebook["cells"] if cell["cell_type"] == "code")
    assert len(cells("markdown")) > 5

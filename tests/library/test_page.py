"""The code on docs/library.md and the script under examples/ run as they are."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import command
import library_parts
import numpy as np
import pages
import pytest
import torch
from PIL import Image

import sqakd
from sqakd.face import FACE

PAGE = pages.Page(command.ROOT / "docs" / "library.md")
RUN = command.ROOT / "tests" / "old_runs" / "version1" / "digits16-resnet20-ewgs-w2a2-sqakd" / "seed0"


def test_the_page_lists_every_name() -> None:
    named = {row[0].strip("`").partition("(")[0] for row in PAGE.rows}
    assert set(FACE) <= named


def test_the_code_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "runs" / "digits-resnet20-ewgs-w2a2-sqakd" / "seed0"
    run.parent.mkdir(parents=True)
    run.symlink_to(RUN)
    (tmp_path / "photos").mkdir()
    Image.fromarray(np.zeros((20, 30, 3), dtype=np.uint8)).save(tmp_path / "photos" / "a.png")
    network, label = library_parts.network(), torch.zeros(8, dtype=torch.int64)
    loader = [(images, label) for images in library_parts.batches()]
    torch.save(network.state_dict(), tmp_path / "float.pt")
    scope: dict[str, Any] = {
        **{"torch": torch, "network": network, "loader": loader, "validation": loader, "example": loader[0][0]},
        **{"names": ["ant", "bee", "cat", "dog", "eel"], "mean": [0.5] * 3, "std": [0.25] * 3},
    }
    blocks = [text for language, text in PAGE.blocks if language == "python"]
    assert len(blocks) == 6
    for block in blocks:
        exec(block, scope)
    assert scope["record"].verify[0].agreement == 1
    assert isinstance(scope["student"], torch.nn.Module)
    assert sqakd.predict("exported", "photos")[0].label in scope["names"]


def test_the_loop_of_the_example_lowers_its_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    file = command.ROOT / "examples" / "own_loop.py"
    spec = importlib.util.spec_from_file_location("own_loop", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys, "argv", [str(file), "--steps", "8", "--size", "32"])
    losses = module.main()
    assert len(losses) == 8
    assert losses[-1] < losses[0]

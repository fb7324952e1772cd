"""Tests of the examples in docs/extending.md: the new parts train together, and the contract tests cover them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import command
import numpy as np
import pages
import pytest
from hydra import compose, initialize_config_dir
from sklearn.datasets import load_digits

from sqakd.app.compose import compose_spec
from sqakd.app.tables import table_cells

PAGE, FILES = pages.EXTENDING, pages.FILES
COMMANDS = [line for line in PAGE.commands if pages.uses_example_part(line)]
SPANS = [span for span in PAGE.overrides if pages.uses_example_part(span)]
ALL_PARTS = ["quantizer=maxabs", "kd=cosine", "model=plain", "dataset=arrays", "plus=[freeze_bn]", "bits=4"]
NAME = "arrays-plain-maxabs-w4a4-cosine-freeze_bn"


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(folder)}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the project, add the example files of the page, and write the digits as a file of arrays."""
    folder = tmp_path_factory.mktemp("project")
    for part in ("sqakd", "hydra_plugins", "conf", "tests"):
        shutil.copytree(command.ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__", "local"))
    for name in ("train.py", "export.py", "pyproject.toml"):
        shutil.copy(command.ROOT / name, folder)
    for path, text in FILES.items():
        (folder / path).write_text(text)
    images = np.kron(load_digits().images, np.ones((2, 2))) * (255 / 16)
    images = np.repeat(images[:, None].astype(np.uint8), 3, axis=1)
    labels = load_digits().target
    np.savez(
        folder / "my.npz",
        train_images=images[:1400],
        train_labels=labels[:1400],
        val_images=images[1400:],
        val_labels=labels[1400:],
    )
    return folder


def test_page_has_an_example_of_each_part() -> None:
    kinds = {Path(path).parent.as_posix() for path in FILES}
    groups = ("quantizer", "kd", "model", "dataset", "plus", "experiment", "table")
    packages = ("quantization/quantizers", "kd", "models", "dataset", "training/callbacks")
    assert {*(f"conf/{group}" for group in groups), *(f"sqakd/{package}" for package in packages)} <= kinds


def test_example_parts_train_together(project: Path) -> None:
    short = ["recipe.epochs=4", "teacher.recipe.epochs=4", "dataset.file=my.npz"]
    trained = python(project, "train.py", *ALL_PARTS, *short)
    assert trained.returncode == 0, trained.stderr
    record = json.loads((project / "runs" / NAME / "seed0" / "record.json").read_text())
    assert record["scores"]["agreement"]["last"] > 0.5
    assert not record["labels_used"]
    exported = python(project, "export.py", f"run=runs/{NAME}/seed0", "gate=1", "benchmark.rounds=0")
    assert exported.returncode == 0, exported.stderr
    layers = json.loads((project / "runs" / NAME / "seed0" / "export-exact" / "layers.json").read_text())
    assert {layer["a_bits"] for layer in layers} == {4}
    assert all(layer.get("wrong_sums", 0) == 0 for layer in layers)
    assert max(layer["farthest_from_an_edge"] for layer in layers) <= 1e-5


def test_commands_of_the_page_compose(project: Path) -> None:
    assert len(COMMANDS) > 5
    with initialize_config_dir(str(project / "conf"), version_base="1.3"):
        for line in COMMANDS:
            assert pages.split_command(line)[:2] == ["python", "train.py"]
            compose_spec(pages.split_command(line)[2:])
        for span in SPANS:
            compose_spec(span.split())


def test_example_table_combines_the_example_parts(project: Path) -> None:
    with initialize_config_dir(str(project / "conf"), version_base="1.3"):
        sweeper = compose("train", ["table=mine"], return_hydra_config=True).hydra.sweeper
        first, *_, last = table_cells(list(sweeper.rows), dict(sweeper.params), [])
        names = [compose_spec(overrides).config["name"] for overrides in (first, last)]
    assert names == ["arrays-plain-ewgs-w2a2-none", "arrays-plain-maxabs-w4a4-cosine"]


@pytest.mark.slow
def test_contract_tests_cover_the_example_parts(project: Path) -> None:
    files = ["tests/test_quantizer_contract.py", "tests/test_feature_contract.py", "tests/test_plus_contract.py"]
    new = "maxabs or cosine or (freeze_bn and resumed)"
    contract = python(project, "-m", "pytest", "-v", "-k", new, *files)
    assert contract.returncode == 0, contract.stdout
    for name in ("maxabs", "cosine", "freeze_bn"):
        assert re.search(rf"{name}\S* PASSED", contract.stdout), name

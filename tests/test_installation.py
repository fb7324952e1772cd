"""The wheel: everything that the commands need is inside, and they work in an empty folder."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import command
import pytest

from sqakd.app import hydra_main
from sqakd.shipped import conf_folder

PROJECT = tomllib.loads((command.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SOURCES = ("sqakd", "hydra_plugins", "conf", "results/paper.csv", "setup.py", "pyproject.toml", "MANIFEST.in")
# With one residual block per stage, a run takes seconds.
TINY = ["quantizer=ewgs", "model=resnet20", "bits=2", "debug=tiny", "model.net.blocks=1"]


@pytest.mark.parametrize("name", PROJECT["scripts"])
def test_each_command_has_a_program(name: str) -> None:
    module, _, function = PROJECT["scripts"][name].partition(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_own_files_in_the_current_folder_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = ["sqakd-train", "bits=2"]

    def arguments(*more: str) -> list[str]:
        monkeypatch.setattr(sys, "argv", [*given, *more])
        hydra_main._add_own_folder()
        return sys.argv[len(given) + len(more) :]

    assert arguments() == []
    (tmp_path / "conf").mkdir()
    assert arguments() == ["--config-dir", "conf"]
    assert arguments("--config-dir=mine") == []
    monkeypatch.chdir(conf_folder().parent)  # a checkout's own conf/ is searched already
    assert arguments() == []


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from the files of the checkout, without what git ignores, and without a network."""
    folder = tmp_path_factory.mktemp("build")
    for name in (*SOURCES, PROJECT["readme"], "LICENSE"):
        source, target = command.ROOT / name, folder / "source" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "local"))
        else:
            shutil.copyfile(source, target)
    (folder / "source" / "conf" / "local").mkdir()
    (folder / "source" / "conf" / "local" / "default.yaml").write_text("bits: 7\n")
    options = ["--no-build-isolation", "--no-deps", "--no-index", "--quiet", "--wheel-dir", str(folder)]
    run([sys.executable, "-m", "pip", "wheel", *options, str(folder / "source")], folder)
    (built,) = folder.glob("*.whl")
    return built


def run(words: list[str], folder: Path) -> str:
    """Run a program as a user does, without this checkout on Python's path, and return its output."""
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "SQAKD_PROGRAM")}
    done = subprocess.run(
        words, cwd=folder, env=environment | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_the_wheel_has_all_files_and_no_others(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    conf = {f"sqakd/conf/{file.relative_to(conf_folder()).as_posix()}" for file in conf_folder().rglob("*.yaml")}
    assert {name for name in conf if "/local/" not in name} == {n for n in inside if n.startswith("sqakd/conf/")}
    assert {"sqakd/paper.csv", "sqakd/py.typed", "sqakd/app/rows.yaml", "sqakd/report/assets/page.html"} <= inside
    assert {name.split("/")[0] for name in inside} == {
        "sqakd",
        "hydra_plugins",
        f"sqakd-{wheel.name.split('-')[1]}.dist-info",
    }


@pytest.mark.slow
def test_an_installed_package_trains_exports_predicts_and_reports(wheel: Path, tmp_path: Path) -> None:
    place, work = tmp_path / "environment", tmp_path / "work"
    work.mkdir()
    venv.create(place, with_pip=True)
    commands = place / ("Scripts" if os.name == "nt" else "bin")
    # The packages that sqakd needs come from the environment of the tests; sqakd itself comes from the wheel.
    own = Path(
        run([str(commands / "python"), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], work).strip()
    )
    (own / "packages_of_the_tests.pth").write_text(sysconfig.get_path("purelib"))
    run([str(commands / "python"), "-m", "pip", "install", "--no-deps", "--no-index", "--quiet", str(wheel)], work)
    (work / "conf" / "local").mkdir(parents=True)
    (work / "conf" / "local" / "default.yaml").write_text("# @package _global_\nseed: 3\n")
    assert "finished: digits-resnet20-ewgs-w2a2-sqakd" in run([str(commands / "sqakd-train"), *TINY], work)
    seed = work / "runs" / "debug" / "digits-resnet20-ewgs-w2a2-sqakd" / "seed3"
    record = json.loads((seed / "record.json").read_text())
    assert record["command"].split() == ["sqakd-train", *TINY]
    export = [str(commands / "sqakd-export"), f"run={seed}", "benchmark.rounds=0", "images=32", "gate=0"]
    run(export, work)
    from PIL import Image

    Image.new("RGB", (9, 7)).save(work / "image.png")
    assert "%" in run([str(commands / "sqakd-predict"), str(seed / "export-exact" / "model.onnx"), "image.png"], work)
    run([str(commands / "sqakd-report"), "--runs", "runs/debug"], work)
    assert (work / "results" / "report.html").exists()
    run([str(commands / "sqakd-dashboard"), "--offline", "--runs", "runs/debug"], work)
    code = "import sqakd; print(sqakd.__file__); sqakd.quantize; print(len(sqakd.library.presets.preset_names()))"
    assert run([str(commands / "python"), "-c", code], work).startswith(str(own))

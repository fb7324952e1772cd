"""Who may import whom; read from the source, so that a wrong arrow fails even where it is never executed."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "sqakd").rglob("*.py"))
SCRIPTS = sorted(ROOT.glob("*.py"))
PACKAGES = sorted(p.parent.name for p in (ROOT / "sqakd").glob("*/__init__.py"))
# Where words become objects: composing, training, what a sweep would do, and exporting.
ENTRANCE = {f"sqakd/{name}.py" for name in ("compose", "run", "forecast", "deploy")}
FOUR = ("models", "quantizers", "kd", "dataset")
# What one of the four may import of sqakd besides itself.
ALSO = {
    "models": set(),
    "quantizers": set(),
    "kd": {"sqakd.numbers"},
    "dataset": {"sqakd.numbers", "sqakd.randomness"},
}


def module_name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(source: str, package: str) -> set[str]:
    """Dotted names of everything a source text imports, at any depth; a name from a module counts as module.name.

    Args:
        source: Python text.
        package: where relative imports start, e.g. "sqakd.kd".
    """
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            found.update(f"{module}.{alias.name}" for alias in node.names)
    return found


def imports_of(file: Path) -> set[str]:
    name = module_name(file)
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    return imports(file.read_text(encoding="utf-8"), package)


def below(name: str, *roots: str) -> bool:
    """Whether a dotted name is one of the roots or inside one."""
    return any(name == root or name.startswith(f"{root}.") for root in roots)


def files_of(package: str) -> list[Path]:
    return sorted((ROOT / "sqakd" / package).rglob("*.py"))


def of_ours(file: Path) -> Iterator[str]:
    return (name for name in imports_of(file) if below(name, "sqakd"))


def relative(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def test_imports_are_seen_in_every_spelling() -> None:
    text = """
import sqakd.a, b.c as d
from sqakd import run
from sqakd.x import y as z
from . import near
from .inner import thing
from .. import above
from ..other import deep
def f():
    if True:
        import late
"""
    assert imports(text, "sqakd.kd") == {
        "sqakd.a",
        "b.c",
        "sqakd.run",
        "sqakd.x.y",
        "sqakd.kd.near",
        "sqakd.kd.inner.thing",
        "sqakd.above",
        "sqakd.other.deep",
        "late",
    }


def test_there_are_files_to_check() -> None:
    assert set(FOUR) <= set(PACKAGES)
    assert all(len(files_of(package)) >= 2 for package in FOUR)
    assert {"sqakd.run", "sqakd.task", "sqakd.layers", "sqakd.quantize"} <= {module_name(file) for file in FILES}
    assert "train.py" in {file.name for file in SCRIPTS}


@pytest.mark.parametrize("package", FOUR)
def test_models_quantizers_kd_and_dataset_stand_alone(package: str) -> None:
    wrong = {
        relative(file): sorted(
            name for name in of_ours(file) if not below(name, f"sqakd.{package}", *sorted(ALSO[package]))
        )
        for file in files_of(package)
    }
    assert {file: names for file, names in wrong.items() if names} == {}


@pytest.mark.parametrize("package", ["models", "quantizers", "kd"])
def test_no_lightning_in_the_parts(package: str) -> None:
    lightning = ("pytorch_lightning", "lightning", "lightning_fabric")
    assert [relative(f) for f in files_of(package) if any(below(n, *lightning) for n in imports_of(f))] == []


def test_hydra_stays_at_the_entrance() -> None:
    users = {relative(f) for f in FILES + SCRIPTS if any(below(n, "hydra", "omegaconf") for n in imports_of(f))}
    assert users == ENTRANCE | {file.name for file in SCRIPTS}


def test_layers_and_quantize_know_only_quantizers() -> None:
    packages = [f"sqakd.{package}" for package in PACKAGES]
    for name in ("layers", "quantize"):
        known = {n for n in of_ours(ROOT / "sqakd" / f"{name}.py") if below(n, *packages)}
        assert known, name
        assert {n for n in known if not below(n, "sqakd.quantizers")} == set(), name


def test_export_stands_on_layers_and_quantizers_alone() -> None:
    """It takes a network and images, whoever made them; of what trains it knows nothing."""
    known = ("layers", "quantize", "cost", "checkpoint", "files", "runs")
    allowed = ("sqakd.export", "sqakd.quantizers.base", *(f"sqakd.{name}" for name in known))
    wrong = {
        relative(file): sorted(name for name in of_ours(file) if name != "sqakd" and not below(name, *allowed))
        for file in files_of("export")
    }
    assert {file: names for file, names in wrong.items() if names} == {}


def test_predict_and_the_stopwatch_need_nothing_of_ours() -> None:
    """Predicting runs where only a runtime is installed; a runtime is measured without anything beside it."""
    assert set(of_ours(ROOT / "sqakd" / "predict.py")) == set()
    assert set(of_ours(ROOT / "sqakd" / "export" / "stopwatch.py")) == set()


def test_training_needs_no_exporter() -> None:
    """Its packages are an extra: only the entrance imports the export, and only when it is asked for."""
    users = {relative(f) for f in FILES if any(below(name, "sqakd.export") for name in imports_of(f))}
    assert {user for user in users if not user.startswith("sqakd/export/")} == {"sqakd/deploy.py"}
    tree = ast.parse((ROOT / "sqakd" / "deploy.py").read_text(encoding="utf-8"))
    top = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    assert not any((node.module or "").startswith("sqakd.export") for node in top)


def test_training_needs_no_dashboard() -> None:
    """Its package is an extra: one file imports it, which one entrance imports when there is a login."""
    users = {relative(f) for f in FILES + SCRIPTS if any(below(name, "wandb_workspaces") for name in imports_of(f))}
    assert users == {"sqakd/dashboard/workspace.py"}
    outside = {relative(f) for f in FILES + SCRIPTS if any(below(n, "sqakd.dashboard") for n in imports_of(f))}
    assert {user for user in outside if not user.startswith("sqakd/dashboard/")} == set()
    tree = ast.parse((ROOT / "sqakd" / "dashboard" / "__main__.py").read_text(encoding="utf-8"))
    top = {f"{node.module}.{a.name}" for node in tree.body if isinstance(node, ast.ImportFrom) for a in node.names}
    assert "sqakd.dashboard.page" in top
    assert "sqakd.dashboard.workspace" not in top


def test_nobody_imports_the_composition_root_but_the_scripts() -> None:
    users = {relative(f) for f in FILES + SCRIPTS if any(below(n, "sqakd.run") for n in imports_of(f))}
    assert users == {"train.py"}


def test_packages_re_export_nothing() -> None:
    inits = [file for file in FILES if file.name == "__init__.py"]
    assert len(inits) > len(FOUR)
    assert [relative(file) for file in inits if imports_of(file)] == []

"""Which room may import which. Imports are read from the source, so a wrong arrow fails even if it never runs."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted([*(ROOT / "sqakd").rglob("*.py"), *(ROOT / "hydra_plugins").rglob("*.py")])
SCRIPTS = sorted(ROOT.glob("*.py"))

GROUND = {"errors", "files", "numbers", "randomness"}
# For each room, the rooms or modules of sqakd that it may import besides itself. docs/architecture.md draws this table.
ROOMS: dict[str, set[str]] = {
    **{name: set() for name in sorted(GROUND)},
    "numbers": {"errors"},
    "predict": set(),
    "models": {"errors"},
    "quantization": GROUND,
    "kd": GROUND,
    "dataset": GROUND,
    "runs": GROUND | {"quantization.cost"},
    "training": GROUND | {"quantization", "kd", "dataset", "runs"},
    "report": GROUND | {"runs"},
    "dashboard": GROUND | {"runs", "report"},
    "export": GROUND | {"quantization", "runs", "report"},
    "app": {
        *GROUND,
        *("models", "quantization", "kd", "dataset", "runs", "training", "report", "dashboard", "export"),
    },
    "hydra_plugins": {"app", "runs"},
}
# Packages that only some rooms may import.
PACKAGES: dict[str, set[str]] = {
    "hydra": {"app", "hydra_plugins"},
    "omegaconf": {"app", "hydra_plugins"},
    "pytorch_lightning": {"dataset", "training", "app"},
    "lightning_fabric": {"training"},
    "wandb_workspaces": {"dashboard"},
    "onnxruntime": {"predict", "export"},
    "openvino": {"export"},
    "matplotlib": {"report", "export"},
}
# The report starts at once and runs where nothing is trained.
HEAVY = ("torch", "pytorch_lightning", "numpy")


def room_of(file: Path) -> str:
    """The first folder or file below sqakd, or hydra_plugins."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return parts[0] if parts[0] == "hydra_plugins" else parts[1]


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


def own_imports(file: Path) -> Iterator[str]:
    """Names below sqakd that a file imports, without that prefix."""
    return (name.partition(".")[2] for name in imports_of(file) if below(name, "sqakd") and name != "sqakd")


def relative(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def arrows() -> set[tuple[str, str]]:
    """(room, imported room) for every import in the package; rooms of the ground floor are one."""
    return {
        (room_of(file), "ground" if target in GROUND else target)
        for file in FILES
        for name in own_imports(file)
        if (target := name.partition(".")[0]) != room_of(file) and target in ROOMS
    }


def test_imports_are_found_in_every_spelling() -> None:
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


def test_every_file_is_in_a_room() -> None:
    assert {room_of(file) for file in FILES} - {"__init__"} == set(ROOMS)


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_a_room_imports_only_the_rooms_below_it(room: str) -> None:
    wrong = {
        relative(file): bad
        for file in FILES
        if room_of(file) == room
        and (bad := sorted(name for name in own_imports(file) if not below(name, room, *ROOMS[room], "__version__")))
    }
    assert wrong == {}


def test_the_rooms_have_no_circle() -> None:
    left = {room: {name.partition(".")[0] for name in below} for room, below in ROOMS.items()}
    while free := {room for room, targets in left.items() if not targets & left.keys()}:
        left = {room: targets for room, targets in left.items() if room not in free}
    # quantization.cost is below runs, and quantization imports the ground alone, so nothing may be left.
    assert left == {}


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_a_package_stays_in_its_rooms(package: str) -> None:
    users = {room_of(file) for file in FILES if any(below(name, package) for name in imports_of(file))}
    assert users <= PACKAGES[package]
    assert users


def test_the_report_imports_nothing_heavy_at_its_start() -> None:
    files = [file for file in FILES if room_of(file) == "report"]
    users = {relative(file) for file in files if any(below(name, *HEAVY) for name in imports_of(file))}
    assert users == set()


def test_a_runtime_is_measured_without_anything_beside_it() -> None:
    assert set(own_imports(ROOT / "sqakd" / "export" / "stopwatch.py")) == set()


def test_training_imports_no_exporter() -> None:
    """The exporter's packages are an extra, so app/export.py imports it only inside functions."""
    users = {relative(file) for file in FILES if any(below(name, "export") for name in own_imports(file))}
    assert {user for user in users if not user.startswith("sqakd/export/")} == {"sqakd/app/export.py"}
    tree = ast.parse((ROOT / "sqakd" / "app" / "export.py").read_text(encoding="utf-8"))
    top = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    assert not any((node.module or "").startswith("sqakd.export") for node in top)


def test_the_dashboard_imports_its_optional_package_late() -> None:
    users = {relative(file) for file in FILES if any(below(name, "wandb_workspaces") for name in imports_of(file))}
    assert users == {"sqakd/dashboard/workspace.py"}
    tree = ast.parse((ROOT / "sqakd" / "dashboard" / "__main__.py").read_text(encoding="utf-8"))
    top = {f"{node.module}.{a.name}" for node in tree.body if isinstance(node, ast.ImportFrom) for a in node.names}
    assert "sqakd.dashboard.workspace" not in top


def test_packages_re_export_nothing() -> None:
    inits = [file for file in FILES if file.name == "__init__.py"]
    assert len(inits) > 10
    assert [relative(file) for file in inits if imports_of(file)] == []

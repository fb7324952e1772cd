"""Tests of the imports between rooms. The source is parsed, so a wrong import fails even if it never runs."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted([*(ROOT / "sqakd").rglob("*.py"), *(ROOT / "hydra_plugins").rglob("*.py")])
SCRIPTS = sorted(ROOT.glob("*.py"))

GROUND = {
    *("advice", "errors", "face", "files", "image_files", "images", "interrupts", "model_file", "numbers"),
    *("randomness", "shipped", "sums", "terminal", "warning"),
}
# The rooms or modules of sqakd that each room may import besides itself. docs/architecture.md draws the imports.
ROOMS: dict[str, set[str]] = {
    **{name: set() for name in sorted(GROUND)},
    "advice": {"errors", "terminal"},
    "numbers": {"errors"},
    "files": {"errors"},
    "interrupts": {"advice", "errors", "files"},
    "image_files": {"images", "terminal"},
    # Not all of the ground floor: predict needs no other package than these files.
    "predict": {"errors", "face", "image_files", "images", "interrupts", "model_file", "terminal"},
    "models": {"errors", "numbers", "sums"},
    "quantization": GROUND,
    "kd": GROUND,
    "dataset": GROUND,
    "runs": GROUND | {"quantization.cost"},
    "training": GROUND | {"quantization", "kd", "dataset", "runs"},
    "report": GROUND | {"runs"},
    "dashboard": GROUND | {"runs", "report"},
    "export": GROUND | {"quantization", "runs", "report"},
    "allocation": GROUND | {"quantization", "runs"},
    "sensitivity": {"app", "face", "interrupts", "terminal"},
    "library": GROUND | {"allocation", "quantization", "kd", "dataset", "runs", "training", "export", "predict", "app"},
    "app": {
        *GROUND,
        *("allocation", "models", "quantization", "kd", "dataset", "runs", "training", "report", "dashboard", "export"),
    },
    "commands": {"app", "dashboard", "report", "predict", "sensitivity", "interrupts", "terminal"},
    "hydra_plugins": {"app", "interrupts", "runs"},
}
# Packages that only some rooms may import.
PACKAGES: dict[str, set[str]] = {
    "hydra": {"app", "hydra_plugins"},
    "omegaconf": {"app", "hydra_plugins"},
    "pytorch_lightning": {"dataset", "training", "app", "library"},
    "lightning_fabric": {"training"},
    "wandb_workspaces": {"dashboard"},
    "onnxruntime": {"predict", "export"},
    "openvino": {"export"},
    "matplotlib": {"report"},
    "scipy": {"allocation"},
}
# The report must start fast and run on machines without these packages.
HEAVY = ("torch", "pytorch_lightning", "numpy")


def room_of(file: Path) -> str:
    """Return the name of the first folder or file below sqakd, or hydra_plugins."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return parts[0] if parts[0] == "hydra_plugins" else parts[1]


def module_name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(source: str, package: str) -> set[str]:
    """Return the dotted names that a source text imports, also inside functions.

    `from module import name` counts as module.name.

    Args:
        source: Python text.
        package: package of the file, where relative imports start, e.g. "sqakd.kd".
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
    """Return whether a dotted name is one of the roots or inside one."""
    return any(name == root or name.startswith(f"{root}.") for root in roots)


def own_imports(file: Path) -> Iterator[str]:
    """Yield the names below sqakd that a file imports, without that prefix."""
    return (name.partition(".")[2] for name in imports_of(file) if below(name, "sqakd") and name != "sqakd")


def relative(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def arrows() -> set[tuple[str, str]]:
    """Return (room, imported room) for every import; the rooms of the ground floor count as one."""
    names = {room: "ground" if room in GROUND else room for room in ROOMS}
    ends = {(room_of(file), name.partition(".")[0]) for file in FILES for name in own_imports(file)}
    drawn = {(names[room], names[target]) for room, target in ends if room in names and target in names}
    return {(room, target) for room, target in drawn if room != target}


def test_every_form_of_import_is_found() -> None:
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


def test_every_file_belongs_to_a_listed_room() -> None:
    assert {room_of(file) for file in FILES} - {"__init__"} == set(ROOMS)


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_room_imports_only_allowed_rooms(room: str) -> None:
    wrong = {
        relative(file): bad
        for file in FILES
        if room_of(file) == room
        and (bad := sorted(name for name in own_imports(file) if not below(name, room, *ROOMS[room], "__version__")))
    }
    assert wrong == {}


def test_allowed_imports_have_no_cycle() -> None:
    left = {room: {name.partition(".")[0] for name in below} for room, below in ROOMS.items()}
    while free := {room for room, targets in left.items() if not targets & left.keys()}:
        left = {room: targets for room, targets in left.items() if room not in free}
    # quantization.cost is below runs, and quantization imports only the ground floor, so no room may be left.
    assert left == {}


def test_diagram_shows_exactly_the_imports() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    diagram = re.search(r"^```mermaid\nflowchart TB\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert diagram
    drawn, nodes = set(), set()
    for line in diagram[1].splitlines():
        source, _, targets = (part.strip() for part in line.partition("-->"))
        ends = {target.strip() for target in targets.split("&") if targets}
        nodes |= {source} | ends
        drawn |= {(source, end) for end in ends}
    assert drawn == arrows()
    assert nodes == ROOMS.keys() - GROUND | {"ground"}


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_package_is_imported_only_in_its_rooms(package: str) -> None:
    users = {room_of(file) for file in FILES if any(below(name, package) for name in imports_of(file))}
    assert users <= PACKAGES[package]
    assert users


def test_report_imports_no_heavy_package() -> None:
    files = [file for file in FILES if room_of(file) == "report"]
    users = {relative(file) for file in files if any(below(name, *HEAVY) for name in imports_of(file))}
    assert users == set()


def test_predict_needs_only_three_packages() -> None:
    """An exported model is used on machines without torch."""
    names = {"predict", "advice", "files"} | ROOMS["predict"]
    files = [ROOT / "sqakd" / f"{name}.py" for name in sorted(names)]
    packages = {name.partition(".")[0] for file in files for name in imports_of(file)} - {"sqakd"}
    assert packages - sys.stdlib_module_names == {"onnxruntime", "numpy", "PIL"}


def test_stopwatch_imports_nothing_of_this_project() -> None:
    assert set(own_imports(ROOT / "sqakd" / "export" / "stopwatch.py")) == set()


def test_the_exporter_is_imported_by_two_files_and_only_inside_functions() -> None:
    """The packages that the exporter needs are an extra, so training must not import them."""
    users = {relative(file) for file in FILES if any(below(name, "export") for name in own_imports(file))}
    assert {user for user in users if not user.startswith("sqakd/export/")} == {
        "sqakd/app/export.py",
        "sqakd/library/exporting.py",
    }
    for file in ("app/export.py", "library/exporting.py"):
        tree = ast.parse((ROOT / "sqakd" / file).read_text(encoding="utf-8"))
        top = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
        assert not any((node.module or "").startswith("sqakd.export") for node in top)


def test_dashboard_imports_its_optional_package_inside_functions() -> None:
    users = {relative(file) for file in FILES if any(below(name, "wandb_workspaces") for name in imports_of(file))}
    assert users == {"sqakd/dashboard/workspace.py"}
    tree = ast.parse((ROOT / "sqakd" / "dashboard" / "__main__.py").read_text(encoding="utf-8"))
    top = {f"{node.module}.{a.name}" for node in tree.body if isinstance(node, ast.ImportFrom) for a in node.names}
    assert "sqakd.dashboard.workspace" not in top


def test_only_commands_import_the_advice() -> None:
    """A library that gives command-line advice would have to know how it is called."""
    users = {file for file in FILES if any(below(name, "advice", "interrupts") for name in own_imports(file))}
    users = {file for file in users if room_of(file) not in ("commands", "interrupts", "hydra_plugins")}
    library = {file for file in users if room_of(file) != "app" and "def main(" not in file.read_text(encoding="utf-8")}
    assert {relative(file) for file in library} == set()


def test_ctrl_c_is_handled_before_any_package_is_imported() -> None:
    files = [ROOT / "sqakd" / f"{name}.py" for name in ("interrupts", "advice", "errors", "files", "terminal")]
    packages = {name.partition(".")[0] for file in files for name in imports_of(file)} - {"sqakd"}
    assert packages <= sys.stdlib_module_names
    for script in ("train.py", "export.py"):
        tree = ast.parse((ROOT / script).read_text(encoding="utf-8"))
        assert [node.module for node in tree.body if isinstance(node, ast.ImportFrom)][1] == "sqakd.interrupts"


def test_packages_re_export_nothing() -> None:
    inits = [file for file in FILES if file.name == "__init__.py"]
    assert len(inits) > 10
    # The face imports the names behind it when they are used, and type checkers see them.
    assert [relative(file) for file in inits if imports_of(file)] == ["sqakd/__init__.py", "sqakd/export/__init__.py"]
    tree = ast.parse((ROOT / "sqakd" / "__init__.py").read_text(encoding="utf-8"))
    top = [node.module for node in tree.body if isinstance(node, ast.ImportFrom)]
    assert top == ["__future__", "typing", "sqakd.face"]


def handlers(tree: ast.Module) -> Iterator[ast.ExceptHandler]:
    """Yield the handlers that catch errors of a mistake in our code as well."""
    wide = {"Exception", "BaseException", "ValueError", "KeyError", "TypeError", "AttributeError", "IndexError"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            caught = {name.id for name in ast.walk(node.type) if isinstance(name, ast.Name)} if node.type else wide
            if caught & wide:
                yield node


# Handlers around a single call of a parser, a function of another library, or text that somebody else wrote.
SMALL = 10


def test_mistakes_in_the_code_are_not_reported_as_a_user_s() -> None:
    """A wide handler stands around few lines, or a comment gives the reason."""
    unexplained = []
    for file in FILES:
        text = file.read_text(encoding="utf-8")
        tree = ast.parse(text)
        tries = {handler: node for node in ast.walk(tree) if isinstance(node, ast.Try) for handler in node.handlers}
        for handler in handlers(tree):
            around = tries[handler].body
            length = (around[-1].end_lineno or 0) - around[0].lineno + 1
            everything = handler.type is None or "Exception" in re.findall(r"\w+", ast.unparse(handler.type))
            near = text.splitlines()[handler.lineno - 1 : handler.body[0].lineno]
            if (length > SMALL or everything) and not any("#" in line for line in near):
                unexplained.append(f"{relative(file)}:{handler.lineno}")
    assert unexplained == []

"""What lies in a folder: the digest of each file, by which changes and leftovers are seen."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path

from tests.reliability.case import Fault

# Locks are empty, have no meaning without a process, and are made by any command that only looks whether one is held.
LARGEST = 10**9  # bytes of a file that is read to compare it
IGNORED = (".lock",)


def snapshot(folder: Path) -> dict[str, str]:
    """Return {path below the folder: digest}; a folder has the digest "folder", a link its target."""
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"link {path.readlink()}"
        elif path.is_dir():
            found[name] = "folder"
        elif path.is_file() and path.stat().st_size > LARGEST:
            found[name] = f"{path.stat().st_size} bytes"
        elif path.is_file():
            found[name] = hashlib.file_digest(path.open("rb"), "sha256").hexdigest()
        else:
            found[name] = "special"
    return found


def changed(before: dict[str, str], after: dict[str, str], *, allowed: Collection[str] = ()) -> list[str]:
    """Return the paths that were there before and are gone or different; `allowed` are beginnings of paths."""
    paths = [path for path, digest in before.items() if after.get(path) != digest]
    return [path for path in paths if not path.startswith(tuple(allowed))] if allowed else paths


def added(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Return the paths that are new."""
    return [path for path in after if path not in before and not path.endswith(IGNORED)]


def judge_refused(before: dict[str, str], after: dict[str, str]) -> list[tuple[Fault, str]]:
    """Return the faults in what a refused command left: it must change nothing and leave nothing under runs."""
    lost, new = changed(before, after), added(before, after)
    faults = [(Fault.LOST, f"changed: {', '.join(lost[:3])}")] if lost else []
    # A cache of decoded images is complete and of use to the corrected command, and a sweep keeps a log of what it was
    # asked for; everything else is a leftover.
    logged = {path for path in new if f"{path}/".startswith("runs/.sweeps/")}
    new = [path for path in new if path not in logged and not (path == "runs" and logged)]
    left = [path for path in new if not f"{path}/".startswith("data/") or temporary(path)]
    return [*faults, *([(Fault.LEFT, f"left: {', '.join(left[:4])}")] if left else [])]


def judge_accepted(
    before: dict[str, str], after: dict[str, str], *, rewritten: Collection[str] = ()
) -> list[tuple[Fault, str]]:
    """Return the faults in what an accepted command did: no earlier file is changed, and no temporary file stays."""
    lost = changed(before, after, allowed=rewritten)
    faults = [(Fault.LOST, f"changed: {', '.join(lost[:3])}")] if lost else []
    left = [path for path in added(before, after) if temporary(path) and after[path] != "folder"]
    return [*faults, *([(Fault.LEFT, f"left: {', '.join(left[:4])}")] if left else [])]


def temporary(path: str) -> bool:
    """Return whether a path is that of a file that is being written."""
    return path.endswith((".part", ".tmp")) or (path.rpartition("/")[2].startswith(".") and ".part" in path)

"""The one listing of image files: training and `sqakd.predict` find the same files below a folder.

Every entry of a folder is either an image or left out for a reason that is reported, so no file disappears silently.
Symbolic links to folders and to files are followed alike. A link to one of its own parent folders is not followed,
because the walk would never end.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from sqakd.images import SUFFIXES
from sqakd.terminal import printable

# Formats that only some installations of pillow can decode: AVIF needs libavif, HEIC a plugin.
OPTIONAL = {".avif", ".heic", ".heif", ".hif"}
# Formats of photographs and drawings that are never decoded here.
OTHER_FORMATS = {
    *(".arw", ".cr2", ".cr3", ".dng", ".eps", ".ico", ".j2k", ".jp2", ".jxl", ".nef", ".orf", ".pcx", ".psd", ".raf"),
    *(".raw", ".rw2", ".svg", ".tga", ".xcf"),
}
# Made by operating systems, file servers and notebooks, also inside folders of images. In lower case.
TOOLS = {
    *("__macosx", "__pycache__", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "#recycle", "$recycle.bin"),
    *("lost+found", "system volume information"),
}
HIDDEN = "hidden or made by a tool"
NO_FORMAT = "not an image format"
UNSUPPORTED = "in an image format that cannot be read here"
BROKEN = "broken link"
LOOP = "link to one of its own parent folders"
SPECIAL = "not a regular file"
BY_SUFFIX = (NO_FORMAT, UNSUPPORTED)  # reasons that are reported with suffixes instead of names

LeftOut = Mapping[str, Sequence[Path]]  # files and folders by the reason why they are left out


@dataclass(frozen=True)
class Files:
    """The content of a folder.

    Attributes:
        files: each file's path and status, in the order of a walk.
        folders: names of the folders directly inside, without those that are left out.
        left_out: hidden entries, broken links and the like, by the reason.
    """

    files: list[tuple[Path, os.stat_result]] = field(default_factory=list)
    folders: set[str] = field(default_factory=set)
    left_out: dict[str, list[Path]] = field(default_factory=dict)


@dataclass(frozen=True)
class ImageFiles:
    """The images in a folder.

    Attributes:
        images: paths of the images, sorted.
        facts: each image's size in bytes and time of its last change in nanoseconds, as the walk found them.
        folders: names of the folders directly inside, without those that are left out.
        left_out: all other entries, by the reason.
    """

    images: list[Path] = field(default_factory=list)
    facts: dict[Path, tuple[int, int]] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    left_out: dict[str, list[Path]] = field(default_factory=dict)


def list_files(folder: Path, *, deep: bool = True) -> Files:
    """List the files in a folder, and everything that is left out whatever its name.

    Args:
        folder: must exist.
        deep: whether to list the folders inside too.

    Raises:
        OSError: if a folder cannot be read.
    """
    found = Files()

    def walk(place: Path, parents: frozenset[tuple[int, int]]) -> None:
        for path in sorted(place.iterdir()):
            entry = _classify(path, parents)
            if isinstance(entry, str):
                found.left_out.setdefault(entry, []).append(path)
            elif stat.S_ISREG(entry.st_mode):
                found.files.append((path, entry))
            else:
                if place == folder:
                    found.folders.add(path.name)
                if deep:
                    walk(path, parents | {_identity(entry)})

    walk(folder, frozenset({_identity(folder.stat())}))
    return found


def list_images(folder: Path, *, deep: bool = True) -> ImageFiles:
    """List the images in a folder, and everything that is left out.

    Args:
        folder: must exist.
        deep: whether to list the folders inside too.

    Raises:
        OSError: if a folder cannot be read.
    """
    found = list_files(folder, deep=deep)
    images = ImageFiles(folders=found.folders, left_out=found.left_out)
    for path, status in found.files:
        reason = reason_against(path.name)
        if reason is None:
            images.images.append(path)
            images.facts[path] = status.st_size, status.st_mtime_ns
        else:
            images.left_out.setdefault(reason, []).append(path)
    images.images.sort()
    return images


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is hidden or made by a tool, judged by its name.

    Example:
        >>> is_hidden(".git"), is_hidden("Thumbs.db"), is_hidden("cat.jpg")
        (True, True, False)
    """
    return name.startswith(".") or name.lower() in TOOLS


def reason_against(name: str) -> str | None:
    """Return why a file of this name is left out, or None if the name is that of an image.

    Example:
        >>> reason_against("a.JPG"), reason_against("a.txt"), reason_against("._a.jpg")
        (None, 'not an image format', 'hidden or made by a tool')
    """
    if is_hidden(name):
        return HIDDEN
    suffix = Path(name).suffix.lower()
    if suffix in SUFFIXES or (suffix in OPTIONAL and Image.registered_extensions().get(suffix) in Image.OPEN):
        return None
    return UNSUPPORTED if suffix in OPTIONAL | OTHER_FORMATS else NO_FORMAT


def left_out_text(left_out: LeftOut) -> str:
    """Return what is left out, counted by reason, in one line of printable characters.

    Example:
        >>> left_out_text({NO_FORMAT: [Path("a.txt"), Path("b.csv")], HIDDEN: [Path("train/.git")]})
        '3 left out: 2 not an image format (.csv, .txt), 1 hidden or made by a tool (.git)'
    """
    parts = []
    for reason, paths in left_out.items():
        if reason in BY_SUFFIX:
            names = sorted({path.suffix.lower() or "no suffix" for path in paths})
        else:
            names = sorted({path.name for path in paths})
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        parts.append(f"{len(paths)} {reason} ({', '.join(names[:3])}{more})")
    return printable(f"{sum(map(len, left_out.values()))} left out: {', '.join(parts)}")


def _classify(path: Path, parents: frozenset[tuple[int, int]]) -> os.stat_result | str:
    """Return the status of an entry, that of its target if it is a link, or the reason why it is left out.

    Args:
        path: of a file or folder.
        parents: identities of the folders that contain it.
    """
    if is_hidden(path.name):
        return HIDDEN
    try:
        status = path.stat()
    except OSError:
        if path.is_symlink():
            return BROKEN
        raise
    if stat.S_ISDIR(status.st_mode):
        return LOOP if _identity(status) in parents else status
    return status if stat.S_ISREG(status.st_mode) else SPECIAL


def _identity(status: os.stat_result) -> tuple[int, int]:
    """Return what identifies a folder, whatever the path that leads there."""
    return status.st_dev, status.st_ino

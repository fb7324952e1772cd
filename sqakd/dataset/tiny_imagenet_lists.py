"""The classes and files of Tiny-ImageNet, read from its lists and compared with the images that exist."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection
from pathlib import Path

from sqakd.dataset.decoded import UNREADABLE
from sqakd.dataset.errors import DataError
from sqakd.dataset.tree import Tree
from sqakd.errors import some
from sqakd.image_files import reason_against

ANNOTATIONS = "val/val_annotations.txt"
OUTSIDE = "outside train/ and val/"
ELSEWHERE = "not at train/WNID/images/*.JPEG or val/images/*.JPEG"
LAYOUT = f"wnids.txt, words.txt, train/WNID/images/*.JPEG, {ANNOTATIONS} and val/images/*.JPEG"


def read_wnids(tree: Tree) -> list[str]:
    """Return the classes' WordNet IDs in sorted order, so that their positions are the class indices.

    Raises:
        DataError: if the list is missing, empty, or names a class twice.
    """
    listed = [line.strip() for line in _lines(tree, "wnids.txt") if line.strip()]
    twice = [wnid for wnid, count in Counter(listed).items() if count > 1]
    if twice or not listed:
        problem = f"lists {some(twice)} more than once" if twice else "is empty"
        raise DataError(f"{tree.path('wnids.txt')} {problem}; expected each class's WordNet ID on a line of its own")
    return sorted(listed)


def read_names(tree: Tree, wnids: list[str]) -> list[str]:
    """Return the first name of each class.

    Raises:
        DataError: if a class has no name.
    """
    names = dict(line.split("\t", 1) for line in _lines(tree, "words.txt") if "\t" in line)
    unnamed = [wnid for wnid in wnids if wnid not in names]
    if unnamed:
        raise DataError(f"{tree.path('words.txt')} has no names for {some(unnamed)}; expected WNID <tab> names")
    return [names[wnid].split(",")[0].strip() for wnid in wnids]


def train_files(tree: Tree, wnids: list[str]) -> dict[str, str]:
    """Return the class of each training image, by path, in the order of the classes.

    Raises:
        DataError: if the class folders are not those of `wnids`, or if a class has no image.
    """
    found: dict[str, list[str]] = {}
    for name in tree.facts:
        part, *inside = name.split("/")
        if part == "train" and len(inside) > 1:
            files = found.setdefault(inside[0], [])
            if len(inside) == 3 and inside[1] == "images" and _is_image(inside[2]):
                files.append(name)
    unknown = sorted(set(found) - set(wnids))
    if unknown:
        raise DataError(
            f"{tree.path('train')} has class folders that wnids.txt does not list: {some(unknown)}",
            topic="tiny_imagenet.unlisted",
        )
    empty = [wnid for wnid in wnids if not found.get(wnid)]
    if empty:
        raise DataError(
            f"{tree.path('train')} has no images of {some(empty)}, which wnids.txt lists: expected"
            f" train/{empty[0]}/images/*.JPEG"
        )
    return {name: wnid for wnid in wnids for name in sorted(found[wnid])}


def val_files(tree: Tree, wnids: list[str]) -> dict[str, str]:
    """Return the class of each validation image, by path, in the order of the names.

    Raises:
        DataError: if a line of the annotations is wrong, or if annotations and images are not the same set.
    """
    where, images = tree.path(ANNOTATIONS), "val/images/"
    known, wnid_of = set(wnids), dict[str, str]()
    for number, line in enumerate(_lines(tree, ANNOTATIONS), 1):
        if not line.strip():
            continue
        file, *rest = line.split("\t")
        if not rest or rest[0] not in known:
            problem = f"names the class {rest[0]!r}, which wnids.txt does not list" if rest else "names no class"
            raise DataError(f"line {number} of {where} {problem}; expected file <tab> WNID: {line!r}")
        if file in wnid_of:
            raise DataError(f"line {number} of {where} names {file} again; expected one line for each image")
        wnid_of[file] = rest[0]
    existing = {n.removeprefix(images) for n in tree.facts if n.startswith(images)}
    existing = {name for name in existing if "/" not in name and _is_image(name)}
    lost, unnamed = sorted(set(wnid_of) - existing), sorted(existing - set(wnid_of))
    if lost:
        raise DataError(f"{where} names {len(lost)} image(s) that are not in {tree.path('val/images')}: {some(lost)}")
    if unnamed:
        raise DataError(f"{where} has no line for {len(unnamed)} image(s) in val/images: {some(unnamed)}")
    return {f"{images}{file}": wnid_of[file] for file in sorted(wnid_of)}


def left_out(tree: Tree, used: Collection[str]) -> dict[str, list[Path]]:
    """Return everything that is neither one of the `used` images nor a list of the data set, by the reason.

    A folder outside train/ and val/, such as test/, counts as one.
    """
    found = {reason: list(paths) for reason, paths in tree.left_out.items()}
    folders = sorted({name.split("/")[0] for name in tree.facts if "/" in name} - {"train", "val"})
    if folders:
        found[OUTSIDE] = [Path(name) for name in folders]
    images = set(used)
    for name in sorted(tree.facts):
        is_list = name in ("wnids.txt", "words.txt", ANNOTATIONS) or name.endswith("_boxes.txt")
        if name not in images and not is_list and name.split("/")[0] not in folders:
            found.setdefault(reason_against(name.split("/")[-1]) or ELSEWHERE, []).append(Path(name))
    return found


def digest(tree: Tree) -> str:
    """Return a digest of the lists of classes and labels, and of the names and sizes of all images.

    Raises:
        DataError: if a list cannot be read.
    """
    found = hashlib.sha256()
    for name in sorted(tree.facts):
        folder, _, file = name.rpartition("/")
        if name in ("wnids.txt", ANNOTATIONS):
            value = "\n".join(_lines(tree, name))
        elif name.startswith(("train/", "val/")) and folder.endswith("/images") and _is_image(file):
            value = str(tree.facts[name][0])
        else:
            continue
        found.update(f"{name}\0{value}\n".encode(errors="surrogateescape"))
    return found.hexdigest()


def _lines(tree: Tree, name: str) -> list[str]:
    """Return the lines of a text file.

    Raises:
        DataError: if the file is missing or cannot be read.
    """
    if name not in tree.facts:
        raise DataError(f"{tree.path(name)} is missing; expected {LAYOUT}")
    try:
        return tree.read(name).decode("utf-8", errors="replace").splitlines()
    except UNREADABLE as error:
        raise DataError(f"{tree.path(name)} cannot be read: {error}") from error


def _is_image(name: str) -> bool:
    """Return whether a file name is that of an image. Hidden files, such as ._name.JPEG, are not in a tree."""
    return name.lower().endswith((".jpeg", ".jpg"))

"""The layout of a user's folder of images: which files are for training, for validation, or for neither.

    train/CLASS/IMAGE and val/CLASS/IMAGE     labelled
    train/IMAGE and val/IMAGE                 unlabelled
    IMAGE                                     unlabelled, without validation images

`valid/` and `validation/` are other names of `val/`. Files in other places are left out and reported, such as
those in `test/`. A folder that cannot be understood in only one way is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sqakd.dataset.errors import DataError
from sqakd.image_files import BROKEN, HIDDEN, UNSUPPORTED, ImageFiles, left_out_text, list_images

LAYOUTS = "train/CLASS/IMAGE and val/CLASS/IMAGE (labelled), train/IMAGE and val/IMAGE, or IMAGE (unlabelled)"
TRAIN = "train"
VALIDATION = ("val", "valid", "validation")
OUTSIDE = "outside train/ and the validation folder"
BELOW = "subfolder(s)"


@dataclass(frozen=True)
class Layout:
    """The files of a folder of images.

    Attributes:
        train: training images, sorted.
        val: validation images, sorted; empty if some of the training images have to be held out.
        classes: sorted names of the classes; empty for unlabelled images.
        left_out: files and folders that are not used, by the reason.
        facts: size and time of each image, see `ImageFiles`.
    """

    train: list[Path]
    val: list[Path]
    classes: list[str] = field(default_factory=list)
    left_out: dict[str, list[Path]] = field(default_factory=dict)
    facts: dict[Path, tuple[int, int]] = field(default_factory=dict)


def read_layout(folder: Path) -> Layout:
    """List the images of a folder and decide about their parts and classes. No image is opened.

    Raises:
        DataError: if the folder is missing or cannot be read, or has none of the layouts.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; expected {LAYOUTS}", topic="data.folder")
    try:
        top = list_images(folder, deep=False)
        name = _validation_folder(folder, top)
        train = list_images(folder / TRAIN) if TRAIN in top.folders else ImageFiles()
        val = list_images(folder / name) if name else ImageFiles()
    except OSError as error:
        raise DataError(f"cannot list the images in {folder}: {error}", topic="data.folder") from error
    for part, inside in ((TRAIN, train), (name, val)):
        if not inside.images and (unused := _visible(inside)):
            raise DataError(f"{folder / str(part)} has no image that can be read: {left_out_text(unused)}")
    if not train.images:
        return _flat(folder, top, val)
    if not val.images and len(train.images) < 2:
        raise DataError(f"found one training image and no validation image in {folder}; expected {LAYOUTS}")
    others = [folder / other for other in sorted(top.folders - {TRAIN, name})]
    others += [*top.images, *top.left_out.pop(UNSUPPORTED, [])]
    left_out = _merged(top, train, val, ImageFiles(left_out={OUTSIDE: others} if others else {}))
    classes = _class_names(folder, train, val, str(name))
    return Layout(train.images, val.images, classes, left_out, {**train.facts, **val.facts})


def _validation_folder(folder: Path, top: ImageFiles) -> str | None:
    """Return the name of the validation folder, or None if there is none.

    Raises:
        DataError: if there are several, if one is a broken link, or if a folder has almost the right name.
    """
    for path in top.left_out.get(BROKEN, []):
        if path.name in (TRAIN, *VALIDATION):
            raise DataError(f"{path} is a broken link; expected a folder of images")
    meant = {"training": TRAIN, TRAIN: TRAIN, **dict.fromkeys(VALIDATION, "val")}
    for name in sorted(top.folders - {TRAIN, *VALIDATION}):
        if right := meant.get(name.lower()):
            raise DataError(f"{folder / name}: expected the name {right} for this folder", topic="data.spelling")
    found = [name for name in VALIDATION if name in top.folders]
    if len(found) > 1:
        raise DataError(f"{folder} has {' and '.join(f'{name}/' for name in found)}; expected one validation folder")
    return found[0] if found else None


def _flat(folder: Path, top: ImageFiles, val: ImageFiles) -> Layout:
    """Return the layout of a folder without training images in train/.

    Raises:
        DataError: if there are fewer than two images, or validation images without a place for training images.
    """
    if val.images:
        raise DataError(
            f"found no training images and {len(val.images)} validation images in {folder}; expected {LAYOUTS}"
        )
    folders = [folder / name for name in sorted(top.folders)]
    inside = _count_images(folders)
    below = f"{BELOW} with {inside} image(s)" if inside else BELOW
    left_out = _merged(top, ImageFiles(left_out={below: folders} if folders else {}))
    if len(top.images) < 2:
        besides = f" ({left_out_text(left_out)})" if left_out else ""
        advice = f"; folders of classes belong in {folder / TRAIN}" if inside else ""
        raise DataError(f"found {len(top.images)} images in {folder}{besides}; expected {LAYOUTS}{advice}")
    return Layout(top.images, [], [], left_out, top.facts)


def _count_images(folders: list[Path]) -> int:
    """Return the number of images below folders that are left out; 0 if one of them cannot be listed."""
    try:
        return sum(len(list_images(folder).images) for folder in folders)
    except OSError:  # nothing in them is needed
        return 0


def _class_names(folder: Path, train: ImageFiles, val: ImageFiles, val_name: str) -> list[str]:
    """Return the sorted names of the class folders; none if all training images lie directly in train/.

    Raises:
        DataError: if an image is in no class folder, or if a class has no training image.
    """
    if all(path.parent == folder / TRAIN for path in train.images):
        return []
    for part, inside in ((TRAIN, train), (val_name, val)):
        loose = [path for path in inside.images if path.parent == folder / part]
        if loose:
            raise DataError(f"{loose[0]} is in no class folder, but other images are; expected {LAYOUTS}")
    _refuse_empty(folder / TRAIN, train, train.folders)
    held = {path.relative_to(folder / val_name).parts[0] for path in val.images}
    if unknown := sorted(held - train.folders):
        names = ", ".join(sorted(train.folders))
        raise DataError(f"{val_name}/ has classes that train/ does not have: {', '.join(unknown)}; train/ has {names}")
    # A class may have no validation image, but then its folder must not hold files that look like some.
    unread = {path.relative_to(folder / val_name).parts[0] for path in val.left_out.get(UNSUPPORTED, [])}
    _refuse_empty(folder / val_name, val, unread & val.folders)
    return sorted(train.folders)


def _refuse_empty(place: Path, inside: ImageFiles, classes: set[str]) -> None:
    """Refuse classes without an image.

    Args:
        place: train/ or the validation folder.
        inside: the files there.
        classes: names of the class folders to check.

    Raises:
        DataError: naming the classes, and what their folders hold instead.
    """
    empty = classes - {path.relative_to(place).parts[0] for path in inside.images}
    if empty:
        held = {
            reason: found
            for reason, paths in inside.left_out.items()
            if (found := [path for path in paths if path.relative_to(place).parts[0] in empty])
        }
        besides = f" ({left_out_text(held)})" if held else ""
        raise DataError(f"class folder(s) without images in {place}: {', '.join(sorted(empty))}{besides}")


def _visible(inside: ImageFiles) -> dict[str, list[Path]]:
    """Return what is left out of a folder, without hidden files."""
    return {reason: paths for reason, paths in inside.left_out.items() if reason != HIDDEN}


def _merged(*parts: ImageFiles) -> dict[str, list[Path]]:
    """Return what is left out of several folders, by the reason."""
    merged: dict[str, list[Path]] = {}
    for part in parts:
        for reason, paths in part.left_out.items():
            merged.setdefault(reason, []).extend(paths)
    return merged

"""Classification of image files with an exported model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqakd.numbers import check_whole
from sqakd.predict import Model, find
from sqakd.predict import predict as predict_files

Paths = str | Path | Sequence[str | Path]


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The classification of one image file.

    Attributes:
        file: the image.
        label: name of the most probable class, or "class NUMBER" if the model has no names; None for an unreadable
            file.
        probability: of that class, 0 to 1.
        probabilities: of all classes, in the order of the logits.
        problem: why the file cannot be read; None if it can be.
    """

    file: Path
    label: str | None = None
    probability: float = 0.0
    probabilities: tuple[float, ...] = ()
    problem: str | None = None


def predict(model: str | Path, images: Paths, *, batch: int = 32) -> list[Prediction]:
    """Classify image files with an exported model, as `python -m sqakd.predict` does.

    The images may have any size. The file knows the size and the normalisation that its network needs.

    Args:
        model: model.onnx, written by `export` or export.py, or the folder with this file.
        images: image files, or folders of images.
        batch: images that are processed together.

    Returns:
        One entry for each image, in the order of the arguments. An unreadable image has a `problem` instead of a label.

    Raises:
        SqakdError: if the model is missing, damaged or of another program, or a folder has no image.

    Example:
        >>> predict("nowhere.onnx", "photo.png")
        Traceback (most recent call last):
            ...
        sqakd.predict.PredictError: no file nowhere.onnx; expected the model.onnx that export.py wrote
    """
    check_whole("batch", batch)
    opened = Model(Path(model))
    paths = [Path(path) for path in ([images] if isinstance(images, str | Path) else images)]
    made = []
    for found, answer in predict_files(opened, find(paths), batch=batch):
        if isinstance(answer, str):
            made.append(Prediction(file=found, problem=answer))
            continue
        best = int(answer.argmax())
        row = tuple(map(float, answer))
        made.append(Prediction(file=found, label=opened.name(best), probability=row[best], probabilities=row))
    return made

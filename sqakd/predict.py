"""Classification of images with an exported model; this program needs only onnxruntime, numpy and pillow.

    python -m sqakd.predict model.onnx IMAGE_OR_FOLDER... [--top 3] [--batch 32]

Images of any size and format are brought to the network's size as in evaluation: the shorter side is scaled to the
network's height (plus the margin used in evaluation), and the centre is cropped. Transparent pixels become black. The
model's metadata contains what is needed for this, and the names of the classes. An image that cannot be read is
reported and skipped, and the exit status is then 1.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image, ImageOps

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"}
UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
BAR = 30


class Model:
    """An exported file, ready to run.

    Args:
        file: ONNX file, written by export.py.

    Raises:
        ValueError: if the file is missing, damaged, or not written by export.py.
    """

    def __init__(self, file: Path) -> None:
        if not file.is_file():
            raise ValueError(f"no file {file}; expected the model.onnx that export.py wrote")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        try:
            self.session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime's errors have no common base class
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise ValueError(f"{file} cannot be opened as an ONNX model ({reason}); it may be damaged") from error
        text = self.session.get_modelmeta().custom_metadata_map.get("sqakd")
        if text is None:
            raise ValueError(f"{file} was not written by export.py: its metadata does not describe its images")
        self.facts: dict[str, Any] = json.loads(text)
        self.input = self.session.get_inputs()[0].name

    def prepare(self, file: Path) -> NDArray[np.uint8]:
        """Return the pixels [3, H, W] of one image file, resized and cropped as in evaluation."""
        _, height, width = self.facts["image_shape"]
        with Image.open(file) as opened:
            image = ImageOps.exif_transpose(opened)
            if image.has_transparency_data:
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image)
            rgb = image.convert("RGB")
        margin = self.facts["resize"]["margin"]
        fitted = ImageOps.fit(rgb, (width + margin, height + margin), method=Image.Resampling.BILINEAR)
        left, top = round(margin / 2), round(margin / 2)
        cropped = fitted.crop((left, top, left + width, top + height))
        return np.ascontiguousarray(np.asarray(cropped, dtype=np.uint8).transpose(2, 0, 1))

    def probabilities(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return the probabilities [N, classes] of pixels [N, 3, H, W]; each row sums to 1."""
        batch: NDArray[Any] = pixels
        if not self.facts["preprocess"]:
            mean, std = (np.array(self.facts[key], np.float32)[:, None, None] for key in ("mean", "std"))
            batch = ((pixels / np.float32(255) - mean) / std).astype(np.float32)
        logits = self.session.run(None, {self.input: batch})[0].astype(np.float64)
        # Subtracting the largest logit does not change the softmax and keeps the exponentials from overflowing.
        raised = np.exp(logits - logits.max(axis=1, keepdims=True))
        result: NDArray[np.float64] = raised / raised.sum(axis=1, keepdims=True)
        return result

    def name(self, index: int) -> str:
        """Return the name of a class, or its number if the file has no names."""
        names = self.facts["classes"]
        return names[index] if index < len(names) else f"class {index}"


def find(paths: list[Path]) -> list[Path]:
    """Return the given files, and all images below the given folders.

    Raises:
        ValueError: if a folder contains no image.
    """
    found: list[Path] = []
    for path in paths:
        inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
        if not inside:
            raise ValueError(f"no image in {path}; known suffixes are {', '.join(sorted(SUFFIXES))}")
        found += inside
    return found


def predict(model: Model, files: list[Path], *, batch: int) -> Iterator[tuple[Path, NDArray[np.float64] | str]]:
    """Yield each file with the probabilities of its classes, or with the reason why it cannot be read."""
    for start in range(0, len(files), batch):
        part = files[start : start + batch]
        pixels: list[NDArray[np.uint8]] = []
        reasons: dict[Path, str] = {}
        for file in part:
            try:
                pixels.append(model.prepare(file))
            except UNREADABLE as error:
                reasons[file] = str(error) or type(error).__name__
        rows: Iterator[NDArray[np.float64]] = iter(model.probabilities(np.stack(pixels)) if pixels else ())
        for file in part:
            yield file, reasons[file] if file in reasons else next(rows)
        _progress(min(start + batch, len(files)), len(files))


def _progress(done: int, total: int) -> None:
    """Show a progress bar, if standard error is a terminal."""
    if sys.stderr.isatty() and total > 1:
        filled = BAR * done // total
        end = "\n" if done == total else ""
        print(f"\r[{'#' * filled}{'.' * (BAR - filled)}] {done}/{total}", end=end, file=sys.stderr, flush=True)  # noqa: T201


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m sqakd.predict", description="Classify images with an exported model."
    )
    parser.add_argument("model", type=Path, help="model.onnx, written by export.py")
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="image files, or folders of images")
    parser.add_argument("--top", type=int, default=3, help="number of classes shown per image (default 3)")
    parser.add_argument("--batch", type=int, default=32, help="images that are processed together (default 32)")
    options = parser.parse_args(arguments)
    if options.top < 1 or options.batch < 1:
        parser.error("--top and --batch must be at least 1")
    try:
        model, files = Model(options.model), find(options.images)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 2
    skipped = 0
    for file, answer in predict(model, files, batch=options.batch):
        if isinstance(answer, str):
            skipped += 1
            print(f"{file}: cannot be read ({answer}); skipped", file=sys.stderr)  # noqa: T201
            continue
        best = np.argsort(-answer, kind="stable")[: options.top]
        print(f"{file}: {', '.join(f'{model.name(int(i))} {100 * answer[i]:.1f}%' for i in best)}")  # noqa: T201
    if skipped:
        print(f"{skipped} of {len(files)} images could not be read", file=sys.stderr)  # noqa: T201
    return 1 if skipped else 0


if __name__ == "__main__":
    raise SystemExit(main())

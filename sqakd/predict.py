"""Classification of images with an exported model; this program needs only onnxruntime, numpy and pillow.

    python -m sqakd.predict MODEL IMAGE_OR_FOLDER... [--top 3] [--batch 32]

MODEL is the model.onnx that export.py wrote, or the folder with this file.

Images of any size and format are read as in training (see `sqakd.images`) and brought to the network's size as in
evaluation. The model's metadata contains what is needed for this, and the names of the classes. The metadata is checked
when the model is opened, and so is the digest of the file. An image that cannot be read is reported and skipped, and
the exit status is then 1. A model that cannot be used is reported in one line, also with exit status 1.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqakd.interrupts import INTERRUPT_STATUS, catch_interrupts, exit_on_interrupt

if __name__ == "__main__":
    exit_on_interrupt("the same command starts again")

import numpy as np
from numpy.typing import NDArray
from PIL import Image

try:
    import onnxruntime
except ModuleNotFoundError:  # `sqakd.predict` exists without it, and says what is missing when it is called
    onnxruntime = None

from sqakd.errors import SqakdError
from sqakd.face import make_callable
from sqakd.image_files import UNSUPPORTED, left_out_text, list_images
from sqakd.images import SUFFIXES, ImageError, Preparation, luma, normalize
from sqakd.model_file import Description, ModelFileError, describe
from sqakd.terminal import printable, program

# `sqakd.predict(model, images)` is `sqakd.library.predicting.predict`.
make_callable(__name__)

BAR = 30
FILE_NAME = "model.onnx"  # of the model in the folder of an export
LARGEST_MODEL = 2**31  # bytes; the limit of the format's encoding
# Severity of the messages that ONNX Runtime prints itself: only those before it ends the program.
FATAL = 4
INPUT_TYPES = {True: "tensor(uint8)", False: "tensor(float)"}  # by whether a file takes pixels


class PredictError(SqakdError):
    """A model or a folder of images that cannot be used. A mistake in this program raises other errors."""


class Model:
    """An exported file, ready to run.

    Args:
        file: ONNX file, written by export.py, or the folder with this file.

    Raises:
        PredictError: if the file is missing, damaged, or not written by export.py, or onnxruntime is not installed.
    """

    def __init__(self, file: Path) -> None:
        file = file / FILE_NAME if file.is_dir() else file
        if not file.is_file():
            raise PredictError(f"no file {file}; expected the {FILE_NAME} that export.py wrote")
        if onnxruntime is None:
            raise PredictError("a prediction needs the package onnxruntime; use pip install onnxruntime")
        self.file = file
        try:
            if (size := file.stat().st_size) > LARGEST_MODEL:
                raise ModelFileError(f"has {size} bytes; an ONNX file has at most {LARGEST_MODEL}")
            content = file.read_bytes()
            self.facts = describe(content)
        except OSError as error:
            raise PredictError(f"{file} cannot be read: {error.strerror or error}") from error
        except ModelFileError as error:
            raise PredictError(f"{file} {error}") from error
        options = onnxruntime.SessionOptions()
        options.log_severity_level = FATAL
        try:
            self.session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime's errors have no common base class
            raise PredictError(
                f"{file} cannot be opened as an ONNX model ({_first_line(error)}); it may be damaged"
            ) from error
        self.input = _check_graph(self.session, self.facts, file)
        self.prepare = Preparation(
            size=self.facts.image_shape[1:],
            stored=self.facts.stored,
            margin=self.facts.margin,
            stored_margin=self.facts.stored_margin,
        )

    def probabilities(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return the probabilities [N, classes] of pixels [N, 3, H, W]; each row sums to 1.

        A network for one channel gets their luma.

        Raises:
            PredictError: if the model cannot be run, or its outputs are not finite.
        """
        facts = self.facts
        pixels = pixels if facts.image_shape[0] == 3 else luma(pixels)
        batch: NDArray[Any] = pixels if facts.takes_pixels else normalize(pixels, facts.mean, facts.std)
        try:
            logits = self.session.run(None, {self.input: batch})[0].astype(np.float64)
        except Exception as error:  # the runtime's errors have no common base class
            raise PredictError(f"{self.file} cannot be run ({_first_line(error)}); it may be damaged") from error
        if not np.isfinite(logits).all():
            raise PredictError(f"{self.file} computes values that are not finite numbers; it may be damaged")
        # Subtracting the largest logit does not change the softmax and keeps the exponentials from overflowing.
        raised = np.exp(logits - logits.max(axis=1, keepdims=True))
        result: NDArray[np.float64] = raised / raised.sum(axis=1, keepdims=True)
        return result

    def name(self, index: int) -> str:
        """Return the name of a class, or its number if the file has no names."""
        names = self.facts.classes
        return names[index] if index < len(names) else f"class {index}"


def _check_graph(session: onnxruntime.InferenceSession, facts: Description, file: Path) -> str:
    """Compare a model's graph with its description, and return the name of its input.

    Raises:
        PredictError: if they contradict each other.
    """
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or len(outputs) != 1:
        raise PredictError(f"{file} has {len(inputs)} inputs and {len(outputs)} outputs; expected one of each")
    (given,), (result,) = inputs, outputs
    expected = INPUT_TYPES[facts.takes_pixels]
    if given.type != expected or tuple(given.shape[1:]) != facts.image_shape:
        raise PredictError(
            f"{file} has a wrong description: its input is {given.type} {given.shape}, and the description says"
            f" {expected} {list(facts.image_shape)}"
        )
    if result.type != "tensor(float)" or len(result.shape) != 2:
        raise PredictError(f"{file} has the output {result.type} {result.shape}; expected float numbers [N, classes]")
    count = result.shape[1]
    if facts.classes and isinstance(count, int) and count != len(facts.classes):
        raise PredictError(f"{file} has a wrong description: {len(facts.classes)} classes, and its output has {count}")
    return str(given.name)


def _first_line(error: Exception) -> str:
    """Return the first line of an error's message."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def find(paths: list[Path]) -> list[Path]:
    """Return the given files, and all images below the given folders. Files that are left out there are reported.

    Images in a format that cannot be read here are returned too, because each is reported like a damaged one.

    Raises:
        PredictError: if a folder cannot be read or contains no image.
    """
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        try:
            inside = list_images(path)
        except OSError as error:
            raise PredictError(f"cannot list the images in {path}: {error}") from error
        images = sorted([*inside.images, *inside.left_out.pop(UNSUPPORTED, [])])
        if inside.left_out:
            print(f"{printable(path)}: {left_out_text(inside.left_out)}", file=sys.stderr)  # noqa: T201
        if not images:
            raise PredictError(f"no image in {path}; known suffixes are {', '.join(sorted(SUFFIXES))}")
        found += images
    return found


def predict(model: Model, files: list[Path], *, batch: int) -> Iterator[tuple[Path, NDArray[np.float64] | str]]:
    """Yield each file with the probabilities of its classes, or with the reason why it cannot be read."""
    _progress(0, len(files))  # the first batch may take seconds
    for start in range(0, len(files), batch):
        part = files[start : start + batch]
        pixels: list[NDArray[np.uint8]] = []
        reasons: dict[Path, str] = {}
        for file in part:
            try:
                pixels.append(model.prepare(file))
            except ImageError as error:
                reasons[file] = str(error)
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
        prog=program("python -m sqakd.predict"), description="Classify images with an exported model."
    )
    parser.add_argument("model", type=_path, help="model.onnx, written by export.py, or its folder")
    parser.add_argument("images", type=_path, nargs="+", metavar="IMAGE", help="image files, or folders of images")
    parser.add_argument("--top", type=int, default=3, help="number of classes shown per image (default 3)")
    parser.add_argument("--batch", type=int, default=32, help="images that are processed together (default 32)")
    options = parser.parse_args(arguments)
    if options.top < 1 or options.batch < 1:
        parser.error("--top and --batch must be at least 1")
    # Large and damaged images are read or named in one line; pillow's warnings would add lines of Python.
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    warnings.filterwarnings("ignore", module=r"PIL\b")
    catch_interrupts()
    try:
        return _classify(Model(options.model), find(options.images), top=options.top, batch=options.batch)
    except PredictError as error:
        print(f"error: {printable(error)}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        print("stopped by Ctrl-C; the same command starts again", file=sys.stderr)  # noqa: T201
        return INTERRUPT_STATUS


def _path(text: str) -> Path:
    if not text:  # it would be the current folder
        raise argparse.ArgumentTypeError("expected a path, found an empty text")
    return Path(text)


def _classify(model: Model, files: list[Path], *, top: int, batch: int) -> int:
    """Print the classes of all files and return the exit status."""
    skipped = 0
    for file, answer in predict(model, files, batch=batch):
        if isinstance(answer, str):
            skipped += 1
            print(printable(f"{file}: cannot be read ({answer}); skipped"), file=sys.stderr)  # noqa: T201
            continue
        best = np.argsort(-answer, kind="stable")[:top]
        classes = ", ".join(f"{model.name(int(i))} {100 * answer[i]:.1f}%" for i in best)
        print(printable(f"{file}: {classes}"))  # noqa: T201
    if skipped:
        print(f"{skipped} of {len(files)} images could not be read", file=sys.stderr)  # noqa: T201
    return 1 if skipped else 0


if __name__ == "__main__":
    raise SystemExit(main())

"""Small data sets for tests: common arguments, folders of one-coloured images, and a server for downloads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from torch import Tensor

from sqakd.advice import explain
from sqakd.dataset.errors import DataError
from sqakd.dataset.imagefolder import ImageFolder

# Arguments of every data set; not to be changed.
COMMON: dict[str, Any] = {
    "batch_size": 8,
    "eval_batch_size": 4,
    "seed": 0,
    "mean": [0.5] * 3,
    "std": [0.25] * 3,
    "augment": None,
    "evaluate": None,
    "drop_last": False,
    "holdout": 0.0,
    "limit": None,
}
SIZE = 8


def refusal(action: Callable[[], object]) -> str:
    """Return the message and the advice of the DataError that an action raises."""
    with pytest.raises(DataError) as error:
        action()
    message = explain(error.value)
    assert "\n" not in message
    return message


def truncate(file: Path) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])


def alter(file: Path) -> None:
    """Change one bit in the middle of a file."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


DAMAGES = {"truncated": truncate, "altered": alter}


# folders of images


def arguments(folder: Path) -> dict[str, Any]:
    """Return the arguments of `ImageFolder` for a folder."""
    return COMMON | {
        "folder": str(folder),
        "image_size": SIZE,
        "cache": str(folder.parent / "cache"),
        "val_fraction": 0.2,
        "unreadable": "refuse",
        "resize": None,
        "classes": None,
    }


def make_folder(folder: Path, **changes: Any) -> ImageFolder:
    return ImageFolder(**arguments(folder) | changes)


def load_folder(folder: Path, **changes: Any) -> ImageFolder:
    data = make_folder(folder, **changes)
    data.setup()
    return data


def save(file: Path, value: int, *, size: tuple[int, int] = (SIZE, SIZE), mode: str = "RGB") -> None:
    """Save an image of one colour, which identifies the image in the data set."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).convert(mode).save(file)


def values(images: Tensor) -> list[int]:
    """Return the colour of each image, which must have only one."""
    flat = images.flatten(1)
    assert (flat == flat[:, :1]).all()
    return flat[:, 0].tolist()


# downloads


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serve a folder on this machine; yield its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()

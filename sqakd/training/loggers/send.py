"""Tables, pictures and histograms, in the form that each service shows. Other loggers get numbers only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger


def shows_media(logger: Logger) -> TypeGuard[TensorBoardLogger | WandbLogger]:
    """Return whether a logger can show more than numbers."""
    return isinstance(logger, TensorBoardLogger | WandbLogger)


def send_histogram(logger: Logger, name: str, counts: NDArray[np.int64], edges: NDArray[np.float64], step: int) -> None:
    """Send one histogram with counts [bins] and edges [bins + 1]."""
    if isinstance(logger, WandbLogger):
        import wandb  # only if it is the chosen logger

        logger.experiment.log({name: wandb.Histogram(np_histogram=(counts, edges)), "trainer/global_step": step})
    elif isinstance(logger, TensorBoardLogger):
        centres = (edges[:-1] + edges[1:]) / 2  # a value counts as the centre of its bin
        logger.experiment.add_histogram_raw(
            name,
            min=edges[0],
            max=edges[-1],
            num=int(counts.sum()),
            sum=float(counts @ centres),
            sum_squares=float(counts @ centres**2),
            bucket_limits=edges[1:].tolist(),
            bucket_counts=counts.tolist(),
            global_step=step,
        )


def send_table(logger: Logger, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int) -> None:
    """Send one table; each row has a value for each column."""
    if isinstance(logger, WandbLogger):
        logger.log_table(name, columns=[*columns], data=[[*row] for row in rows], step=step)
    elif isinstance(logger, TensorBoardLogger):
        lines = [columns, ["---"] * len(columns), *rows]
        text = "\n".join("|".join(_cell(value) for value in line) for line in lines)
        logger.experiment.add_text(name, text, global_step=step)


def send_picture(logger: Logger, name: str, file: Path, step: int) -> None:
    """Send a PNG file."""
    if isinstance(logger, WandbLogger):
        logger.log_image(name, [str(file)], step=step)
    elif isinstance(logger, TensorBoardLogger):
        from PIL import Image

        with Image.open(file) as image:
            pixels = np.asarray(image.convert("RGB"))
        logger.experiment.add_image(name, pixels, global_step=step, dataformats="HWC")


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)

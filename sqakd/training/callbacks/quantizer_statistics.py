"""Statistics of each quantizer: its range, its scales, and the frequency of each code. Never computed in the step."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from sqakd.files import write_text
from sqakd.quantization.calibrate import visit
from sqakd.quantization.layers import QuantLayer, quant_layers
from sqakd.quantization.quantizers.base import Quantizer
from sqakd.training.callbacks.first_batch import FirstBatch
from sqakd.training.loggers.send import send_table, shows_media
from sqakd.training.task import Task
from sqakd.training.trainer import max_epochs

TENSORS = {1.0: "weight", 0.0: "input"}  # by the number `is_weight`
POSITION = ("layer", "is_weight")
COMMON = ("clip_low", "clip_high", "entropy", "used")  # numbers of every method; their means over layers are logged


class QuantizerStatistics(FirstBatch):
    """Writes quantizers.csv, and logs its rows as one table per snapshot and their means over the layers as numbers.

    The file has a row for each layer and tensor of each snapshot. The rows are also kept in the checkpoint, so that a
    resumed run continues them. The codes of the inputs are counted on the first validation batch.

    Args:
        every_n_epochs: distance of the snapshots; the last epoch always has one.
        file: quantizers.csv of the run, or None to log only.
        names: whether each number of each layer is logged under a name of its own, too, so that a logger can draw its
            curve: about 600 names for ResNet-20.
    """

    def __init__(self, *, every_n_epochs: int, file: str | None, names: bool) -> None:
        super().__init__(every_n_epochs=every_n_epochs)
        self.file, self.names = None if file is None else Path(file), names
        self.rows = Rows()

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows.csv()} if self.file else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = Rows(state_dict["rows"])

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        last = trainer.current_epoch + 1 == max_epochs(trainer)
        if not (self.due(trainer) or last) or not trainer.is_global_zero or self.images is None:
            return
        assert isinstance(pl_module, Task)
        rows = statistics(pl_module.student, self.images)
        if not rows:
            return
        layers = [name for name, _ in quant_layers(pl_module.student)]
        if self.file is not None:
            for row in rows:
                self.rows.add({"epoch": trainer.current_epoch, "name": layers[int(row["layer"])], **row})
            write_text(self.file, self.rows.csv())
        numbers = {"epoch": float(trainer.current_epoch), **means(rows), **(named(rows, layers) if self.names else {})}
        for logger in trainer.loggers:
            logger.log_metrics(numbers, step=trainer.global_step)
            if shows_media(logger):
                send_table(logger, "quantizers", *table(rows, layers), step=trainer.global_step)


class Rows:
    """Rows of a CSV file whose columns may change: a later epoch may have other bits, and then other codes.

    Args:
        text: CSV text with the first rows, or empty.
    """

    def __init__(self, text: str = "") -> None:
        self.columns, *self.lines = list(csv.reader(io.StringIO(text))) or [[]]

    def add(self, row: Mapping[str, float | str]) -> None:
        """Append a row; names that no row had before become columns at the right."""
        self.columns += [name for name in row if name not in self.columns]
        values = [row.get(name, "") for name in self.columns]
        self.lines.append([value if isinstance(value, str) else f"{value:.7g}" for value in values])

    def csv(self) -> str:
        """Return the CSV text."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if self.columns:
            writer.writerow(self.columns)
        writer.writerows([*line, *[""] * (len(self.columns) - len(line))] for line in self.lines)
        return text.getvalue()


def named(rows: list[dict[str, float]], layers: list[str]) -> dict[str, float]:
    """Return rows as numbers with names of the form quantizer/LAYER/weight/clip_high.

    Args:
        rows: result of `statistics`.
        layers: names of the quantized layers, in network order.
    """
    return {
        f"quantizer/{layers[int(row['layer'])]}/{TENSORS[row['is_weight']]}/{key}": value
        for row in rows
        for key, value in row.items()
        if key not in (*POSITION, "bits")
    }


def means(rows: list[dict[str, float]]) -> dict[str, float]:
    """Return the means over all layers, with names of the form layers/weight/entropy.

    Args:
        rows: result of `statistics`.
    """
    numbers: dict[str, float] = {}
    for is_weight, tensor in TENSORS.items():
        chosen = [row for row in rows if row["is_weight"] == is_weight]
        numbers |= {f"layers/{tensor}/{key}": sum(row[key] for row in chosen) / len(chosen) for key in COMMON}
    return numbers


def table(rows: list[dict[str, float]], layers: list[str]) -> tuple[list[str], list[list[float | str | None]]]:
    """Return the columns and the rows of a table. A number that a layer does not have is None.

    Args:
        rows: result of `statistics`.
        layers: names of the quantized layers, in network order.
    """
    numbers = [key for key in dict.fromkeys(key for row in rows for key in row) if key not in POSITION]
    return ["layer", "tensor", *numbers], [
        [layers[int(row["layer"])], TENSORS[row["is_weight"]], *(row.get(key) for key in numbers)] for row in rows
    ]


def statistics(model: nn.Module, images: Tensor) -> list[dict[str, float]]:
    """Return one row of numbers per quantizer, in network order, the weight's before the input's.

    Args:
        model: quantized network; it runs once in evaluation mode.
        images: normalised batch [N, C, H, W].

    Returns:
        layer (its position), is_weight, bits, the range's own numbers (for example lower and upper), the rounding's
        (delta), the numbers of all methods, output_scale, and the share of each code (code_<integer>). The numbers of
        all methods are clip_low and clip_high (the method's bounds, or the ends of its grid if it has none), entropy
        (of the codes, in bits) and used (the share of the codes that occur at all).
    """
    position = {name: i for i, (name, _) in enumerate(quant_layers(model))}
    rows: dict[str, list[dict[str, float]]] = {}

    def look(name: str, layer: QuantLayer, x: Tensor) -> None:
        common = {} if layer.output_scale is None else {"output_scale": float(layer.output_scale.detach())}
        rows[name] = [
            {"layer": position[name], "is_weight": is_weight, **_describe(quantizer, tensor), **common}
            for is_weight, quantizer, tensor in zip((1.0, 0.0), layer.quantizers, (layer.weight, x), strict=True)
        ]

    visit(model, images, look, training=False)
    return [row for name in position for row in rows.get(name, [])]


def _describe(quantizer: Quantizer, x: Tensor) -> dict[str, float]:
    """Return the numbers of one quantizer, with the codes of `x`."""
    numbers: dict[str, float] = {"bits": quantizer.bits}
    state = [*quantizer.named_parameters(), *quantizer.named_buffers()]
    for name, value in state:
        if value.numel() == 1 and name not in ("calibrated", "unit"):  # a range per channel is no single number
            numbers[name.removeprefix("rounding.")] = float(value.detach())
    grid, codes = quantizer.grid().tolist(), quantizer.codes(x)
    # Codes are shifted to start at 0, because bincount counts from there.
    counts = torch.bincount(codes.integers.flatten().int() - grid[0], minlength=grid[-1] - grid[0] + 1)
    shares = counts.double() / counts.sum()
    listed = shares.tolist()  # all at once: the CPU waits for a GPU once, and not for each of up to 256 codes
    low, high = (codes.scale * (code - codes.zero_point) for code in (grid[0], grid[-1]))
    bounds = dict(state)
    return numbers | {
        "clip_low": float(bounds.get("lower", low).detach().min()),
        "clip_high": float(bounds.get("upper", high).detach().max()),
        "entropy": float(torch.special.entr(shares).sum()) / math.log(2),  # entr is -p ln p, and 0 for p = 0
        "used": int((counts > 0).sum()) / len(grid),
        **{f"code_{code}": listed[code - grid[0]] for code in grid},
    }

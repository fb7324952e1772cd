"""What each quantizer does: its range, its scales, how often each code is used. Once per epoch, never in the step."""

from __future__ import annotations

from pathlib import Path

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from sqakd.callbacks.first_batch import FirstBatch
from sqakd.callbacks.history import as_csv
from sqakd.files import write_text
from sqakd.layers import QuantLayer
from sqakd.quantize import quant_layers, visit
from sqakd.quantizers.base import Quantizer
from sqakd.task import Task


class QuantizerStatistics(FirstBatch):
    """Writes quantizers.csv (the latest epoch, one row per layer and tensor) and logs the numbers.

    The inputs' codes are counted on the first validation batch.

    Args:
        every_n_epochs: distance of the snapshots.
        file: quantizers.csv of the run, or None to log only.
    """

    def __init__(self, *, every_n_epochs: int, file: str | None) -> None:
        super().__init__(every_n_epochs=every_n_epochs)
        self.file = None if file is None else Path(file)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        last = trainer.current_epoch + 1 == trainer.max_epochs
        due = (trainer.current_epoch + 1) % self.every_n_epochs == 0 or last
        if not due or not trainer.is_global_zero or self.images is None:
            return
        assert isinstance(pl_module, Task)
        rows = statistics(pl_module.student, self.images)
        if not rows:
            return
        if self.file is not None:
            write_text(self.file, as_csv(rows))
        names = [name for name, _ in quant_layers(pl_module.student) for _ in range(2)]
        numbers = {
            f"quantizer/{name}/{'weight' if row['is_weight'] else 'input'}/{key}": value
            for name, row in zip(names, rows, strict=True)
            for key, value in row.items()
            if key not in ("layer", "is_weight", "bits")
        }
        for logger in trainer.loggers:
            logger.log_metrics(numbers, step=trainer.global_step)


def statistics(model: nn.Module, images: Tensor) -> list[dict[str, float]]:
    """One row per quantizer, the weight's before the input's, in network order.

    Args:
        model: a quantized network; run once in evaluation mode.
        images: normalised batch [N, C, H, W].

    Returns:
        layer (its position), is_weight, bits, the range's own numbers (for example lower and upper), the rounding's
        (delta), output_scale and the share of each code in use (code_<integer>).
    """
    position = {name: i for i, (name, _) in enumerate(quant_layers(model))}
    rows: dict[str, list[dict[str, float]]] = {}

    def look(name: str, layer: QuantLayer, x: Tensor) -> None:
        common = {} if layer.output_scale is None else {"output_scale": float(layer.output_scale.detach())}
        rows[name] = [
            {"layer": position[name], "is_weight": is_weight, **_describe(quantizer, tensor), **common}
            for is_weight, quantizer, tensor in (
                (1.0, layer.weight_quantizer, layer.weight),
                (0.0, layer.input_quantizer, x),
            )
        ]

    visit(model, images, look, training=False)
    return [row for name in position for row in rows.get(name, [])]


def _describe(quantizer: Quantizer, x: Tensor) -> dict[str, float]:
    numbers: dict[str, float] = {"bits": quantizer.bits}
    state = [*quantizer.named_parameters(), *quantizer.named_buffers()]
    for name, value in state:
        if value.numel() == 1 and name not in ("calibrated", "unit"):
            numbers[name.removeprefix("rounding.")] = float(value.detach())
    grid = quantizer.grid().tolist()
    counts = torch.bincount((quantizer.codes(x).integers.flatten().int() - grid[0]), minlength=grid[-1] - grid[0] + 1)
    shares = counts.double() / counts.sum()
    numbers.update({f"code_{code}": float(shares[code - grid[0]]) for code in grid})
    return numbers

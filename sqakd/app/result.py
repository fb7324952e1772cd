"""The results of a finished run: its record, weights, model card and picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch import nn

from sqakd.advice import explain
from sqakd.allocation.costs import Pair, average_bits, counts
from sqakd.app.compose import changes
from sqakd.app.console import say
from sqakd.app.parts import Parts
from sqakd.app.teacher import Networks
from sqakd.dataset.base import ImageDataModule
from sqakd.errors import SqakdError
from sqakd.files import sha256, write_text
from sqakd.quantization.cost import cost
from sqakd.quantization.layers import layer_bits, quant_layers
from sqakd.report.model_card import loading, model_card
from sqakd.report.run_picture import draw_run
from sqakd.runs.checkpoint import save_safetensors, save_weights
from sqakd.runs.folder import RunFolder
from sqakd.runs.make_record import make_record
from sqakd.runs.paper import published
from sqakd.runs.record import Published, Record
from sqakd.runs.spec import LAYER_BITS, Spec, is_auto
from sqakd.runs.state_files import previous
from sqakd.training.callbacks.compilation import compiled_from
from sqakd.training.callbacks.history import History
from sqakd.training.evaluate import evaluate
from sqakd.training.task import Task


@dataclass(frozen=True)
class Reference:
    """The numbers that a run's result is compared with. They are read before the training, so that errors come then.

    Attributes:
        changes: values that differ from those of the choices alone.
        paper: the published number of the run's cell, if there is one.
    """

    changes: Mapping[str, Any]
    paper: Published | None


def reference_of(spec: Spec) -> Reference:
    """Look up a run's changed values and its published number.

    Raises:
        SqakdError: if the table of published numbers is damaged.
    """
    changed = changes(spec)
    return Reference(changed, published(spec, changed))


def record_of(
    spec: Spec, parts: Parts, networks: Networks, task: Task, history: History, reference: Reference
) -> Record:
    """Return the record of a training that is over."""
    given = any((spec.config["quantizer"] or {}).get(key) for key in LAYER_BITS)
    devices = history.devices or [task.trainer.world_size]
    apart = device_changes(devices, sync_batchnorm=spec.config["trainer"]["sync_batchnorm"])
    return make_record(
        spec,
        history.rows,
        changes={**reference.changes, **apart},
        cost=cost(task.student, parts.data.image_shape),
        labels_used=parts.objective.needs_labels,
        float_record=networks.float_run,
        float_precision=networks.float_precision,
        paper=None if apart else reference.paper,
        training_seconds=history.seconds,
        device=task.device,
        devices=task.trainer.world_size,
        stage_epochs=parts.length.taken,
        initial=history.initial,
        compiled_from=compiled_from(task.trainer),
        layer_bits=layer_bits(task.student) if given else None,
        average_bits=_average_bits(spec, task.student, parts.data.image_shape) if is_auto(spec.config) else None,
    )


def _average_bits(spec: Spec, student: nn.Module, image_shape: tuple[int, int, int]) -> tuple[float, float]:
    """Return the average bits of the layers whose bits were chosen, over all weights and all elements of the inputs."""
    chosen = spec.config["quantizer"]["layer_w_bits"]
    layers = counts({layer: name for name, layer in quant_layers(student) if name in chosen}, student, image_shape)
    return average_bits(layers, {name: Pair(*bits) for name, bits in layer_bits(student).items()})


def report_initial(task: Task, data: ImageDataModule, trainer: pl.Trainer, *, calibrated: bool) -> dict[str, float]:
    """Measure and print the network's scores before any training, by which users decide whether to train.

    Args:
        task: its student is calibrated; see `evaluate`.
        data: images of the run.
        trainer: of the run.
        calibrated: whether the student is quantized.
    """
    scores = evaluate(task, data, trainer)
    shown = (("top-1", "top1"), ("agreement", "agreement"))
    text = " ".join(f"{label} {100 * scores[name]:.2f}%" for label, name in shown if name in scores)
    say(f"{'after calibration, ' if calibrated else ''}before training: {text}")
    return scores


def device_changes(devices: Sequence[int], *, sync_batchnorm: bool) -> dict[str, Any]:
    """Return the numbers of devices as a changed value if they make the run another cell.

    Without `sync_batchnorm`, batch norm sees each device's share of a batch, so such a run is another cell than one
    device trains. A run that was resumed on another number of devices has a list.

    Example:
        >>> device_changes([1], sync_batchnorm=False), device_changes([2], sync_batchnorm=False)
        ({}, {'trainer.devices': 2})
        >>> device_changes([2, 1], sync_batchnorm=False), device_changes([2, 1], sync_batchnorm=True)
        ({'trainer.devices': [2, 1]}, {})
    """
    if sync_batchnorm or max(devices, default=1) == 1:
        return {}
    return {"trainer.devices": devices[0] if len(devices) == 1 else list(devices)}


def draw_picture(folder: RunFolder, record: Record) -> Path | None:
    """Draw the picture of a run. One that cannot be drawn does not matter: it can be drawn again from the run's files.

    Returns:
        The file, or None if nothing was drawn.
    """
    try:
        return draw_run(folder.path, record)
    except SqakdError as error:
        say(f"no picture: {explain(error)}")
        return None


def write_results(
    spec: Spec, parts: Parts, networks: Networks, task: Task, record: Record, folder: RunFolder, trainer: pl.Trainer
) -> Record:
    """Write weights, model card and record; of several processes only the first one writes.

    The record comes last of the files that make a run finished.

    Returns:
        The record with the checksum of the weights.
    """
    if trainer.is_global_zero:
        facts = {
            "record": record.to_dict(),
            "num_classes": networks.classes,
            "class_names": parts.data.class_names,
            "mean": parts.data.mean,
            "std": parts.data.std,
            "image_shape": list(parts.data.image_shape),
            "licence": parts.data.licence,
            "model": spec.config["model"],
            "quantizer": spec.config["quantizer"],
        }
        save_weights(folder.weights, task.student, facts)
        save_safetensors(folder.shared_weights, task.student, facts)
        write_text(folder.card, model_card(record, facts, use=loading(folder.shared_weights.name)))
        record = replace(record, weights_sha256=sha256(folder.weights))
        folder.finish(record)
        # The training's own checkpoint has long replaced them.
        old = [previous(folder.checkpoint), folder.pretraining, previous(folder.pretraining)]
        for file in (*old, folder.compilation, folder.pretraining_compilation):
            file.unlink(missing_ok=True)
    trainer.strategy.barrier()
    return record

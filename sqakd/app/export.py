"""From a finished run to its export: the network is constructed again with its data, and given to `sqakd.export`."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray

from sqakd.advice import install, left_out
from sqakd.app.artifact import check_logged, log_artifact
from sqakd.app.compose import located, make
from sqakd.app.console import say
from sqakd.app.hub import CARD, check_hub_folder, own_paths, write_hub_folder
from sqakd.app.parts import quantize_network, without_pretrained
from sqakd.app.signatures import check_arguments, check_values
from sqakd.dataset.base import ImageDataModule
from sqakd.dataset.errors import DataError
from sqakd.dataset.transforms.augment import normalize
from sqakd.errors import SqakdError
from sqakd.images import ImageError, Preparation
from sqakd.model_file import QONNX
from sqakd.quantization.convert import dequantize
from sqakd.runs.checkpoint import restore
from sqakd.runs.export_record import ExportRecord, read_exports
from sqakd.runs.folder import RunFolder
from sqakd.runs.record import read_record
from sqakd.runs.run_weights import load_run_weights
from sqakd.training.confidence import FEW

if TYPE_CHECKING:
    from sqakd.export.source import Source
    from sqakd.export.trained import Trained, ValidationBatch

# Largest difference of a pixel between pillow's resizing, which rounds twice, and the data sets' resizing, which rounds
# once. Only images that are resized again for evaluation differ at all.
ROUNDING = 2


class Others(TypedDict):
    """Values of conf/export.yaml that are not in `sqakd.export.options`."""

    run: str
    folder: str | None
    hub: str | None
    artifact: bool
    benchmark: Mapping[str, Any]


def export_run(config: Mapping[str, Any]) -> float:
    """Export a finished run.

    Args:
        config: the values of conf/export.yaml.

    Returns:
        Agreement of the file with the trained network, the lowest of all runtimes.

    Raises:
        SqakdError: if the run cannot be exported, or the file disagrees with it.
    """
    try:  # not at the top, because training needs none of the packages that the export needs
        from sqakd.export import pipeline
        from sqakd.export.folder import check_folder
        from sqakd.export.options import Options, Timing
        from sqakd.export.source import read_run
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("sqakd"):  # a mistake in this project, not a missing package
            raise
        advice = f"use {install('export')} in the checkout of sqakd"
        raise SqakdError(f"the export needs a package that is not installed ({error}); {advice}") from error
    values = {field.name: config[field.name] for field in fields(Options) if field.name != "benchmark"}
    check_values({key: config[key] for key in Others.__annotations__}, Others)
    check_arguments(config["benchmark"], Timing, "benchmark")
    check_arguments(values, Options, "")
    with located("benchmark"):
        timing = Timing(**config["benchmark"])
    options = Options(**values, benchmark=timing)
    if options.format == QONNX and find_spec("qonnx") is None:
        raise SqakdError(f"format=qonnx needs the package qonnx, which is not installed; use {install('qonnx')}")
    source = read_run(Path(config["run"]))
    folder = Path(config["folder"] or source.folder.export(options.kind))
    check_folder(folder)  # before the network and its data are loaded, which takes long
    if config["artifact"]:
        check_logged(source.config, source.folder)
    hub = None if config["hub"] is None else Path(config["hub"] or ".")
    if hub is not None:
        if options.format == QONNX:
            raise SqakdError("hub= takes a file that runtimes can run, and format=qonnx writes none; omit one of both")
        check_hub_folder(hub, folder)
    trained = trained_network(source)
    others = list(read_exports(RunFolder(source.folder.path.resolve()).runs, left_out))
    record = pipeline.export(trained, options, folder, others)
    _report(record, folder)
    if hub is not None:
        # Runs of earlier versions recorded less in their weights.
        own = {"model": source.config["model"], "quantizer": source.config["quantizer"]}
        facts = own | {"image_shape": list(trained.image_shape)} | source.facts
        files = [folder / "model.onnx", source.folder.picture]
        kept = write_hub_folder(hub, trained.network, source.record, facts, trained.preparation, files)
        note = f"; {CARD} is yours and stays" if kept else ""
        say(f"{hub}: weights, ONNX file and model card in the layout of a model hub{note}")
        if paths := own_paths(source.record.command):
            say(f"warning: the model card and the weights name paths of this machine: {', '.join(paths)}")
    if config["artifact"]:
        say(f"artifact {log_artifact(source.config, record, source.folder, folder)}: the files, in Weights & Biases")
    return min(verdict.agreement for verdict in record.verify)


def _report(record: ExportRecord, folder: Path) -> None:
    from sqakd.export.machine import int8_instructions

    for verdict in record.verify:
        say(
            f"{verdict.runtime} agrees with the trained network on {100 * verdict.agreement:.2f}% of"
            f" {verdict.images} validation images ({int8_instructions(record.machine.get('isa'))})"
        )
    images = min(verdict.images for verdict in record.verify)
    if images < FEW:
        say(f"warning: the proof rests on {images} images, so one image is {100 / images:.1f} points")
    sizes = record.sizes
    say(f"{folder / 'report.html'}: proof, sizes and speed")
    say(f"{folder / 'model.onnx'}: {sizes.file / 1000:.1f} kB, float {sizes.float / 1000:.1f} kB")


def trained_network(source: Source) -> Trained:
    """Construct a finished run's network again, with its weights and its data.

    Raises:
        SqakdError: if the parts of the run do not fit together.
    """
    from sqakd.export.trained import Trained

    config, facts, record = source.config, source.facts, source.record
    data: ImageDataModule = make(config["dataset"], "dataset")
    with located("dataset"):
        data.setup()
    net = without_pretrained(config["model"]["net"])
    network, float_network = (make(net, "model.net", num_classes=facts["num_classes"]) for _ in range(2))
    first = config["model"]["first"]
    quantize_network(network, make(config["quantizer"], "quantizer"), first, data.image_shape, quietly=True)
    restore(network, source.weights, source=str(source.folder.weights))
    float_run = source.float_run
    if float_run is not None:
        float_weights, _ = load_run_weights(float_run, read_record(float_run.record))
        restore(float_network, float_weights, source=str(float_run.weights))
    else:
        float_network = copy.deepcopy(network)
        dequantize(float_network)
    return Trained(
        network=network.eval(),
        float_network=float_network.eval(),
        float_source=str(float_run.weights if float_run else "this run's weights, not rounded"),
        image_shape=data.image_shape,
        class_names=list(facts["class_names"]),
        mean=list(facts["mean"]),
        std=list(facts["std"]),
        preparation=_preparation(data),
        identity={
            "name": record.name,
            "seed": record.seed,
            "dataset": record.dataset,
            "model": record.model,
            "quantizer": record.quantizer,
            "w_bits": record.w_bits,
            "a_bits": record.a_bits,
            "config_hash": source.config_hash,
        },
        calibration=lambda n: data.probe_batches(count=1, size=n, epoch=0)[0].image,
        validation=lambda: _validation_batches(data),
    )


def _preparation(data: ImageDataModule) -> Preparation:
    """Return how an image file becomes what the network gets in evaluation."""
    _, height, width = data.val_images.shape[1:]
    return Preparation(
        size=data.image_shape[1:],
        stored=(height, width),
        margin=int(getattr(data.evaluate, "margin", 0)),
        stored_margin=data.stored_margin,
    )


def _validation_batches(data: ImageDataModule) -> Iterator[ValidationBatch]:
    """Yield validation batches as whole-numbered pixels and as normalised images; resized images are rounded.

    If each image is a file of its own, the pixels are read from the file as `sqakd.predict` reads them.

    Raises:
        DataError: if a file cannot be read, or has other pixels than the data set.
    """
    from sqakd.export.trained import ValidationBatch

    mean, std = torch.tensor(data.mean), torch.tensor(data.std)
    preparation = _preparation(data)
    for batch in data.val_dataloader():
        own = batch.image if data.evaluate is None else data.evaluate(batch.image)
        own = own.round().clamp(0, 255).to(torch.uint8)
        images = normalize(own, mean, std)
        if data.val_files is None:
            yield ValidationBatch(own, images, images, batch.label)
            continue
        files = [data.val_files[i] for i in batch.index.tolist()]
        pixels = torch.stack([torch.from_numpy(_read(file, preparation)) for file in files])
        for file, read, wanted in zip(files, pixels, own, strict=True):
            _check_pixels(file, read, wanted)
        yield ValidationBatch(pixels, normalize(pixels, mean, std), images, batch.label)


def _read(file: Path, preparation: Preparation) -> NDArray[np.uint8]:
    try:
        return preparation(file)
    except ImageError as error:
        raise DataError(f"{file} cannot be read: {error}") from error


def _check_pixels(file: Path, read: torch.Tensor, wanted: torch.Tensor) -> None:
    """Refuse a file whose pixels differ from the data set's by more than the rounding of two resizing steps."""
    difference = int((read.int() - wanted.int()).abs().max())
    if difference > ROUNDING:
        raise DataError(
            f"{file} has other pixels than the data set (they differ by up to {difference} of 255): the file was"
            f" changed after it was decoded, or dataset.evaluate prepares images in a way that an exported model cannot"
            f" repeat; delete the decoded images in the folder paths.cache to decode the files again"
        )

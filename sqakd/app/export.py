"""From a finished run to its export: the network is constructed again with its data, and given to `sqakd.export`."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from sqakd.app.advice import explain
from sqakd.app.compose import located, make, spec_of
from sqakd.app.console import say
from sqakd.app.errors import report_errors
from sqakd.app.parts import quantize_network
from sqakd.dataset.base import ImageDataModule
from sqakd.dataset.transforms.augment import normalize
from sqakd.errors import SqakdError
from sqakd.quantization.convert import dequantize
from sqakd.runs.checkpoint import load_weights, restore
from sqakd.runs.export_record import ExportRecord, read_exports
from sqakd.runs.folder import RunFolder

if TYPE_CHECKING:
    from sqakd.export.source import Source
    from sqakd.export.trained import Trained, ValidationBatch


def main(cfg: DictConfig) -> float | None:
    """Export the run that a composed configuration names.

    Returns:
        Agreement of the file with the trained network.
    """
    return report_errors(lambda: export_run(spec_of(cfg, HydraConfig.get()).config))


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
        raise SqakdError(f"the export needs a package ({error}); use pip install 'sqakd[export]'") from error
    timing = Timing(**config["benchmark"])
    options = Options(**{field.name: config[field.name] for field in fields(Options)} | {"benchmark": timing})
    source = read_run(Path(config["run"]))
    folder = Path(config["folder"] or source.folder.export(options.profile))
    check_folder(folder)  # before the network and its data are loaded, which takes long
    trained = trained_network(source)
    speed = "; measures its speed too, which takes minutes (benchmark.rounds=0: not)" if timing.rounds else ""
    say(f"exporting {source.folder.path} as {options.profile}{speed}")
    try:
        others = list(read_exports(RunFolder(source.folder.path.resolve()).runs))
    except SqakdError as error:
        say(f"this export is compared with no others: {explain(error)}")
        others = []
    record = pipeline.export(trained, options, folder, others)
    _report(record, folder)
    return min(verdict.agreement for verdict in record.verify)


def _report(record: ExportRecord, folder: Path) -> None:
    for verdict in record.verify:
        say(
            f"{verdict.runtime} agrees with the trained network on {100 * verdict.agreement:.2f}% of"
            f" {verdict.images} validation images"
        )
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
    net = dict(config["model"]["net"])
    if "weights" in net:
        net["weights"] = None  # the run's own weights follow
    network, float_network = (make(net, "model.net", num_classes=facts["num_classes"]) for _ in range(2))
    first = config["model"]["first"]
    quantize_network(network, make(config["quantizer"], "quantizer"), first, data.image_shape, quietly=True)
    restore(network, source.weights, source=str(source.folder.weights))
    if source.float_weights is not None:
        restore(float_network, load_weights(source.float_weights)[0], source=str(source.float_weights))
    else:
        float_network = copy.deepcopy(network)
        dequantize(float_network)
    return Trained(
        network=network.eval(),
        float_network=float_network.eval(),
        float_source=str(source.float_weights or "this run's weights, not rounded"),
        image_shape=data.image_shape,
        class_names=list(facts["class_names"]),
        mean=list(facts["mean"]),
        std=list(facts["std"]),
        resize={"margin": int(getattr(data.evaluate, "margin", 0))},
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


def _validation_batches(data: ImageDataModule) -> Iterator[ValidationBatch]:
    """Yield validation batches as whole-numbered pixels and as normalised images; resized images are rounded."""
    from sqakd.export.trained import ValidationBatch

    mean, std = torch.tensor(data.mean), torch.tensor(data.std)
    for batch in data.val_dataloader():
        pixels = batch.image if data.evaluate is None else data.evaluate(batch.image)
        pixels = pixels.round().clamp(0, 255).to(torch.uint8)
        yield ValidationBatch(pixels, normalize(pixels, mean, std), batch.label)

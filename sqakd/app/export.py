"""From a finished run to its export: the network put together again with its data, for `sqakd.export`."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from sqakd.app.compose import read, told
from sqakd.app.console import say
from sqakd.dataset.base import ImageDataModule
from sqakd.dataset.transforms.augment import normalize
from sqakd.quantization.convert import Scheme, dequantize, quantize
from sqakd.runs.checkpoint import load_weights, restore

if TYPE_CHECKING:
    from sqakd.export.source import Source
    from sqakd.export.trained import Trained, ValidationBatch


def main(cfg: DictConfig) -> float | None:
    """Export the run that the configuration names; bad input ends in one sentence.

    Returns:
        Agreement of the file with the trained network.
    """
    return told(lambda: export_run(read(cfg, HydraConfig.get()).config))


def export_run(config: dict[str, Any]) -> float:
    """Export a finished run; `config` is that of conf/export.yaml.

    Raises:
        ValueError: if the run cannot be exported, or the file disagrees with it.
    """
    try:  # not above: training needs none of the packages that the export needs
        from sqakd.export import pipeline
        from sqakd.export.options import Options, Timing
        from sqakd.export.report import read_exports
        from sqakd.export.source import read_run
    except ModuleNotFoundError as error:
        raise ValueError(f"export.py needs a package ({error}); type: pip install 'sqakd[export]'") from error
    keys = [field.name for field in fields(Options)]
    timing = Timing(**config["benchmark"])
    options = Options(**{key: config[key] for key in keys} | {"benchmark": timing})
    source = read_run(Path(config["run"]))
    trained = trained_network(source)
    speed = "; measures its speed too, which takes minutes (benchmark.rounds=0: not)" if timing.rounds else ""
    say(f"exporting {source.folder} as {options.profile}{speed}")
    folder = Path(config["folder"] or source.folder / f"export-{options.profile}")
    others = read_exports(source.folder.resolve().parents[1])
    record = pipeline.export(trained, options, folder, others)
    for verdict in record["verify"]:
        say(
            f"{verdict['runtime']} agrees with the trained network on {100 * verdict['agreement']:.2f}% of"
            f" {verdict['images']} validation images"
        )
    sizes = record["sizes"]
    say(f"{folder / 'report.html'}: proof, sizes and speed")
    say(f"{folder / 'model.onnx'}: {sizes['file'] / 1000:.1f} kB, float {sizes['float'] / 1000:.1f} kB")
    return min(float(verdict["agreement"]) for verdict in record["verify"])


def trained_network(source: Source) -> Trained:
    """Put a finished run's network together again, with its data.

    Raises:
        ValueError: if its parts do not fit.
    """
    from sqakd.export.trained import Trained

    config, facts = source.config, source.facts
    node = OmegaConf.create(config)
    data: ImageDataModule = instantiate(node.dataset)
    data.setup()
    net = config["model"]["net"]
    net = net | ({"weights": None} if "weights" in net else {})
    network, float_network = (instantiate(net, num_classes=facts["num_classes"]) for _ in range(2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it was said when the run was trained
        scheme: Scheme = instantiate(node.quantizer)
        quantize(network, scheme, first=config["model"]["first"], image_shape=data.image_shape)
    restore(network, source.weights, source=str(source.folder / "weights.pt"))
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
            "name": source.record["name"],
            "seed": source.record["seed"],
            "dataset": source.record["choices"]["dataset"],
            "model": source.record["model"],
            "quantizer": source.record["choices"]["quantizer"],
            "w_bits": source.record["w_bits"],
            "a_bits": source.record["a_bits"],
            "config_hash": source.config_hash,
        },
        calibration=lambda n: data.probe_batches(count=1, size=n, epoch=0)[0].image,
        validation=lambda: _examples(data),
    )


def _examples(data: ImageDataModule) -> Iterator[ValidationBatch]:
    """Validation batches as pixels and normalised; the pixels are whole numbers, also where an image was resized."""
    from sqakd.export.trained import ValidationBatch

    mean, std = torch.tensor(data.mean), torch.tensor(data.std)
    for batch in data.val_dataloader():
        pixels = batch.image if data.evaluate is None else data.evaluate(batch.image)
        pixels = pixels.round().clamp(0, 255).to(torch.uint8)
        yield ValidationBatch(pixels, normalize(pixels, mean, std), batch.label)

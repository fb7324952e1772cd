"""The command that measures the sensitivity of a finished float run: python -m sqakd.sensitivity."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import nn

from sqakd.allocation.budget import Budget
from sqakd.allocation.measure import Criterion
from sqakd.allocation.table import Sensitivity
from sqakd.app.compose import compose_spec, located, make
from sqakd.app.console import say
from sqakd.app.parts import without_pretrained
from sqakd.app.sensitivity import Measurement, sensitivity_of, training_images
from sqakd.app.signatures import check_values
from sqakd.app.suggestions import suggestion
from sqakd.dataset.base import ImageDataModule
from sqakd.errors import SqakdError
from sqakd.quantization.quantizers.base import Start
from sqakd.runs.checkpoint import restore
from sqakd.runs.folder import RunFolder
from sqakd.runs.record import read_record
from sqakd.runs.run_weights import load_run_weights
from sqakd.runs.targets import check_targets
from sqakd.shipped import conf_folder


class Keys(TypedDict):
    """conf/sensitivity.yaml."""

    run: str
    method: str
    start: Start | None
    widths: list[int]
    criterion: Criterion
    images: int


def run_sensitivity(config: Mapping[str, Any]) -> Sensitivity:
    """Measure and print the sensitivity of a finished float run.

    Args:
        config: the values of conf/sensitivity.yaml.

    Raises:
        SqakdError: if the run is no finished float run, or an option is wrong.
    """
    check_values({key: value for key, value in config.items() if key != "paths"}, Keys)
    folder = RunFolder(Path(config["run"]))
    if not folder.finished:
        raise SqakdError(f"{folder.path} is no finished run: it has no {folder.record.name}")
    own = {key: config[key] for key in ("widths", "criterion", "images")}
    budget = Budget(size=None, bit_operations=None, average_bits=None, **own)
    saved = folder.read_config()
    check_targets(saved, ("dataset", "model"), file=folder.config)
    if saved.get("quantizer") is not None:
        raise SqakdError(f"{folder.path} is a quantized run; expected a float run, whose name has none-w32a32")
    weights, facts = load_run_weights(folder, read_record(folder.record))
    net = without_pretrained(saved["model"]["net"])
    network: nn.Module = make(net, "model.net", num_classes=facts["num_classes"])
    restore(network, weights, source=str(folder.weights))
    data: ImageDataModule = make(saved["dataset"], "dataset")
    with located("dataset"):
        data.setup()
    methods = sorted(file.stem for file in (conf_folder() / "quantizer").glob("*.yaml") if file.stem != "none")
    if config["method"] not in methods:
        raise SqakdError(f"method={config['method']}: no such quantizer{suggestion(config['method'], methods)}")
    start = [] if config["start"] is None else [f"quantizer.start={config['start']}"]
    node = compose_spec([f"quantizer={config['method']}", "recipe=imagefolder", *start], complete=False).config[
        "quantizer"
    ]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found, file = sensitivity_of(
        folder.path,
        network.to(device),
        make(node, "quantizer"),
        training_images(data, budget.images, int(saved["seed"])).to(device),
        Measurement(
            quantizer=config["method"],
            node=node,
            widths=budget.widths,
            criterion=budget.criterion,
        ),
    )
    for line in found.text().splitlines():
        say(line)
    say(f"picture: {file.with_suffix('.png')}")
    return found

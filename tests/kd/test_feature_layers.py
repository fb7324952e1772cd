"""Feature layers of a model: their names, their number and their shapes are checked before any training."""

from __future__ import annotations

import re
from pathlib import Path

import command
import pytest
import small
import torch
from hydra.utils import instantiate

from sqakd.kd.hooks import Features
from sqakd.kd.shapes import vector

OVERRIDES = ["kd=at", *command.SMALL]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "model.feature_layers=[layer1,layerX,bn2:input]",
            r"the student has no layer 'layerX'; .*layer1.*model\.feature_layers=",
        ),
        ("model.feature_layers=[layer1]", "of the student.*expected at least 3: .*model.feature_layers="),
        ("teacher.feature_layers=[conv1,layer1,linear]", "3 layers of the student .* and 1 of the teacher .layer1."),
        (
            "model.feature_layers=[layer1,linear,bn2:input]",
            r"feature has shape \[10\] and the teacher.*model\.feature_layers=",
        ),
    ],
)
def test_incompatible_layers_are_reported_before_a_teacher_is_trained(
    override: str, message: str, tmp_path: Path
) -> None:
    done = command.train(*OVERRIDES, override, runs=tmp_path / "runs")
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert re.search(message, line), line
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "runs").glob("*"))


def test_the_layers_of_a_torchvision_network_are_chosen_by_module_name(tmp_path: Path) -> None:
    layers = "model.feature_layers=[maxpool:input,layer1,layer2,fc:input]"
    overrides = ["model=torchvision", "model.arch=resnet18", layers, "dataset=digits16", "dataset.limit=16", "kd=at"]
    done = command.train(*overrides, "recipe.epochs=1", "teacher.recipe.epochs=1", runs=tmp_path / "runs")
    assert done.returncode == 0, done.stderr


MODELS = sorted(file.stem for file in (command.ROOT / "conf" / "model").glob("*.yaml"))


@pytest.mark.parametrize("model", [model for model in MODELS if model not in ("torchvision", "timm")])
def test_the_feature_layers_of_each_model_are_a_first_map_its_stages_and_a_vector(model: str) -> None:
    node = small.config(f"model={model}").model
    network = instantiate(node.net, num_classes=10).eval()
    features = Features(network, node.feature_layers)
    network(torch.zeros(2, 3, 64, 64))
    *maps, last = features.take()
    assert len(maps) >= 4
    sizes = [feature.shape[2] for feature in maps]
    assert sizes == sorted(sizes, reverse=True)
    assert vector(last).ndim == 2

"""The layout of a network: its number of classes is read by name, in whatever order a file lists its tensors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hydra import initialize_config_dir
from torch import Tensor, nn

from sqakd.advice import explain
from sqakd.app.compose import compose_spec, make
from sqakd.models.resnet import CifarResNet
from sqakd.models.timm import timm_network
from sqakd.models.torchvision import torchvision_network
from sqakd.runs.checkpoint import CheckpointError
from sqakd.runs.layout import Layout

CONF = Path(__file__).parents[2] / "conf"


def resnet(classes: int) -> nn.Module:
    return CifarResNet(blocks=1, num_classes=classes)


ORDERS: dict[str, Callable[[dict[str, Tensor]], dict[str, Tensor]]] = {
    "own": lambda w: w,
    "sorted": lambda w: dict(sorted(w.items())),
    "reversed": lambda w: dict(reversed(w.items())),
    "classifier first": lambda w: {**{k: t for k, t in w.items() if k.startswith("linear")}, **w},
    "counters last": lambda w: {**w, "total_ops": torch.zeros(1), "linear.total_params": torch.zeros(1)},
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("classes", [2, 10, 64])
def test_number_of_classes_does_not_depend_on_the_order(classes: int, order: str) -> None:
    tensors = ORDERS[order](resnet(classes).state_dict())
    assert Layout.of(resnet).num_classes(tensors, source="x.pt") == classes


@pytest.mark.parametrize("model", sorted(file.stem for file in (CONF / "model").glob("*.yaml")))
def test_every_model_of_the_configuration_has_a_classifier(model: str) -> None:
    if model == "timm":
        pytest.importorskip("timm")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        net = compose_spec([f"model={model}", "quantizer=none"]).config["model"]["net"]

    def build(classes: int) -> nn.Module:
        network: nn.Module = make(net, "model.net", num_classes=classes)
        return network

    layout = Layout.of(build)
    with torch.device("meta"):
        tensors = build(7).state_dict()
    assert list(layout.shapes) == list(tensors)
    assert layout.num_classes(dict(sorted(tensors.items())), source="x.pt") == 7


@pytest.mark.parametrize("arch", ["googlenet", "inception_v3", "regnet_y_400mf", "vit_b_16", "densenet121", "maxvit_t"])
def test_classifiers_of_torchvision_are_found(arch: str) -> None:
    layout = Layout.of(lambda n: torchvision_network(arch=arch, weights=None, num_classes=n))
    assert layout.classifier
    assert all(any(part in name for part in ("fc.", "classifier.", "heads.")) for name in layout.classifier)


@pytest.mark.parametrize("arch", ["convnext_atto", "resnetv2_50", "deit_tiny_distilled_patch16_224", "dla34"])
def test_classifiers_of_timm_are_found(arch: str) -> None:
    pytest.importorskip("timm")
    layout = Layout.of(lambda n: timm_network(arch=arch, weights=None, num_classes=n, options=None))
    assert layout.classifier
    assert all(name.split(".")[0] in ("head", "head_dist", "fc") for name in layout.classifier)


def test_reading_a_layout_leaves_the_random_stream_alone() -> None:
    for build in (resnet, lambda n: torchvision_network(arch="regnet_y_400mf", weights=None, num_classes=n)):
        torch.manual_seed(0)
        expected = torch.rand(3)
        torch.manual_seed(0)
        Layout.of(build)
        assert torch.equal(torch.rand(3), expected)


def test_a_file_without_the_classifier_is_refused() -> None:
    tensors = {name: tensor for name, tensor in resnet(10).state_dict().items() if "linear" not in name}
    with pytest.raises(CheckpointError, match=r"x\.pt was made for another network: it lacks .*linear\.") as error:
        Layout.of(resnet).num_classes(tensors, source="x.pt")
    assert "model@teacher=" in explain(error.value)


def test_a_classifier_with_two_numbers_of_classes_is_refused() -> None:
    tensors = {**resnet(10).state_dict(), "linear.bias": torch.zeros(7)}
    with pytest.raises(CheckpointError, match=r"x\.pt has several numbers of classes: 7, 10 in linear\."):
        Layout.of(resnet).num_classes(tensors, source="x.pt")

"""The networks of the paper's Tiny-ImageNet rows, and their names in the reference numbers."""

from __future__ import annotations

from typing import Any

import command
from hydra import initialize_config_dir
from hydra.utils import instantiate
from torch import nn

from sqakd.app.compose import compose_spec

# (option of `model=`, name in the reference).
NETWORKS = [
    ("resnet18", "resnet18"),
    ("vgg11", "vgg11_bn"),
    ("mobilenet_v2", "mobilenet_v2"),
    ("shufflenet_v2_x0_5", "shufflenet_v2_x0_5"),
    ("squeezenet1_0", "squeezenet1_0"),
]


def make(option: str) -> tuple[nn.Module, dict[str, Any]]:
    with initialize_config_dir(str(command.ROOT / "conf"), version_base="1.3"):
        model = compose_spec([f"model={option}"]).config["model"]
    return instantiate(model["net"], num_classes=200), model


def our_name(name: str) -> str:
    """Return our name of a layer; the reference calls the stages of its VGG for Tiny-ImageNet block0, block1, ..."""
    return name.replace("block", "layer") if name.startswith("block") else name

"""The networks of the paper's Tiny-ImageNet rows, as configured in conf/model, against reference numbers."""

from __future__ import annotations

from typing import Any

import command
import golden_data as golden
import pytest
import torch
from golden_networks import check_running_statistics, ewgs_scheme
from hydra import initialize_config_dir
from hydra.utils import instantiate
from torch import nn

from sqakd.app.compose import compose_spec
from sqakd.quantization.convert import quantize

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


@pytest.mark.parametrize(("option", "name"), NETWORKS)
def test_the_float_network_equals_the_reference(option: str, name: str) -> None:
    d = golden.load(f"06_tiny_{name}_fp")
    model, _ = make(option)
    layers = [layer | {"name": our_name(layer["name"])} for layer in golden.names(f"06_tiny_{name}_layers")]
    assert [layer["name"] for layer in layers] == [k for k in model.state_dict() if "num_batches" not in k]
    assert sum(p.numel() for p in model.parameters()) == int(d["n_params"])

    golden.fill(model, layers, int(d["seed"]))
    x = golden.images(d["input_shape"], int(d["seed"]), calibration=False)
    with torch.no_grad():
        assert golden.error(model.eval()(x), d["logits_eval"]) <= 1e-4
        model.train()
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.eval()
        assert golden.error(model(x), d["logits_train"]) <= 1e-3
    check_running_statistics(model, d["bn_running_sums_after_train"])


@pytest.mark.parametrize(("option", "name"), NETWORKS)
def test_all_layers_but_the_first_and_the_last_are_quantized(option: str, name: str) -> None:
    """The reference, by an oversight, quantizes SqueezeNet's last layer too."""
    model, config = make(option)
    listed = [our_name(layer) for layer in golden.names(f"06_academic_{name}_quantisers")["weight_quantisers"]]
    order = [k for k, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert set(order) == set(listed)
    assert quantize(model, ewgs_scheme(4), first=config["first"]) == order[1:-1]

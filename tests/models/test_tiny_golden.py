"""The networks of the paper's Tiny-ImageNet rows, as configured in conf/model, against reference numbers."""

from __future__ import annotations

import golden_data as golden
import pytest
import torch
from golden_networks import check_running_statistics, ewgs_scheme
from golden_tiny import NETWORKS, make, our_name
from torch import nn

from sqakd.quantization.convert import quantize


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

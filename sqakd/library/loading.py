"""Networks from files: the network of a finished run, or weights for a network in memory."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from sqakd.app.compose import make
from sqakd.app.parts import quantize_network, without_pretrained
from sqakd.dataset.base import ImageDataModule
from sqakd.errors import SqakdError
from sqakd.library.quantizing import dequantize
from sqakd.quantization.layers import quant_layers, quantizers
from sqakd.quantization.quantizers.base import Quantizer
from sqakd.quantization.residual import residual_sums
from sqakd.runs.checkpoint import load_weights, read_checkpoint, restore
from sqakd.runs.folder import RunFolder
from sqakd.runs.foreign import find_weights
from sqakd.runs.layout import Layout
from sqakd.runs.record import read_record
from sqakd.runs.run_weights import load_run_weights
from sqakd.runs.spec import with_added_keys
from sqakd.runs.targets import check_targets
from sqakd.warning import warn

CONSTRUCTED = ("model", "quantizer")
DESCRIPTION = (*CONSTRUCTED, "num_classes", "image_shape")  # facts of a weights file that construct its network


def load(path: str | Path, model: nn.Module | None = None) -> nn.Module:
    """Return the network of a finished run, or a copy of a network with the weights of a file.

    No code in the file runs: it is read as plain tensors and numbers.

    Args:
        path: folder of a finished run, runs/NAME/seed0; or a weights.pt or weights.safetensors that a run wrote,
            wherever it lies now; or, with `model`, any file of torch.save or safetensors with the weights of such a
            network, however its trainer has named and nested them.
        model: network that the weights belong to, float or the result of `quantize`. It is not changed. Without it the
            network is constructed as the run's configuration says, or the facts in the file.

    Returns:
        The network in evaluation mode on the CPU. A quantized network is calibrated, because its ranges are saved with
        its weights.

    Raises:
        SqakdError: if the file is missing, damaged or of another network, also of one with other quantizers or bits if
            a run wrote the file, or the folder is not that of a finished run.

    Example:
        >>> import tempfile, torch
        >>> network = nn.Sequential(nn.Linear(2, 2))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save({"state_dict": network.state_dict(), "epoch": 3}, f"{folder}/best.pt")
        ...     loaded = load(f"{folder}/best.pt", nn.Sequential(nn.Linear(2, 2)))
        >>> bool((loaded[0].weight == network[0].weight).all())
        True
    """
    path = Path(path)
    if model is not None:
        made = copy.deepcopy(model).cpu()
        found = find_weights(path, Layout.of_network(made))
        restore(made, found.tensors, source=str(path))
        _check_quantization(made, found.facts, path)
        if found.note:
            warn(found.note)
        return made.eval()
    folder = RunFolder(path if path.is_dir() else path.parent)
    if not path.is_dir() and not (folder.config.is_file() and path == folder.weights):
        return _described(path)
    if not folder.config.is_file():
        raise SqakdError(f"{path} is not a run: it has no config.yaml")
    if not folder.finished:
        raise SqakdError(f"the run {folder.path} is not finished: it has no record.json")
    config = folder.read_config()
    check_targets(config, CONSTRUCTED, file=folder.config)
    weights, facts = load_run_weights(folder, read_record(folder.record))
    network = _construct(config, facts["num_classes"], _image_shape(config, facts, folder))
    restore(network, weights, source=str(folder.weights))
    return network.eval()


def _described(file: Path) -> nn.Module:
    """Return the network that a weights file describes, without the run that wrote it.

    Raises:
        SqakdError: if no run of this project wrote the file, or an earlier version did.
    """
    content = read_checkpoint(file)
    facts = content.get("facts") if isinstance(content, dict) else None
    facts = facts if isinstance(facts, dict) else {}
    missing = [key for key in DESCRIPTION if key not in facts]
    if missing:
        raise SqakdError(
            f"{file} does not describe its network (it lacks {', '.join(missing)}): expected a file that a run of this"
            " version wrote, the folder of its run, or model= as well"
        )
    _check_facts(facts, file)
    check_targets(facts, CONSTRUCTED, file=file)
    network = _construct(with_added_keys(facts), facts["num_classes"], tuple(facts["image_shape"]))
    restore(network, load_weights(file)[0], source=str(file))
    return network.eval()


def _check_quantization(network: nn.Module, facts: Mapping[str, Any], file: Path) -> None:
    """Refuse a quantized network with other quantizers or bits than the run that wrote its weights.

    Tensors have the same names and shapes at any number of bits, so that such weights would silently compute something
    else. Files of other programs and of earlier versions do not say how their network was quantized.

    Args:
        network: with the weights of the file.
        facts: of the file.
        file: for the message.

    Raises:
        SqakdError: naming the first layer that differs.
    """
    if not quantizers(network) or any(facts.get(key) is None for key in DESCRIPTION):
        return
    _check_facts(facts, file)
    try:
        check_targets(facts, ("quantizer",), file=file)
    except SqakdError:  # a quantizer of the user's own: a file may not choose code outside this project
        return
    described = dequantize(network)
    scheme = make(facts["quantizer"], "quantizer")
    quantize_network(described, scheme, facts["model"]["first"], tuple(facts["image_shape"]), quietly=True)
    wanted, found = _layers(described), _layers(network)
    for name in wanted:
        if wanted[name] != found.get(name):
            raise SqakdError(
                f"{file} was made for another quantization: {name} has {wanted[name]} there and {found.get(name)} in"
                " the given network; expected a network with the quantizer and the bits of the file"
            )


def _layers(network: nn.Module) -> dict[str, str]:
    """Return what the codes of each quantized part of a network depend on besides its tensors."""
    layers = {
        f"layer {name}": f"{_text(layer.weight_quantizer)} weights and {_text(layer.input_quantizer)} inputs"
        for name, layer in quant_layers(network)
    }
    sums = {f"the sum {name}": f"{_text(module.quantizer)} operands" for name, module in residual_sums(network)}
    return layers | sums


def _text(quantizer: Quantizer) -> str:
    """Return bits and method of a quantizer, e.g. "3-bit LearnedStep"."""
    steps = " power-of-two" if getattr(quantizer, "power_of_two", False) else ""
    return f"{quantizer.bits}-bit{steps} {type(quantizer).__name__}"


def _check_facts(facts: Mapping[str, Any], file: Path) -> None:
    """Refuse facts of wrong types: such a file may come from anybody.

    Raises:
        SqakdError: naming the fact.
    """
    model, quantizer, shape = facts["model"], facts["quantizer"], facts["image_shape"]
    classes = facts["num_classes"]
    right = {
        "model": isinstance(model, dict) and isinstance(model.get("net"), dict) and "first" in model,
        "quantizer": quantizer is None or isinstance(quantizer, dict),
        "num_classes": type(classes) is int and classes > 0,
        "image_shape": isinstance(shape, list | tuple) and [type(side) for side in shape] == [int] * 3,
    }
    wrong = [key for key, is_right in right.items() if not is_right]
    if wrong:
        raise SqakdError(f"{file} has a wrong description of its network: {wrong[0]} is {facts[wrong[0]]!r:.60}")


def _construct(config: Mapping[str, Any], classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """Return the network of a run's nodes `model` and `quantizer`, without the weights of pretraining."""
    net = without_pretrained(config["model"]["net"])
    network: nn.Module = make(net, "model.net", num_classes=classes)
    if config["quantizer"] is not None:
        scheme = make(config["quantizer"], "quantizer")
        quantize_network(network, scheme, config["model"]["first"], image_shape, quietly=True)
    return network


def _image_shape(config: Mapping[str, Any], facts: Mapping[str, Any], folder: RunFolder) -> tuple[int, int, int]:
    """Return channels, height and width of a run's images; runs of earlier versions are asked for their data set."""
    if "image_shape" not in facts:
        check_targets(config, ("dataset",), file=folder.config)
        data: ImageDataModule = make(config["dataset"], "dataset")
        data.setup()
        return data.image_shape
    channels, height, width = facts["image_shape"]
    return channels, height, width

"""The choice of bits for each layer of a student, before it is quantized: bits=auto."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from sqakd.allocation.costs import Pair, average_bits
from sqakd.allocation.table import LayerSensitivity, Sensitivity, aligned
from sqakd.app.budget import fixed_bits, free_layers, rest_of
from sqakd.app.compose import located, make
from sqakd.app.console import first_process, say
from sqakd.app.parts import Parts
from sqakd.app.sensitivity import Measurement, picture_of, sensitivity_of, training_images
from sqakd.app.teacher import Networks
from sqakd.numbers import is_whole
from sqakd.report.sensitivity_picture import draw_sensitivity
from sqakd.runs.folder import RunFolder
from sqakd.runs.spec import Spec
from sqakd.training.ranks import decided_by_first, done_by_first

TENSORS = {"weights": "weight", "inputs": "input"}


def choose_bits(spec: Spec, parts: Parts, networks: Networks, folder: RunFolder) -> tuple[Spec, Parts]:
    """Choose the bits of each layer, unless the folder's run has chosen them already.

    The choice is printed and drawn into the run's folder. Of several processes the first one chooses. The others ask
    for the sensitivity too, because its lock lets them wait for as long as the measurement takes.

    Args:
        spec: of the run, with bits that are to be chosen.
        parts: of the run, with images loaded.
        networks: with the float student.
        folder: of the run; it exists and is locked.

    Returns:
        The specification with the bits of the layers as plain data, and the parts with a scheme that has them.

    Raises:
        SqakdError: if no choice keeps within the budget.
    """
    # Not at the top: scipy.optimize takes a moment to import, and most runs need nothing of it.
    from sqakd.allocation.program import allocate

    bits = decided_by_first(partial(folder.chosen_layer_bits, spec))
    if not bits:
        assert parts.scheme is not None
        shape, first = parts.data.image_shape, spec.config["model"]["first"]
        network = copy.deepcopy(networks.student).to(_device(spec)).eval()
        widths = [*parts.budget.widths, *(bits for bits in spec.bits if is_whole(bits))]
        how = Measurement(
            quantizer=spec.choices["quantizer"],
            node=spec.config["quantizer"],
            widths=sorted(set(widths)),
            criterion=parts.budget.criterion,
        )
        images = training_images(parts.data, parts.budget.images, spec.config["teacher"]["seed"]).to(_device(spec))
        found, _ = sensitivity_of(_float_folder(networks, folder), network, parts.scheme, images, how)
        free = set(free_layers(network, parts.scheme, first, shape).values())
        layers = [layer for layer in found.layers if layer.name in free]
        rest = rest_of(network, parts.scheme, first, shape, layers)
        with located("budget"):
            chosen = decided_by_first(partial(allocate, layers, parts.budget, rest, **fixed_bits(spec)))
        bits = {
            "layer_w_bits": {name: pair.weight for name, pair in chosen.items()},
            "layer_a_bits": {name: pair.input for name, pair in chosen.items()},
        }
        costs, picture = rest.cost_with(layers, chosen), folder.path / "bits.png"
        report = partial(_report, spec, parts, found, layers, chosen, costs, picture)
        done_by_first(report, first=first_process())
    decided = spec.with_layer_bits(bits)
    return decided, replace(parts, scheme=make(decided.config["quantizer"], "quantizer"))


def _device(spec: Spec) -> torch.device:
    on_gpu = torch.cuda.is_available() and spec.config["trainer"]["accelerator"] in ("auto", "gpu", "cuda")
    return torch.device("cuda" if on_gpu else "cpu")


def _float_folder(networks: Networks, folder: RunFolder) -> Path:
    """Return the folder of the float run that the student starts from; the student's own if there is none."""
    record = networks.float_run
    float_run = None if record is None else folder.sibling(record.name, record.seed)
    return folder.path if float_run is None or not float_run.finished else float_run.path


def _report(
    spec: Spec,
    parts: Parts,
    found: Sensitivity,
    layers: Sequence[LayerSensitivity],
    chosen: Mapping[str, Pair],
    costs: tuple[int, int],
    picture: Path,
) -> None:
    """Print the chosen bits, and draw them into the picture of the sensitivity."""
    loss = sum(layer.weight[chosen[layer.name].weight] + layer.input[chosen[layer.name].input] for layer in layers)
    w_bits, a_bits = average_bits(layers, chosen)
    say(
        f"bits chosen for {len(layers)} layers with {parts.budget.text()}: {costs[0] / 1000:.1f} kB packed,"
        f" {costs[1] / 1e6:.1f}M bit-operations, on average w{w_bits:.2f} a{a_bits:.2f}, summed loss {loss:.3g}"
    )
    rows = [[name, *(f"{'█' * bits} {bits}" for bits in pair)] for name, pair in chosen.items()]
    for line in aligned([["layer", "weight", "input"], *rows]).splitlines():
        say(line)
    marked = {tensor: {layer: getattr(pair, key) for layer, pair in chosen.items()} for tensor, key in TENSORS.items()}
    draw_sensitivity(picture, **picture_of(found), chosen=marked)
    say(f"picture: {picture}")

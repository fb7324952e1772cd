"""`quantize`, `calibrate` and `dequantize`."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import library_parts
import pytest
import small
import torch
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import sqakd
from sqakd.app.configuration import own_configuration
from sqakd.errors import SqakdError
from sqakd.library.presets import preset, preset_names
from sqakd.quantization import convert
from sqakd.quantization.calibrate import calibrate
from sqakd.quantization.layers import layer_bits, quantizers
from sqakd.quantization.quantizers.base import Quantizer
from sqakd.quantization.quantizers.dorefa import TanhRange, TanhWeights, UnitActivations
from sqakd.quantization.quantizers.ewgs import ActivationBounds, WeightBounds
from sqakd.quantization.quantizers.lsq import LearnedStep
from sqakd.quantization.quantizers.pact import ClippedActivation
from sqakd.quantization.residual import residual_sums
from sqakd.shipped import conf_folder


def described(model: nn.Module) -> list[dict[str, Any]]:
    """Return the plain values of every quantizer."""
    plain = bool, int, float, str, tuple
    return [
        {"class": type(q), "rounding": type(q.rounding)} | {k: v for k, v in vars(q).items() if isinstance(v, plain)}
        for q in quantizers(model)
    ]


def test_training_without_ranges_is_refused(tmp_path: Path) -> None:
    network, images = library_parts.network(), library_parts.images()
    student = copy.deepcopy(sqakd.quantize(network, "lsq", bits=2))
    with torch.no_grad():
        student(images)  # such as a count of the operations
    for _ in range(2):
        with pytest.raises(SqakdError, match="the network has no ranges yet; expected calibrate"):
            student(images)
    torch.save(student, tmp_path / "student.pt")
    sqakd.calibrate(student, images)
    assert not student._forward_pre_hooks
    student(images).sum().backward()
    loaded = sqakd.quantize(network, "lsq", bits=2)
    loaded.load_state_dict(student.state_dict())
    assert torch.equal(loaded(images), student(images))
    assert not loaded._forward_pre_hooks
    assert not sqakd.dequantize(sqakd.quantize(network))._forward_pre_hooks


@pytest.mark.parametrize("widths", [{"bits": 3}, {"w_bits": 3}, {"a_bits": 3}])
def test_bits_beside_a_scheme_are_refused(widths: dict[str, int]) -> None:
    with pytest.raises(SqakdError, match=r"bits=3: expected None, because a Scheme has its own bits"):
        sqakd.quantize(library_parts.network(), preset("lsq", w_bits=2, a_bits=2), **widths)  # type: ignore[arg-type]


def test_a_network_in_double_precision_is_quantized() -> None:
    network, images = library_parts.network().double(), library_parts.images().double()
    student = sqakd.quantize(network, "lsq", bits=8, example=images)
    sqakd.calibrate(student, images)
    assert student(images).dtype == torch.float64


@pytest.mark.parametrize("name", preset_names())
def test_a_named_quantizer_is_that_of_a_run(name: str) -> None:
    overrides = [f"quantizer={name}", "bits=3", "recipe=imagefolder"]
    expected = library_parts.network()
    convert.quantize(expected, small.scheme(*overrides))
    assert described(sqakd.quantize(library_parts.network(), name, bits=3)) == described(expected)


@pytest.mark.parametrize(
    "made", [LearnedStep, WeightBounds, ActivationBounds, ClippedActivation, TanhRange, TanhWeights, UnitActivations]
)
def test_a_quantizer_needs_its_bits_alone(made: type[Quantizer]) -> None:
    quantizer = made(bits=2)
    quantizer.calibrate(torch.randn(100).abs())
    assert len(quantizer(torch.randn(100)).unique()) <= 4


def test_bits_of_weights_and_inputs_may_differ() -> None:
    student = sqakd.quantize(library_parts.network(), "lsq", w_bits=1, a_bits=4)
    assert [q.bits for q in quantizers(student)] == [1, 4]


def test_residual_sums_may_have_bits() -> None:
    student = sqakd.quantize(small.network(), "lsq", bits=3, residual_bits=8)
    sums = residual_sums(student)
    assert [total.quantizer.bits for _, total in sums] == [8, 8, 8]
    with pytest.raises(sqakd.SqakdError, match="the values of the residual sums need a step of nan"):
        sqakd.calibrate(_without_sums(student), small.batch(8))
    assert not any(bool(q.calibrated) for q in quantizers(student))
    assert not sums[0][1].quantizer.calibrated


def _without_sums(student: nn.Module) -> nn.Module:
    """Let the last residual sum see values that are no numbers."""
    last = residual_sums(student)[-1][1]
    last.register_forward_pre_hook(lambda _, args: tuple(float("nan") * x for x in args))
    return student


def test_single_layers_may_have_bits_of_their_own() -> None:
    student = sqakd.quantize(library_parts.network(), "lsq", bits=3, layer_bits={"0": 8}, layer_w_bits={"3": 1})
    assert layer_bits(student) == {"0": (8, 8), "3": (1, 3)}
    with pytest.raises(sqakd.SqakdError, match=r"layer_a_bits has 'conv\*', which matches no layer; the layers are"):
        sqakd.quantize(library_parts.network(), layer_a_bits={"conv*": 2})


def test_a_scheme_is_taken_as_it_is() -> None:
    make = partial(LearnedStep, bits=5)
    student = sqakd.quantize(library_parts.network(), sqakd.Scheme(weight=make, input=make, first_last="same"))
    assert [q.bits for q in quantizers(student)] == [5] * 6


def test_the_network_itself_does_not_change() -> None:
    network = library_parts.network()
    before = copy.deepcopy(network.state_dict())
    student = sqakd.quantize(network)
    sqakd.calibrate(student, library_parts.images())
    back = sqakd.dequantize(student)
    assert not any(True for _ in network.modules() if isinstance(_, Quantizer))
    assert all(bool((before[name] == tensor).all()) for name, tensor in network.state_dict().items())
    assert len(quantizers(student)) == 2
    assert list(back.state_dict()) == list(before)


def test_the_configuration_of_another_application_of_hydra_is_kept() -> None:
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        own = GlobalHydra.instance().hydra
        with own_configuration():
            assert GlobalHydra.instance().hydra is not own
        assert GlobalHydra.instance().hydra is own


def forms() -> dict[str, tuple[Any, Any]]:
    images, label = library_parts.images(), torch.zeros(8, dtype=torch.int64)
    return {
        "tensor": (images, None),
        "list": ([images], None),
        "pairs": ([(images, label)], None),
        "generator": ((images for _ in range(9)), None),
        "loader": (DataLoader(TensorDataset(images, label), batch_size=8), None),
        "mapping": ([{"pixels": images, "target": label}], "pixels"),
        "position": ([(label, images)], 1),
        "function": ([{"inputs": {"rgb": images}}], lambda batch: batch["inputs"]["rgb"]),
    }


@pytest.mark.parametrize("form", forms())
def test_every_form_of_batches_gives_the_same_ranges(form: str) -> None:
    expected = library_parts.network()
    convert.quantize(expected, small.scheme("quantizer=lsq", "bits=2"))
    calibrate(expected, library_parts.images())
    student = sqakd.quantize(library_parts.network())
    batches, key = forms()[form]
    sqakd.calibrate(student, batches, key=key)
    wanted = expected.state_dict()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in student.state_dict().items())


def test_several_batches_pass_together() -> None:
    one, other = (sqakd.quantize(library_parts.network()) for _ in range(2))
    sqakd.calibrate(one, library_parts.batches(3), batches=2)
    sqakd.calibrate(other, torch.cat(library_parts.batches(2)))
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


class Segmentation(nn.Module):
    """Images -> a dictionary with a class map, as torchvision's segmentation networks return."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(nn.Conv2d(3 if not i else 4, 4, 3, padding=1) for i in range(3)))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return OrderedDict(out=self.layers(images))


def test_a_network_with_other_outputs_than_logits_can_be_quantized() -> None:
    student = sqakd.quantize(Segmentation(), example=library_parts.images())
    sqakd.calibrate(student, library_parts.images())
    assert student(library_parts.images())["out"].shape == (8, 4, 8, 8)


def endless() -> Iterator[Tensor]:
    while True:
        yield library_parts.images()


IMAGES = library_parts.images()
BAD_IMAGES: dict[str, tuple[Any, dict[str, Any], str]] = {
    "an end": (iter([IMAGES]), {"batches": 2}, "the images end after 1 batches; expected at least 2"),
    "another shape": (
        [IMAGES, IMAGES[..., :7]],
        {"batches": 2},
        r"\[3, 8, 7\] follow images of shape \[3, 8, 8\]",
    ),
    "a shape for another network": ([IMAGES[:, :2]], {}, r"cannot take images of shape \[8, 2, 8, 8\]: "),
    "NaN": ([IMAGES * float("nan")], {}, "values that are NaN or infinite"),
    "no key": (
        [{"pixels": IMAGES}],
        {"key": "image"},
        "a batch has no 'image'; .* the keys 'pixels'",
    ),
    "a mapping without a key": ([{"pixels": IMAGES}], {}, "a batch has dict where its images were expected"),
    "integers": ([(IMAGES * 0).byte()], {}, "images of type torch.uint8: expected floating-point"),
    "one image": ([IMAGES[0]], {}, r"images of shape \[3, 8, 8\]: expected \[N, C, H, W\]"),
    "no iterable": (3, {}, "found int; expected an iterable of batches"),
}


@pytest.mark.parametrize("case", BAD_IMAGES)
def test_bad_images_are_refused(case: str) -> None:
    images, arguments, message = BAD_IMAGES[case]
    with pytest.raises(sqakd.SqakdError, match=message):
        sqakd.calibrate(sqakd.quantize(library_parts.network()), images, **arguments)


def test_bad_networks_and_names_are_refused() -> None:
    network, images = library_parts.network(), library_parts.images()
    student = sqakd.quantize(network)
    sqakd.calibrate(student, images)
    refused: list[tuple[Callable[[], object], str]] = [
        (lambda: sqakd.quantize(nn.Sequential(nn.ReLU())), "found 0 Conv2d and Linear layers and none to quantize"),
        (lambda: sqakd.quantize(student), "quantized already"),
        (lambda: sqakd.quantize(network, "lsqq"), "found no quantizer 'lsqq'; did you mean lsq?"),
        (lambda: sqakd.quantize(network, bits=9), "w_bits=9: expected a whole number from 1 to 8"),
        (lambda: sqakd.quantize(network, a_bits=2.5), "a_bits=2.5: expected"),  # type: ignore[arg-type]
        (lambda: sqakd.quantize(network, example=images[:, :2]), "cannot take images of shape [8, 2, 8, 8]"),
        (lambda: sqakd.quantize(network, first=["stem"]), "the network has no convolution or linear layer in 'stem'"),
        (lambda: sqakd.calibrate(network, images), "no quantized layer; expected the result of quantize"),
        (lambda: sqakd.calibrate(student, images), "calibrated already"),
        (lambda: sqakd.dequantize(network), "no quantized layer, so there is nothing to undo"),
    ]
    for call, message in refused:
        with pytest.raises(sqakd.SqakdError, match=re.escape(message)):
            call()


def test_the_number_of_calibration_batches_is_checked() -> None:
    student = sqakd.quantize(library_parts.network())
    for count in (0, -1, 1.5):
        with pytest.raises(SqakdError, match=f"batches={count}: expected a whole number"):
            sqakd.calibrate(student, library_parts.batches(), batches=count)  # type: ignore[arg-type]


def test_a_calibration_that_fails_can_be_repeated() -> None:
    network = library_parts.network()
    student = sqakd.quantize(nn.Sequential(*network[:4], nn.Conv2d(4, 4, 1), *network[4:]))
    student[3].register_forward_hook(lambda *_: torch.zeros(8, 4, 4, 4))
    with pytest.raises(SqakdError, match="layer 4: "):
        sqakd.calibrate(student, library_parts.images())
    student[3]._forward_hooks.clear()
    sqakd.calibrate(student, library_parts.images())


def test_only_networks_are_quantized() -> None:
    with pytest.raises(SqakdError, match="found int; expected a network"):
        sqakd.quantize(3)  # type: ignore[type-var]


def test_another_application_of_hydra_and_omegaconf_is_left_alone() -> None:
    code = """
from hydra import version
from omegaconf import OmegaConf
OmegaConf.register_new_resolver("home", lambda x: "mine")
version.setbase("1.2")
import sqakd
from torch import nn
sqakd.quantize(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)), "ewgs", bits=5)
print(OmegaConf.create({"a": "${home:x}"}).a, version.VersionBase.instance().getbase())
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "mine 1.2\n"

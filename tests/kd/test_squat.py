"""SQuaT against reference numbers, and the layers that its gradient reaches."""

from __future__ import annotations

from pathlib import Path

import golden_data as golden
import numpy as np
import pytest
import small
import torch
from torch import Tensor, nn

from sqakd.advice import explain
from sqakd.errors import SqakdError
from sqakd.kd.base import FeatureBatch
from sqakd.kd.squat import Distance, SQuaT, code_distance
from sqakd.quantization.layers import QuantConv2d
from sqakd.quantization.quantizers.ewgs import ActivationBounds
from sqakd.quantization.quantizers.lsq import LearnedStep
from sqakd.quantization.quantizers.rounding import ElementWiseGradientScaling
from sqakd.training.task import Task

D = golden.load("08_squat_feature")
# The teacher's feature is put on the student's grid. The reference also has cases with a finer or coarser grid.
SAME = [i for i in range(int(D["n_cases"])) if D["levels_a"][i] == D["levels_f"][i]]


def quantizer(i: int) -> ActivationBounds:
    rounding = ElementWiseGradientScaling(delta=float(D["delta_a"][i]))
    made = ActivationBounds(bits=int(np.log2(D["levels_a"][i])), rounding=rounding, shape=(), start="paper")
    made.lower.data.fill_(float(D["lA"][i]))
    made.upper.data.fill_(float(D["uA"][i]))
    return made


def batch(student: Tensor, teacher: Tensor) -> FeatureBatch:
    nothing = torch.empty(0)
    return FeatureBatch([student], [teacher], nothing, nothing, nothing, {})


def loss(i: int, distance: Distance) -> tuple[SQuaT, ActivationBounds, Tensor]:
    made = SQuaT(distance=distance, tap=None)
    layer = QuantConv2d.from_float(
        nn.Conv2d(4, 4, 1),
        weight=lambda _: quantizer(i),
        input=lambda _: quantizer(i),
        output_scale=False,
        per_channel=False,
    )
    assert made.taps([], nn.Sequential(layer)) == ["0:input"]
    return made, layer.input_quantizer, torch.from_numpy(D[f"hs_{i:02d}"]).requires_grad_()  # type: ignore[return-value]


def test_the_reference_has_cases_to_check() -> None:
    assert len(SAME) >= 4


@pytest.mark.parametrize("i", SAME)
def test_loss_and_gradients_equal_the_reference(i: int) -> None:
    made, own, student = loss(i, "l2")
    assert torch.equal(made.encode(student).detach(), torch.from_numpy(D[f"zs_{i:02d}"]))
    (value,) = made(batch(student, torch.from_numpy(D[f"ht_{i:02d}"])))
    value.backward()
    assert float(value.detach()) == pytest.approx(float(D["loss_l2"][i]), rel=1e-5)
    assert student.grad is not None
    assert golden.error(student.grad, D[f"dhs_{i:02d}"]) <= 1e-5
    assert float(own.lower.grad) == pytest.approx(float(D["dlA"][i]), rel=1e-4, abs=1e-6)  # type: ignore[arg-type]
    assert float(own.upper.grad) == pytest.approx(float(D["duA"][i]), rel=1e-4, abs=1e-6)  # type: ignore[arg-type]


@pytest.mark.parametrize("i", SAME)
@pytest.mark.parametrize(("distance", "key"), [("l1", "loss_l1"), ("cosine", "loss_cos")])
def test_other_distances_equal_the_reference(i: int, distance: Distance, key: str) -> None:
    made, _, student = loss(i, distance)
    (value,) = made(batch(student, torch.from_numpy(D[f"ht_{i:02d}"])))
    assert float(value.detach()) == pytest.approx(float(D[key][i]), rel=1e-5)


def test_the_loss_at_one_bit_is_the_share_of_codes_that_differ() -> None:
    student, teacher = (torch.randint(2, (8, 5), generator=torch.Generator().manual_seed(i)).float() for i in (0, 1))
    assert code_distance(student, teacher, "l2") == (student != teacher).float().mean()


def test_codes_are_scaled_by_the_grid_as_it_is_now() -> None:
    """Bits may decrease in stages, and the calibration may find a sign; both after the tap was found."""
    layer = small.quantized("quantizer=lsq").get_submodule("layer3.0.conv2")
    made = SQuaT(distance="l2", tap=None)
    made.taps([], nn.Sequential(layer))
    own = layer.input_quantizer
    assert isinstance(own, LearnedStep)
    far = torch.tensor([-1e6, 1e6])
    for bits, signed in ((8, False), (2, False), (8, True), (2, True), (1, True)):
        own.set_bits(bits)
        own.signed = signed
        assert made.encode(far).abs().max() == 1


def task(*words: str) -> Task:
    made = small.make_task(small.quantized(*words), small.network(seed=1), "kd=squat", *words)
    made.build_feature_loss(small.batch(2), training_images=24, labels=None)
    return made


@pytest.mark.parametrize("method", ["ewgs", "lsq", "pact", "dorefa", "lsq_released"])
def test_the_gradient_reaches_the_layers_before_the_tap_for_every_quantizer(method: str) -> None:
    made = task(f"quantizer={method}")
    losses = made.losses(small.batch(4), None, torch.arange(4), {})
    assert losses.keys() == {"loss", "kl", "feature"}
    assert 0 < float(losses["feature"].detach()) <= 4
    losses["feature"].backward()  # type: ignore[no-untyped-call]
    with_gradient = {name for name, p in made.student.named_parameters() if p.grad is not None and p.grad.abs().sum()}
    # Layers before the tap get a gradient. The tapped layer's own weight and the layers after it get none.
    assert {"conv1.weight", "layer3.0.conv1.weight"} <= with_gradient
    assert not {"layer3.0.conv2.weight", "layer3.0.bn2.weight", "linear.weight"} & with_gradient


def test_the_loss_has_no_parameters_and_no_state_of_its_own() -> None:
    made = task()
    assert list(made.objective.parameters()) == []
    assert not [name for name in made.state_dict() if name.startswith("objective")]


@pytest.mark.exhaustive
def test_compiled_losses_equal_eager_losses() -> None:
    made, images, index = task(), small.batch(4), torch.arange(4)
    eager = made.losses(images, None, index, {})
    compiled = torch.compile(made.eager_losses, fullgraph=True, backend="aot_eager")(images, None, index, {})
    assert all(torch.allclose(eager[name], compiled[name]) for name in eager)


def test_the_student_trains(tmp_path: Path) -> None:
    made = task("recipe.epochs=1")
    before = made.student.state_dict()["layer3.0.conv1.weight"].clone()
    trainer = small.fit(made, tmp_path)
    assert not torch.equal(made.student.state_dict()["layer3.0.conv1.weight"], before)
    assert float(trainer.callback_metrics["train/feature"]) > 0


def test_unknown_distances_float_students_and_float_layers_are_refused() -> None:
    with pytest.raises(SqakdError, match="expected l2, l1 or cosine"):
        SQuaT(distance="kl", tap=None)  # type: ignore[arg-type]
    with pytest.raises(SqakdError, match="a quantizer of the student, but the student has none") as error:
        small.make_task(small.network(), small.network(seed=1), "kd=squat")
    assert "quantizer=ewgs" in explain(error.value)
    with pytest.raises(SqakdError, match=r"tap=conv1: expected a quantized layer; the last are .*conv2"):
        small.make_task(small.quantized(), small.network(seed=1), "kd=squat", "kd.feature_loss.tap=conv1")

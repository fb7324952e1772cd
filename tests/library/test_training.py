"""`distill`: the whole training from batches of any loader."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import library_parts
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import sqakd
from sqakd.errors import SqakdError
from sqakd.kd.reconstruction import Reconstruction
from sqakd.library.presets import composed, preset
from sqakd.library.quantizing import NeedsRanges
from sqakd.library.stream import Stream
from sqakd.quantization.layers import quantizers

CPU = {"accelerator": "cpu"}
QUICK: dict[str, Any] = {"trainer": CPU, "progress": False, "epochs": 2}


def pairs(count: int = 3) -> list[tuple[Tensor, Tensor]]:
    return [(images, torch.arange(8) % library_parts.CLASSES) for images in library_parts.batches(count)]


def test_the_defaults_are_those_of_the_configuration() -> None:
    defaults = {name: p.default for name, p in inspect.signature(sqakd.distill).parameters.items()}
    recipe = composed().config["recipe"]
    for name in ("epochs", "lr", "quantizer_lr", "weight_decay"):
        assert defaults[name] == recipe[name]
    assert defaults["temperature"] == composed("kd=sqakd").config["kd"]["temperature"]


def test_a_student_learns_from_images_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    teacher = library_parts.network()
    teacher.train()
    before, state = copy.deepcopy(teacher.state_dict()), torch.get_rng_state()
    result = sqakd.distill(teacher, library_parts.batches(), "ewgs", bits=3, epochs=12, progress=False, trainer=CPU)
    assert result.scores["kl"] < 0.7 * result.scores_before["kl"]
    assert set(result.scores) == {"agreement", "kl"}
    assert [row["epoch"] for row in result.history] == list(range(12))
    assert result.history[-1]["train/loss"] < result.history[0]["train/loss"]
    assert result.cost.packed_bytes < 4 * result.cost.parameters
    assert not result.student.training
    # EWGS's gradient scaling is estimated from the curvature, as in a run.
    assert any(float(q.rounding.get_buffer("delta")) > 0 for q in quantizers(result.student))
    # Neither the teacher nor torch's random numbers nor the folder has changed.
    assert teacher.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert list(tmp_path.iterdir()) == []


def test_labels_of_validation_batches_give_the_accuracy() -> None:
    result = sqakd.distill(library_parts.network(), library_parts.batches(), validation=pairs(), **QUICK)
    assert set(result.scores) == {"agreement", "kl", "top1", "top5"}
    assert result.scores["top5"] == 1.0
    assert result.history[-1]["val/top1"] == pytest.approx(result.scores["top1"])


@pytest.mark.parametrize("training", [True, False])
def test_the_student_trains_whatever_mode_the_networks_were_in(training: bool) -> None:
    """A loaded teacher is in evaluation mode, where batch norm of its copy would stay as it is."""
    teacher, batches = library_parts.network().train(training), library_parts.batches()
    given = sqakd.quantize(teacher, "lsq", bits=2)
    results = [
        sqakd.distill(teacher, batches, "lsq", bits=2, **QUICK),
        sqakd.distill(teacher, batches, student=given, **QUICK),
    ]
    counts = [int(result.student[1].num_batches_tracked) for result in results]  # type: ignore[index]
    assert counts == [40 + 1 + 2 * len(batches)] * 2  # of the teacher, the calibration and two epochs
    assert teacher.training == training
    assert results[0].scores == results[1].scores


def test_parts_of_a_student_in_training_mode_may_be_frozen() -> None:
    student = sqakd.quantize(library_parts.network(), "lsq", bits=2).train()
    student[1].eval()
    sqakd.distill(library_parts.network(), library_parts.batches(), student=student, **QUICK)
    assert student[1].num_batches_tracked == 40 + 1  # the calibration updates them


def test_labels_of_training_images_do_not_matter() -> None:
    batches = [*pairs(1), (library_parts.images(), torch.full((8,), -1))]  # the first batch has labels
    whole = sqakd.distill(library_parts.network(), batches, validation=library_parts.batches(), **QUICK)
    assert set(whole.scores) == {"agreement", "kl"}
    positions = [(library_parts.images(4), torch.arange(4) + 4 * i) for i in range(3)]
    chosen = sqakd.distill(library_parts.network(), positions, key=lambda batch: batch[0], **QUICK)
    assert set(chosen.scores) == {"agreement", "kl"}
    with pytest.raises(SqakdError, match=r"found 4 from 4 to 7; expected a class from 0 to 4 for each.*key=lambda"):
        sqakd.distill(library_parts.network(), positions, **QUICK)


@pytest.mark.parametrize("labels", [torch.full((8,), -1), torch.arange(100, 108), torch.arange(3)])
def test_what_is_no_class_is_no_label(labels: Tensor) -> None:
    """Unlabelled images of torchvision have -1; others have the position of the image."""
    batches = [(images, labels) for images in library_parts.batches()]
    result = sqakd.distill(library_parts.network(), batches, validation=batches, **QUICK)
    assert set(result.scores) == {"agreement", "kl"}


def test_labels_that_end_are_refused() -> None:
    validation = [*pairs(1), (library_parts.images(), torch.full((8,), -1))]
    with pytest.raises(SqakdError, match="found 8 from -1 to -1; expected a class from 0 to 4"):
        sqakd.distill(library_parts.network(), library_parts.batches(), validation=validation, **QUICK)


def test_validation_images_may_come_in_another_order_in_each_epoch() -> None:
    """The teacher's logits of an epoch belong to the images of that epoch."""
    shuffled = DataLoader(TensorDataset(torch.cat(library_parts.batches(8))), batch_size=8, shuffle=True)
    result = sqakd.distill(library_parts.network(), library_parts.batches(), bits=8, validation=shuffled, **QUICK)
    assert result.history[-1]["val/kl"] == pytest.approx(result.scores["kl"], rel=1e-3)


LAYERS = ("0", "2", "3", "4")


def test_features_are_reproduced_first() -> None:
    teacher, batches = library_parts.network(), library_parts.batches()
    plain = sqakd.distill(teacher, batches, bits=2, start="mse", **QUICK | {"epochs": 6})
    staged = sqakd.distill(teacher, batches, bits=2, start="mse", layers=LAYERS, **QUICK | {"epochs": 8})
    assert [len(result.history) for result in (plain, staged)] == [6, 6], "two of eight epochs have the features"
    assert plain.scores_before == staged.scores_before
    assert plain.history[0] != staged.history[0]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in staged.student.modules())


def test_the_stage_is_that_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    stages = Mock()
    monkeypatch.setattr("sqakd.library.training.pretrain", stages)
    sqakd.distill(library_parts.network(), library_parts.batches(), layers=LAYERS, lr=0.02, **QUICK | {"epochs": 12})
    task, epochs = stages.call_args.args[0], stages.call_args.kwargs["epochs"]
    loss = task.objective.feature_loss
    assert isinstance(loss, Reconstruction)
    assert (epochs, loss.pretrain_lr, loss.names) == (3, None, list(LAYERS[1:]))
    assert (task.objective.kl, task.objective.feature, task.recipe.epochs, task.recipe.lr) == (1.0, 0.0, 9, 0.02)


@pytest.mark.parametrize("layers", [LAYERS, ("0", "2", "conv"), ("0", "2", "only_here")])
def test_a_student_that_was_given_has_no_hooks_after_an_error(layers: tuple[str, ...]) -> None:
    student = sqakd.quantize(library_parts.network(), "lsq", bits=2)
    student.add_module("only_here", nn.Identity())
    with pytest.raises(SqakdError):
        sqakd.distill(library_parts.network(), iter(library_parts.batches()), student=student, layers=layers, steps=3)
    hooks = [hook for m in student.modules() for hook in (*m._forward_hooks.values(), *m._forward_pre_hooks.values())]
    assert all(isinstance(hook, NeedsRanges) for hook in hooks)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layers": ("0", "3")}, "expected at least 3"),
        ({"layers": ("0", "3", "conv")}, "no layer 'conv'"),
        (
            {"layers": LAYERS, "epochs": 1},
            "^epochs=1: expected at least 2, because the stage",
        ),
        ({"start": "least"}, "start='least': expected paper, mse or max"),
        ({"start": "mse", "quantizer": "dorefa"}, "no range whose start can be chosen"),
        ({"start": "mse", "student": "quantized"}, "the student is quantized already"),
        ({"bits": 3, "student": "quantized"}, "bits=3: expected None, because the student is quantized already"),
        ({"bits": 3, "quantizer": "scheme"}, "bits=3: expected None, because a Scheme has its own bits"),
        ({"student": "wider"}, "the student has 7 classes and the teacher 5; expected the same"),
        ({"student": 3}, "found int; expected a network"),
        ({"validation": iter([library_parts.images()])}, "the validation images have no length.*expected a list"),
        ({"validation": []}, "the validation images end before the first batch"),
        ({"start": "mse", "quantizer": "scheme"}, "a Scheme has its own starts"),
    ],
)
def test_starts_and_layers_that_cannot_work_are_refused(arguments: dict[str, Any], message: str) -> None:
    teacher = library_parts.network()
    made = {"quantized": sqakd.quantize(teacher), "scheme": preset("lsq", w_bits=2, a_bits=2)}
    made["wider"] = sqakd.quantize(nn.Sequential(*teacher[:-1], nn.Linear(64, 7)))
    given = {key: made.get(value, value) if isinstance(value, str) else value for key, value in arguments.items()}
    with pytest.raises(SqakdError, match=message):
        sqakd.distill(teacher, library_parts.batches(), **QUICK | given)


def test_a_start_is_that_of_the_configuration() -> None:
    teacher, images = library_parts.network(), library_parts.images()
    steps = {}
    for start in (None, "paper", "mse"):
        student = sqakd.quantize(teacher, "lsq", bits=1, start=start)
        sqakd.calibrate(student, images)
        steps[start] = [float(q.get_parameter("step").detach()) for q in quantizers(student)]
    assert steps[None] == steps["paper"] != steps["mse"]


def test_the_same_images_in_another_form_give_the_same_student() -> None:
    images = torch.cat(library_parts.batches())
    forms: list[tuple[Any, dict[str, Any]]] = [
        (library_parts.batches(), {}),
        (DataLoader(TensorDataset(images, torch.zeros(24)), batch_size=8), {}),
        ([{"image": batch} for batch in library_parts.batches()], {"key": "image"}),
        (iter(library_parts.batches() * 2), {"steps": 3}),
    ]
    states = []
    for form, arguments in forms:
        result = sqakd.distill(library_parts.network(), form, validation=library_parts.batches(), **arguments, **QUICK)
        states.append(result.student.state_dict())
    for state in states[1:]:
        assert all(torch.equal(tensor, states[0][name]) for name, tensor in state.items())


def test_without_an_epoch_the_student_is_calibrated_only() -> None:
    teacher, batches = library_parts.network(), library_parts.batches()
    student = sqakd.quantize(teacher)
    sqakd.calibrate(student, batches)
    result = sqakd.distill(teacher, batches, **QUICK | {"epochs": 0})
    assert result.scores == result.scores_before
    wanted = student.state_dict()
    for name, tensor in result.student.state_dict().items():
        # The memory format of the convolutions differs, and so the order of their sums.
        assert torch.allclose(tensor, wanted[name], rtol=1e-4, atol=1e-5), name


def test_another_student_is_trained_in_place() -> None:
    teacher, batches = library_parts.network(), library_parts.batches()
    student = sqakd.quantize(library_parts.network(seed=1), bits=4)
    result = sqakd.distill(teacher, batches, student=student, **QUICK)
    assert result.student is student
    assert all(bool(q.calibrated) for q in quantizers(student))


class Unknown(IterableDataset[Tensor]):
    def __iter__(self) -> Iterator[Tensor]:
        yield from library_parts.images()


def nan() -> list[Tensor]:
    first, *others = library_parts.batches()
    return [first, others[0] * float("nan")]


IMAGES = library_parts.images()
BAD: dict[str, tuple[Callable[[], Any], dict[str, Any], str]] = {
    "no image": (lambda: [], {}, "the images end before the first batch"),
    "an end": (lambda: iter(library_parts.batches(4)), {"steps": 3}, "end after 1 of 3 batches .* only once"),
    "too few": (lambda: library_parts.batches(2), {"steps": 3}, "end after 2 of 3 batches of an epoch"),
    "no length": (lambda: iter(library_parts.batches()), {}, "have no length, .* expected steps=NUMBER"),
    "a loader without a length": (lambda: DataLoader(Unknown(), batch_size=4), {}, "have no length"),
    "another shape": (lambda: [IMAGES, IMAGES[..., :7]], {}, r"\[3, 8, 7\] follow images of shape \[3, 8, 8\]"),
    "NaN": (nan, {}, "values that are NaN or infinite"),
    "no key": (lambda: [{"pixels": IMAGES}], {"key": "image"}, "a batch has no 'image'"),
    "other validation images": (
        library_parts.batches,
        {"validation": [IMAGES[..., :7]]},
        r"\[3, 8, 7\] follow images of shape \[3, 8, 8\]",
    ),
    "steps": (library_parts.batches, {"steps": 0}, "steps=0: expected"),
    "lr": (library_parts.batches, {"lr": -1.0}, "lr=-1.0: expected"),
    "precision": (library_parts.batches, {"trainer": CPU | {"precision": "16-mixed"}}, "half precision overflows"),
    "a float student": (library_parts.batches, {"student": library_parts.network()}, "no quantized layer"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused(case: str) -> None:
    make, arguments, message = BAD[case]
    with pytest.raises(sqakd.SqakdError, match=message):
        sqakd.distill(library_parts.network(), make(), **QUICK | arguments)


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 3)), r"the teacher returns shape \[8, 4, 6, 6\]; .* with Distiller"),
        (nn.Sequential(nn.Conv2d(5, 4, 3)), r"cannot take images of shape \[8, 3, 8, 8\]"),
        (nn.Sequential(nn.Flatten(), nn.ReLU()), "found 0 Conv2d and Linear layers"),
    ],
)
def test_bad_teachers_are_refused(teacher: nn.Module, message: str) -> None:
    with pytest.raises(sqakd.SqakdError, match=message):
        sqakd.distill(teacher, library_parts.batches(), **QUICK)


def test_a_teacher_that_is_not_finite_is_refused() -> None:
    teacher = library_parts.network()
    nn.init.constant_(teacher[5].bias, float("inf"))  # type: ignore[arg-type]
    with pytest.raises(sqakd.SqakdError, match="the teacher's logits are not finite"):
        sqakd.distill(teacher, library_parts.batches(), **QUICK)


def test_a_loss_that_is_not_finite_names_the_layer_and_no_checkpoint() -> None:
    teacher = library_parts.network()
    student = sqakd.quantize(teacher)
    sqakd.calibrate(student, library_parts.images())
    nn.init.constant_(student[0].weight, float("nan"))  # type: ignore[arg-type]
    with pytest.raises(sqakd.SqakdError, match=r"layer 0 has non-finite weight\.?$"):
        sqakd.distill(teacher, library_parts.batches(), student=student, **QUICK)


def test_a_last_step_that_breaks_the_weights_is_no_result() -> None:
    with pytest.raises(sqakd.SqakdError, match=r"^after epoch 0; layer 0 has non-finite"):
        sqakd.distill(library_parts.network(), library_parts.batches(1), lr=1e38, **QUICK | {"epochs": 1})


@pytest.mark.parametrize("epochs", [0, 1])
def test_scores_that_are_not_finite_are_no_result(epochs: int) -> None:
    student = sqakd.quantize(library_parts.network())
    sqakd.calibrate(student, library_parts.images())
    student[5].register_forward_hook(lambda module, _, y: y if module.training else y / 0)
    with pytest.raises(sqakd.SqakdError, match=f"^after the {'training' if epochs else 'calibration'}, kl is nan"):
        sqakd.distill(library_parts.network(), library_parts.batches(), student=student, **QUICK | {"epochs": epochs})


def test_a_student_can_still_be_trained_after_a_stage_that_failed() -> None:
    student = sqakd.quantize(library_parts.network(), "lsq", bits=2)
    with pytest.raises(sqakd.SqakdError, match="the loss before the training"):
        sqakd.distill(
            library_parts.network(),
            library_parts.batches(),
            student=student,
            layers=LAYERS,
            lr=1e30,
            **QUICK | {"epochs": 8},
        )
    assert all(parameter.requires_grad for parameter in student.parameters())


def test_an_iterator_goes_on_from_epoch_to_epoch() -> None:
    stream = Stream(iter(library_parts.batches(4)), steps=2)
    seen = [batch.image for _ in range(2) for batch in stream]
    assert torch.equal(torch.cat(seen), torch.cat(library_parts.batches(4)))


def test_nothing_is_compiled_unless_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def compiles(*_: object, **__: object) -> None:
        raise AssertionError("compiled")

    monkeypatch.setattr(torch, "compile", compiles)
    sqakd.distill(library_parts.network(), library_parts.batches(), **QUICK)
    with pytest.raises(AssertionError, match="compiled"):
        sqakd.distill(library_parts.network(), library_parts.batches(), **QUICK | {"trainer": CPU | {"compile": True}})


def test_both_stages_are_compiled_if_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []

    def compiles(function: Callable[..., Any], **_: object) -> Callable[..., Any]:
        compiled.append(function.__name__)
        return function

    monkeypatch.setattr(torch, "compile", compiles)
    words = QUICK | {"epochs": 4, "trainer": CPU | {"compile": True}}
    before = settings()
    sqakd.distill(library_parts.network(), library_parts.batches(), layers=LAYERS, **words)
    assert compiled == ["loss", "eager_losses"]
    assert settings() == before


def settings() -> tuple[object, ...]:
    """Return torch's settings that a compiled training changes."""
    return torch._dynamo.config.recompile_limit, torch._functorch.config.force_non_lazy_backward_lowering


@pytest.mark.parametrize("key", ["compile", "channels_last"])
def test_a_word_is_no_truth_value(key: str) -> None:
    with pytest.raises(SqakdError, match=f"{key}='auto': expected True or False"):
        sqakd.distill(library_parts.network(), library_parts.batches(), **QUICK | {"trainer": CPU | {key: "auto"}})


def test_a_frozen_teacher_has_a_student_that_learns() -> None:
    teacher = library_parts.network().requires_grad_(False)
    result = sqakd.distill(teacher, library_parts.batches(), **QUICK)
    learned = dict(result.student.named_parameters())
    assert not torch.equal(learned["0.weight"], dict(teacher.named_parameters())["0.weight"])
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


def test_settings_of_torch_stay() -> None:
    torch.use_deterministic_algorithms(True)
    try:
        sqakd.distill(library_parts.network(), library_parts.batches(), **QUICK)
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    sqakd.distill(
        library_parts.network(), library_parts.batches(), **QUICK | {"trainer": CPU | {"deterministic": True}}
    )
    assert not torch.are_deterministic_algorithms_enabled()


def test_ctrl_c_reaches_the_program() -> None:
    class Interrupted(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                raise KeyboardInterrupt
            return x

    teacher = library_parts.network()
    student = sqakd.quantize(teacher)
    sqakd.calibrate(student, library_parts.images())
    student.append(Interrupted())
    with pytest.raises(KeyboardInterrupt):
        sqakd.distill(teacher, library_parts.batches(), student=student, **QUICK)


def test_several_devices_and_networks_of_one_class_are_refused() -> None:
    with pytest.raises(SqakdError, match="expected one device"):
        sqakd.distill(
            library_parts.network(),
            library_parts.batches(),
            **QUICK | {"trainer": CPU | {"devices": 2, "strategy": "ddp"}},
        )
    one = nn.Sequential(*library_parts.network()[:-1], nn.Linear(64, 1))
    with pytest.raises(SqakdError, match="at least two classes"):
        sqakd.distill(one, library_parts.batches(), **QUICK)


def test_the_weight_decay_reaches_the_ranges() -> None:
    result = sqakd.distill(library_parts.network(), library_parts.batches(), "pact", weight_decay=0.25, **QUICK)
    assert {q.decay for q in quantizers(result.student)} == {0.0, 0.25}


def test_wrong_values_are_named_as_arguments() -> None:
    for arguments, message in (({"lr": -1}, "lr=-1: "), ({"temperature": 0}, "temperature=0: ")):
        with pytest.raises(SqakdError, match=f"^{message}"):
            sqakd.distill(library_parts.network(), library_parts.batches(), **QUICK | arguments)

"""When step and evaluation are compiled, and that an interrupted training is compiled at the same step.

Nothing is compiled here: the compiled step is a stand-in whose loss is 1.5 times as large. So the final weights show at
which step the training switched.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import small
import torch
from torch import Tensor
from torch._dynamo.exc import Unsupported

from sqakd.advice import explain
from sqakd.errors import SqakdError
from sqakd.runs.saved_state import find_start
from sqakd.training.callbacks import compilation
from sqakd.training.callbacks.compilation import Compilation, Mode
from sqakd.training.callbacks.resume import Resume
from sqakd.training.code_cache import VARIABLE, CodeCache, Times
from sqakd.training.compiled_step import CompiledStep
from sqakd.training.decision import Decision, read_decision
from sqakd.training.pretrain import Pretraining, pretrain
from sqakd.training.task import Task

FILE = Path("checkpoints") / "compilation.json"
EPOCHS, STEPS, DECIDES_AT = 4, 3, 4  # the decision is taken in the second epoch
NEVER, PAYS = Times(warm=1e9), Times(warm=1e-9, eager=1, compiled=0.5)
Weights = dict[str, Tensor]


class StopError(Exception):
    pass


class StopAt(pl.Callback):
    """Ends a training before one of its steps, as a kill does, or after it with a checkpoint, as SIGTERM does."""

    def __init__(self, step: int, resume: Resume | None = None) -> None:
        self.step, self.resume = step, resume

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, i: int) -> None:
        if self.resume is None and trainer.global_step == self.step:
            raise StopError

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, i: int
    ) -> None:
        if self.resume is not None and trainer.global_step == self.step:
            self.resume.save(trainer)
            raise StopError


class CompiledEvaluations(pl.Callback):
    """Collects the epochs whose evaluation ran compiled code."""

    def __init__(self) -> None:
        self.epochs: list[int] = []

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if isinstance(pl_module.evaluated_logits, CompiledStep):
            self.epochs.append(trainer.current_epoch)


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    def compile(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        if function.__name__ == "eager_logits":
            return function
        if function.__name__ == "loss":  # of the stage before the training
            return lambda images: 1.5 * function(images)
        return lambda *arguments: {name: 1.5 * value for name, value in function(*arguments).items()}

    monkeypatch.setattr(torch, "compile", compile)
    monkeypatch.setattr(compilation, "WARM_UP", 1)
    monkeypatch.setattr(compilation, "DECIDES_AT", DECIDES_AT)
    monkeypatch.setenv(VARIABLE, "elsewhere")  # restored after the test


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Callable[[Times], None]:
    """Return a function that sets what is known about the times of the step."""
    return lambda times: monkeypatch.setattr(CodeCache, "times", lambda *_: times)


def fit(
    folder: Path, mode: Mode = "auto", *, stop: int | None = None, saves: bool = False, look: Any = None
) -> tuple[Weights, list[str]]:
    """Train, or continue a training, and return the weights and the printed lines."""
    said: list[str] = []
    resume = Resume(folder / "last.ckpt", run="a", start=find_start(folder / "last.ckpt", run="a"))
    compiles = Compilation(mode, cache=CodeCache(folder / "cache"), file=folder / FILE, say=said.append)
    task = small.make_task(small.network(), None, "quantizer=none", f"recipe.epochs={EPOCHS}", "recipe.batch_size=8")
    callbacks = [] if stop is None else [StopAt(stop, resume if saves else None)]
    looks = [] if look is None else [look]
    trainer = small.make_small_trainer(task, folder, [*callbacks, *looks, compiles, resume])
    try:
        trainer.fit(task, datamodule=small.images(), ckpt_path=resume.start.file, weights_only=True)
    except StopError:
        assert stop is not None
    return task.student.state_dict(), said


def same(a: Weights, b: Weights) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def test_the_step_is_compiled_if_that_pays(tmp_path: Path, known: Callable[[Times], None]) -> None:
    known(PAYS)
    weights, said = fit(tmp_path)
    assert len(said) == 1
    assert said[0].startswith(f"compiling the training step: {EPOCHS * STEPS - DECIDES_AT} steps left, saves about ")
    assert not same(weights, fit(tmp_path / "eager", False)[0])
    assert not same(weights, fit(tmp_path / "compiled", True)[0]), "the first steps were eager"


def test_a_training_that_is_not_compiled_is_the_eager_one_and_says_nothing(
    tmp_path: Path, known: Callable[[Times], None]
) -> None:
    known(NEVER)
    weights, said = fit(tmp_path)
    assert said == []
    assert same(weights, fit(tmp_path / "eager", False)[0])


@pytest.mark.parametrize("saves", [False, True])
@pytest.mark.parametrize("stop", [DECIDES_AT - 1, DECIDES_AT, DECIDES_AT + 1, 2 * STEPS + 1])
def test_a_resumed_training_switches_at_the_same_step(
    stop: int, saves: bool, tmp_path: Path, known: Callable[[Times], None]
) -> None:
    known(PAYS)
    fit(tmp_path / "run", stop=stop, saves=saves)
    if stop > DECIDES_AT:
        known(NEVER)  # the decision has been taken
    resumed, said = fit(tmp_path / "run")
    known(PAYS)
    assert same(resumed, fit(tmp_path / "whole")[0])
    assert bool(said) == (stop <= DECIDES_AT)


@pytest.mark.parametrize("stop", [DECIDES_AT + 1, 2 * STEPS + 1])
def test_a_resumed_eager_training_stays_eager(stop: int, tmp_path: Path, known: Callable[[Times], None]) -> None:
    known(NEVER)
    fit(tmp_path / "run", stop=stop)
    known(PAYS)
    resumed, said = fit(tmp_path / "run")
    assert said == []
    assert same(resumed, fit(tmp_path / "eager", False)[0])


def evaluations(folder: Path, mode: Mode = "auto", **options: Any) -> list[int]:
    """Train, or continue a training, and return the epochs whose evaluation was compiled."""
    look = CompiledEvaluations()
    fit(folder, mode, look=look, **options)
    return look.epochs


def test_the_evaluation_is_compiled_from_the_decision_on_also_after_a_resume(
    tmp_path: Path, known: Callable[[Times], None]
) -> None:
    """The first checkpoint lies before the decision, which its file then keeps."""
    known(PAYS)
    assert evaluations(tmp_path / "whole") == [1, 2, 3]
    for stop, rest in ((DECIDES_AT + 1, [1, 2, 3]), (2 * STEPS + 1, [2, 3])):
        evaluations(tmp_path / f"run{stop}", stop=stop)
        assert evaluations(tmp_path / f"run{stop}") == rest


def test_no_evaluation_is_compiled_before_the_decision_of_the_uninterrupted_training(tmp_path: Path) -> None:
    (tmp_path / FILE).parent.mkdir()
    (tmp_path / FILE).write_text(json.dumps({"compile": True, "step": 2 * STEPS, "evaluation": True}))
    assert evaluations(tmp_path) == [2, 3]


@pytest.mark.parametrize(("share", "epochs"), [(0.0, []), (1.0, [1, 2, 3])])
def test_the_evaluation_is_compiled_only_if_that_pays(
    share: float, epochs: list[int], tmp_path: Path, known: Callable[[Times], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    known(PAYS)
    monkeypatch.setattr(compilation, "evaluated_share", lambda *_: share)
    assert evaluations(tmp_path) == epochs


def test_evaluations_are_compiled_at_once_or_never_by_request(tmp_path: Path) -> None:
    assert evaluations(tmp_path / "true", True) == [0, 1, 2, 3]
    assert evaluations(tmp_path / "false", False) == []


def test_images_left_to_evaluate_are_counted() -> None:
    data = small.images()
    trainer: Any = SimpleNamespace(
        train_dataloader=data.train_dataloader(), val_dataloaders=data.val_dataloader(), max_epochs=EPOCHS
    )
    trainer.num_training_batches, trainer.check_val_every_n_epoch = STEPS, 1
    assert compilation.evaluated_share(trainer, DECIDES_AT) == 3 * small.VAL / (small.TRAIN * EPOCHS - 8 * DECIDES_AT)
    trainer.check_val_every_n_epoch = 2
    assert compilation.evaluated_share(trainer, 0) == 2 * small.VAL / (small.TRAIN * EPOCHS)
    trainer.val_dataloaders = None
    assert compilation.evaluated_share(trainer, 0) == 0


def test_a_checkpoint_of_an_earlier_version_continues_eagerly(tmp_path: Path, known: Callable[[Times], None]) -> None:
    known(PAYS)
    fit(tmp_path, False, stop=2 * STEPS + 1)
    assert not (tmp_path / FILE).exists()
    content = torch.load(tmp_path / "last.ckpt", weights_only=True)
    content["callbacks"] = {key: state for key, state in content["callbacks"].items() if "Compilation" not in key}
    torch.save(content, tmp_path / "last.ckpt")
    assert same(fit(tmp_path)[0], fit(tmp_path / "eager", False)[0])


def test_a_failed_compilation_is_reported_and_the_training_continues_eagerly(
    tmp_path: Path, known: Callable[[Times], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> Callable[..., Any]:
        def compiled(*_: object) -> Any:
            raise Unsupported("no C++ compiler\nwith details")

        return compiled

    monkeypatch.setattr(torch, "compile", fails)
    known(PAYS)
    weights, said = fit(tmp_path)
    assert same(weights, fit(tmp_path / "eager", False)[0])
    assert said[1:] == ["the training step cannot be compiled and stays eager: no C++ compiler"]
    assert json.loads((tmp_path / FILE).read_text()) == {"compile": False, "step": DECIDES_AT, "evaluation": False}
    with pytest.raises(SqakdError, match="the training step cannot be compiled: no C") as caught:
        fit(tmp_path / "true", True)
    assert "trainer.compile=false" in explain(caught.value)


def test_compilation_at_once_is_announced_and_measured_for_later_runs(tmp_path: Path) -> None:
    _, said = fit(tmp_path, True)
    assert said == ["compiling the training step: costs about 8 s"]
    (times,) = json.loads(next(tmp_path.glob("cache/*/times.json")).read_text()).values()
    assert times["warm"] > 0


def test_a_smaller_last_batch_is_not_measured(tmp_path: Path) -> None:
    """Such a batch is the fastest, and would count as the whole step."""
    compiles = Compilation("auto", cache=CodeCache(tmp_path), file=tmp_path / FILE, say=print)
    task = small.make_task(small.network(), None, "quantizer=none")
    (whole,) = small.images().probe_batches(count=1, size=8, epoch=0)
    for batch, measured in ((whole, 1), (whole._replace(image=whole.image[:4]), 1), (whole, 2)):
        compiles.on_train_batch_end(running(), task, None, batch, 0)
        assert compiles.measured == measured


def test_without_a_measurement_nothing_is_compiled(
    tmp_path: Path, known: Callable[[Times], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is interrupted in each of its first steps has no time of an eager step."""
    monkeypatch.setattr(compilation, "WARM_UP", DECIDES_AT)
    known(PAYS)
    weights, said = fit(tmp_path)
    assert said == []
    assert same(weights, fit(tmp_path / "eager", False)[0])


def test_other_bits_are_another_kind_of_step_and_another_seed_is_not() -> None:
    two, three, seed = (
        compilation.kind(small.make_task(small.quantized(*words[:1]), small.network(), *words), running())
        for words in (("bits=2",), ("bits=3",), ("bits=2", "seed=5"))
    )
    assert two == seed != three


def running() -> Any:
    """Return what a trainer tells about a training on batches of 8."""
    return SimpleNamespace(train_dataloader=small.images().train_dataloader(), precision="32-true", is_global_zero=True)


class StoppedCompilation(Compilation):
    """Ends a training before one of its steps, as a kill does; a stage before the training takes no `StopAt`."""

    stop: int | None = None

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, i: int) -> None:
        if trainer.global_step == self.stop:
            raise StopError
        super().on_train_batch_start(trainer, pl_module, batch, i)


def fit_stage(folder: Path, mode: Mode = "auto", *, stop: int | None = None) -> tuple[Weights, list[str]]:
    """Train the stage before the training, or continue it, and return all tensors and the printed lines."""
    said: list[str] = []
    file = folder / "pretrain.ckpt"
    task = small.make_staged_task("kd=ft", "recipe.batch_size=8", f"kd.feature_loss.pretrain_epochs={EPOCHS}")
    compiles = StoppedCompilation(mode, cache=CodeCache(folder / "cache"), file=folder / FILE, say=said.append)
    compiles.stop = stop
    with contextlib.nullcontext() if stop is None else pytest.raises(StopError):
        pretrain(
            task,
            small.images(),
            {"accelerator": "cpu", "devices": 1},
            epochs=EPOCHS,
            images=small.batch(2),
            resume=Resume(file, start=find_start(file, run="")),
            callbacks=[],
            compilation=compiles,
        )
    return task.state_dict(), said


def test_the_step_of_the_stage_before_the_training_is_compiled_by_the_same_rule(
    tmp_path: Path, known: Callable[[Times], None]
) -> None:
    known(NEVER)
    eager, said = fit_stage(tmp_path / "never")
    assert said == []
    assert same(eager, fit_stage(tmp_path / "eager", False)[0])
    known(PAYS)
    weights, said = fit_stage(tmp_path / "auto")
    assert [line.partition(", saves")[0] for line in said] == [
        f"compiling the step before the training: {EPOCHS * STEPS - DECIDES_AT} steps left"
    ]
    compiled, said = fit_stage(tmp_path / "compiled", True)
    assert [line.partition(": costs")[0] for line in said] == ["compiling the step before the training"]
    assert not any(same(a, b) for a, b in ((eager, weights), (weights, compiled), (eager, compiled)))


def test_a_stage_that_is_compiled_at_once_is_also_after_a_resume(tmp_path: Path) -> None:
    fit_stage(tmp_path / "run", True, stop=2 * STEPS + 1)
    assert same(fit_stage(tmp_path / "run", True)[0], fit_stage(tmp_path / "whole", True)[0])


@pytest.mark.parametrize("stop", [DECIDES_AT, DECIDES_AT + 1, 2 * STEPS + 1])
def test_a_resumed_stage_switches_at_the_same_step(stop: int, tmp_path: Path, known: Callable[[Times], None]) -> None:
    known(PAYS)
    fit_stage(tmp_path / "run", stop=stop)
    if stop > DECIDES_AT:
        known(NEVER)  # the decision has been taken
    resumed, said = fit_stage(tmp_path / "run")
    assert bool(said) == (stop <= DECIDES_AT)
    known(PAYS)
    assert same(resumed, fit_stage(tmp_path / "whole")[0])


@pytest.mark.parametrize(("mode", "times"), [("auto", PAYS), (True, NEVER)])
def test_a_stage_that_an_earlier_version_began_stays_eager(
    mode: Mode, times: Times, tmp_path: Path, known: Callable[[Times], None]
) -> None:
    fit_stage(tmp_path / "run", False, stop=2 * STEPS + 1)
    content = torch.load(tmp_path / "run" / "pretrain.ckpt", weights_only=True)
    content["callbacks"] = {key: state for key, state in content["callbacks"].items() if "Compilation" not in key}
    torch.save(content, tmp_path / "run" / "pretrain.ckpt")
    known(times)
    resumed, said = fit_stage(tmp_path / "run", mode)
    assert said == []
    assert same(resumed, fit_stage(tmp_path / "eager", False)[0])


def test_a_stage_that_cannot_be_compiled_stays_eager_or_is_refused(
    tmp_path: Path, known: Callable[[Times], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> Any:
        raise Unsupported("no C++ compiler")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: fails)
    known(PAYS)
    weights, said = fit_stage(tmp_path)
    assert same(weights, fit_stage(tmp_path / "eager", False)[0])
    assert said[1:] == ["the step before the training cannot be compiled and stays eager: no C++ compiler"]
    with pytest.raises(SqakdError, match="the step before the training cannot be compiled: no C"):
        fit_stage(tmp_path / "true", True)


def test_a_stage_is_another_kind_of_step_also_with_other_trained_parameters() -> None:
    task = small.make_staged_task("kd=fsp")
    ranges = small.make_staged_task("kd=fsp", "kd.feature_loss.quantizers=true")
    modules: list[Task | Pretraining] = [task]
    modules += [Pretraining(each, small.batch(2), epochs=1) for each in (task, ranges)]
    assert len({compilation.kind(module, running()) for module in modules}) == 3


def test_a_network_that_does_not_run_in_the_stage_is_not_compiled() -> None:
    task = small.make_staged_task("kd=ft")
    assert compilation.networks_of(task) == [task.student, task.teacher]
    assert compilation.networks_of(Pretraining(task, small.batch(2), epochs=1)) == [task.teacher]
    task = small.make_staged_task("kd=fsp")
    assert compilation.networks_of(Pretraining(task, small.batch(2), epochs=1)) == [task.student, task.teacher]


def test_a_damaged_decision_is_taken_again(tmp_path: Path, known: Callable[[Times], None]) -> None:
    known(PAYS)
    (tmp_path / FILE).parent.mkdir()
    for text in ("", "[]", "{}", '{"compile": 1}'):
        (tmp_path / FILE).write_text(text)
        assert read_decision(tmp_path / FILE) is None
    (tmp_path / FILE).write_text('{"compile": true, "step": 3}')
    assert read_decision(tmp_path / FILE) == Decision(True, 3), "an earlier version never compiled the evaluation"
    (tmp_path / FILE).write_text("")
    fit(tmp_path, stop=DECIDES_AT + 1)
    assert read_decision(tmp_path / FILE) == Decision(True, DECIDES_AT, evaluation=True)

"""The plan of a sweep: which runs are finished, which would be trained or resumed, and how long that may take."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch

from sqakd.advice import explain, left_out
from sqakd.app.checks import check_bits, check_length, check_schedules
from sqakd.app.compose import compose_spec, make
from sqakd.app.console import say
from sqakd.app.errors import report_errors
from sqakd.app.modes import check_plan
from sqakd.app.overrides import float_run_overrides
from sqakd.app.parts import make_addons, make_training, without_pretrained
from sqakd.app.plan_data import PlannedData
from sqakd.app.precision import available_float_run, precision_note
from sqakd.app.schema import check_config
from sqakd.app.teacher import NO_LABELS, needed_float_runs
from sqakd.app.train import train
from sqakd.errors import SqakdError
from sqakd.quantization.convert import TWINS
from sqakd.quantization.selection import select
from sqakd.runs.folder import RunFolder
from sqakd.runs.length import length_of
from sqakd.runs.listing import omitting, read_finished
from sqakd.runs.spec import Spec
from sqakd.runs.state_files import has_state
from sqakd.terminal import duration

DONE, RESUME, TRAIN, REFUSED = "done", "resume", "train", "refused"
MEASURED_STEPS = 4  # of a run whose time is not known
# What the time of an epoch depends on, as paths into the configuration.
WORK_DATA = ("image_size", "limit", "holdout")
WORK_RECIPE = ("batch_size", "accumulate")
WORK_TRAINER = ("precision", "compile", "channels_last", "devices", "num_nodes")


def plan_runs(specs: Iterable[Spec]) -> None:
    """Print a line for each run, each float run that comes first and each data set without its files; then the sum.

    Args:
        specs: the runs of a sweep. With plan=measure a few steps of each unknown kind of run are trained.
    """
    plan = Plan()
    for spec in specs:
        check_plan(spec)
        measured = spec.config["plan"] == "measure"
        problem = refusal(spec) or plan.without_teacher(spec)
        if not problem:
            for float_run in plan.float_runs(spec):
                plan.add(float_run, refusal(float_run), measured, precision_note(spec, float_run))
                if plan.states[RunFolder.of_spec(float_run).path] == REFUSED:
                    problem = "its float run is refused"
        plan.add(spec, problem, measured)
    for line in plan.missing:
        say(f"no data  {line}")
    say(plan.total())


def plan_sweep(jobs: Iterable[Sequence[str]]) -> None:
    """Print the plan of a sweep's jobs, each given by its overrides; expected errors end it in one line."""
    report_errors(lambda: plan_runs(compose_spec(overrides) for overrides in jobs))


class Plan:
    """Collects runs, each once, and knows what is left of them.

    The time of an epoch is that of a finished run below the same folder that did the same work per image, or it was
    measured.
    """

    def __init__(self) -> None:
        self.states: dict[Path, str] = {}
        self.times: dict[Path, list[tuple[Any, float]]] = {}
        self.seconds = 0.0
        self.unknown = 0
        self.data = PlannedData()
        self.missing: dict[str, None] = {}  # data sets without their files, in the order of the runs

    def without_teacher(self, spec: Spec) -> str | None:
        """Return why the teacher of a run that can otherwise be trained cannot be trained; None if it can."""
        needs = spec.config["teacher"]["checkpoint"] is None
        return NO_LABELS if needs and not self.data.look(spec).labelled else None

    def float_runs(self, spec: Spec) -> Iterator[Spec]:
        """Yield the float runs that a student needs."""
        teacher = self._float_run(spec, "model@teacher")
        for role in needed_float_runs(spec, make(spec.config["kd"], "kd"), teacher.config["model"]):
            yield self._float_run(spec, role)

    def _float_run(self, spec: Spec, role: str) -> Spec:
        return available_float_run(compose_spec(float_run_overrides(spec, role)))

    def add(self, spec: Spec, problem: str | None, measured: bool, note: str = "") -> None:
        """Add a run unless it was added before, and print its line.

        Args:
            spec: of the run.
            problem: why it cannot be trained; None if nothing is known against it.
            measured: whether to measure a run of unknown length.
            note: what else to print about a run that is done.
        """
        folder = RunFolder.of_spec(spec)
        if folder.path in self.states:
            return
        epochs = spec.config["recipe"]["epochs"]
        if measured and not problem and epochs > 0 and not folder.finished and self.seconds_per_epoch(spec) is None:
            try:
                self._times(folder.runs).append((work(spec.config), measure(spec)))
            except SqakdError as error:
                problem = explain(error)
        state, reason = state_of(folder, spec, problem)
        self.states[folder.path] = state
        note = reason or note
        if state in (RESUME, TRAIN):
            if missing := self.data.look(spec).missing:
                self.missing[missing] = None
            per_epoch, length = self.seconds_per_epoch(spec), length_of(spec.config)
            if epochs == 0:
                note = "without a training"
            elif per_epoch is None:
                self.unknown += 1
            else:
                done = folder.epochs_done  # of the training; the stage is over once there is one
                seconds = per_epoch * (length.training - done + (0 if done else length.stage))
                self.seconds += seconds
                note = f"about {duration(seconds)}"
        say(f"{state:8} {folder.path}{'  ' + note if note else ''}")

    def seconds_per_epoch(self, spec: Spec) -> float | None:
        """Return the time of an epoch of the same kind of run, or None if none is known."""
        times = self._times(RunFolder.of_spec(spec).runs)
        return next((seconds for known, seconds in times if known == work(spec.config)), None)

    def _times(self, runs: Path) -> list[tuple[Any, float]]:
        """Return the work of each finished run below a folder, with the seconds of one of its epochs."""
        if runs not in self.times:
            self.times[runs] = []
            for folder, record in read_finished(runs, left_out):
                with omitting(left_out):
                    if record.training_seconds is not None and record.epochs:
                        config = folder.read_config()
                        seconds = record.training_seconds / (record.epochs + length_of(config).added)
                        self.times[runs].append((work(config), seconds))
        return self.times[runs]

    def total(self) -> str:
        """Return all runs in one line."""
        counts = {state: list(self.states.values()).count(state) for state in (DONE, RESUME, TRAIN, REFUSED)}
        parts = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
        left = f"; about {duration(self.seconds)} on one device" if self.seconds else ""
        unknown = (
            f"; {self.unknown} of unknown length (plan=measure trains a few steps of each)" if self.unknown else ""
        )
        return f"{len(self.states)} runs: {parts}{left}{unknown}"


def state_of(folder: RunFolder, spec: Spec, problem: str | None) -> tuple[str, str]:
    """Return a run's state and, if it is refused, the reason."""
    if problem and not folder.finished:
        return REFUSED, problem
    try:
        if folder.finished_record(spec) is not None:
            return DONE, ""
    except SqakdError as error:
        return REFUSED, explain(error)
    return (RESUME if has_state(folder.checkpoint) else TRAIN), ""


def measure(spec: Spec) -> float:
    """Return the seconds of one epoch, from a few steps of the same run in a temporary folder.

    Raises:
        SqakdError: as for the run itself, for instance if the images are missing.
    """
    data = make(spec.config["dataset"], "dataset")
    data.setup()
    batch_size = spec.config["recipe"]["batch_size"]
    with tempfile.TemporaryDirectory() as scratch, redirect_stdout(io.StringIO()):
        overrides = [o for o in spec.overrides if not o.startswith(("plan=", "paths.runs=", "logger"))]
        # Two epochs: the first one compiles and warms up, and the record holds the faster one.
        short = [f"dataset.limit={MEASURED_STEPS * batch_size}", "recipe.epochs=2", "teacher.recipe.epochs=2"]
        length = length_of(spec.config)
        short += ["recipe.calibration_batches=1", "++trainer.check_val_every_n_epoch=1"]
        staged = [name for name, node in (spec.config.get("plus") or {}).items() if "stages" in (node or {})]
        short += [f"plus.{name}.stages=[{{share:0.5,w_bits:8,a_bits:8}}]" for name in staged]
        short += ["kd.feature_loss.pretrain_share=0"] * (length.taken > 0)
        short += ["kd.feature_loss.pretrain_epochs=0"] * (length.added > 0)
        quiet = ["logger=none", "callbacks.progress=null", f"paths.runs={scratch}"]
        record = train(compose_spec([*overrides, *short, *quiet]))
    assert record.images_per_second is not None
    return float(len(data.train_images) / record.images_per_second)


def refusal(spec: Spec) -> str | None:
    """Return why a run would be refused whatever its images, judged by its parts; None if it is not."""
    network = without_pretrained(spec.config["model"]["net"])  # a plan downloads nothing
    try:
        check_config(spec)
        _, recipe, _ = make_training(spec.config)
        make(spec.config["dataset"], "dataset")
        addons = make_addons(spec.config)
        check_length(spec, addons)
        check_schedules(recipe.epochs, addons)
        scheme = make(spec.config["quantizer"], "quantizer")
        check_bits(spec, scheme)
        with torch.device("meta"):
            built = make(network, "model.net", num_classes=2)
        if scheme is not None:
            scheme.bits_of_layers(select(built, types=TWINS, first=spec.config["model"]["first"], image_shape=None))
    except SqakdError as error:
        return explain(error)
    return None


def work(config: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return everything that the time of an epoch depends on."""
    groups = ("kd", "recipe", "dataset", "trainer", "model", "teacher")  # of another run they may lack any key
    kd, recipe, data, trainer, model, teacher = (config.get(group, {}) for group in groups)
    return (
        str(data.get("_target_")).rpartition(".")[2],
        *(data.get(key) for key in WORK_DATA),
        model.get("net"),
        teacher.get("net") if kd.get("kl") or kd.get("feature_loss") else None,
        kd.get("feature_loss"),
        config.get("quantizer") is not None,
        config.get("plus"),
        *(recipe.get(key) for key in WORK_RECIPE),
        *(trainer.get(key) for key in WORK_TRAINER),
    )

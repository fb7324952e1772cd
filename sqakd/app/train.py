"""From a specification to a finished run: checks, data, teacher, student, calibration, training, record."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from sqakd.app.allocation import choose_bits
from sqakd.app.checks import build_float_network, check_data, check_parts
from sqakd.app.compose import located, make
from sqakd.app.console import first_process, say
from sqakd.app.modes import shared
from sqakd.app.parts import Parts, make_parts, quantize_network, with_inputs
from sqakd.app.result import Reference, draw_picture, record_of, reference_of, report_initial, write_results
from sqakd.app.schema import check_config
from sqakd.app.tasks import PROBE_IMAGES, make_task, set_up_feature_loss
from sqakd.app.teacher import Networks, check_float_runs, find_networks, load_teacher_file, report_teacher
from sqakd.app.unused import unused
from sqakd.files import remove_abandoned
from sqakd.quantization.balance import balances, describe_imbalance
from sqakd.quantization.calibrate import calibrate
from sqakd.randomness import stream_seed
from sqakd.runs.folder import RunError, RunFolder
from sqakd.runs.names import group_values
from sqakd.runs.record import Record
from sqakd.runs.saved_state import find_start
from sqakd.runs.spec import Spec
from sqakd.runs.targets import CONSTRUCTED, foreign_targets
from sqakd.training.callbacks.compilation import Compilation, Mode
from sqakd.training.callbacks.divergence import Divergence
from sqakd.training.callbacks.history import History
from sqakd.training.callbacks.result import Result
from sqakd.training.callbacks.resume import Resume
from sqakd.training.code_cache import CodeCache
from sqakd.training.pretrain import pretrain
from sqakd.training.ranks import decided_by_first, done_by_first, held, join
from sqakd.training.trainer import make_trainer

FOREIGN = (
    "no class of sqakd, so export.py will refuse this run; in Python sqakd.load(WEIGHTS, NETWORK) and sqakd.export work"
    " (docs/options.md, Classes of your own)"
)
OUTPUT_SCALE = "quantizer.output_scale=true, or "
IMBALANCE_ADVICE = (
    "such a network may not train; use {}a quantizer that fits its ranges to the network, e.g. quantizer=lsq or ewgs"
)


def train(spec: Spec) -> Record:
    """Train a run unless it is finished, and resume it if it was interrupted.

    Raises:
        SqakdError: for bad input of any kind, before anything is written; or if the loss is no longer finite.
        SIGTERMException: after SIGTERM, once the state is saved.
    """
    check_config(spec)
    folder = RunFolder.of_spec(spec)
    if shared(spec):
        with located("trainer"):
            join(spec.config["trainer"])
    spec = spec.with_layer_bits(decided_by_first(partial(folder.chosen_layer_bits, spec)))
    parts = make_parts(spec)
    spec = with_inputs(spec, parts.data)
    if record := decided_by_first(partial(folder.finished_record, spec)):
        return _done_before(folder, record)
    check_parts(spec, parts)
    check_float_runs(spec, parts)
    with located("dataset"):
        parts.data.setup()
    check_data(spec, parts)
    network, reference = build_float_network(spec, parts), reference_of(spec)
    teacher_file = load_teacher_file(spec, parts)
    # If several processes train one run, only the first one decides.
    with held(folder, first=first_process() or not shared(spec)):
        if record := decided_by_first(partial(folder.finished_record, spec)):  # another process was faster
            return _done_before(folder, record)
        for line in unused(spec, parts.objective):
            say(f"warning: {line}")
        if parts.scheme is not None and (foreign := foreign_targets(spec.config, CONSTRUCTED)):
            say(f"note: {', '.join(foreign)}: {FOREIGN}")
        say(f"data: {parts.data.summary()}")
        networks = find_networks(spec, parts, network, teacher_file, train)
        if spec.undecided:
            spec, parts = choose_bits(spec, parts, networks, folder)
            reference = reference_of(spec)
        if parts.scheme is not None:
            first, shape = spec.config["model"]["first"], parts.data.image_shape
            quantize_network(networks.student, parts.scheme, first, shape, quietly=True)
        record = fit(spec, parts, networks, reference, folder)
        say(f"finished: {record.summary()}")
        return record


def _done_before(folder: RunFolder, record: Record) -> Record:
    remove_abandoned(folder.path)  # a kill while the picture was drawn, after the record
    say(f"done before: {record.summary()}")
    return record


def fit(spec: Spec, parts: Parts, networks: Networks, reference: Reference, folder: RunFolder) -> Record:
    """Calibrate and train the student, and write everything that the run leaves behind."""
    student, data = networks.student, parts.data
    task = make_task(spec, parts, student, networks.teacher, parts.objective, networks.classes)
    history = History(folder.metrics)
    result = Result(
        make=lambda: record_of(spec, parts, networks, task, history, reference),
        write=lambda record, trainer: write_results(spec, parts, networks, task, record, folder, trainer),
        draw=lambda record: draw_picture(folder, record),
    )
    run = f"{spec.name} seed {spec.seed}"
    resume = _resume(folder.checkpoint, run)
    resumed = resume.start.file is not None
    compilation = _compilation(spec, folder, folder.compilation)
    callbacks = [Divergence(), history, *parts.callbacks, compilation, resume, result]
    loggers = [make(node, f"logger.{name}") for name, node in (spec.config["logger"] or {}).items()]
    with located("trainer"):
        trainer = make_trainer(
            parts.recipe, spec.config["trainer"], callbacks=callbacks, loggers=loggers, folder=folder.path
        )
    device = trainer.strategy.root_device
    if networks.teacher is not None:
        report_teacher(parts, networks.teacher, device)
    if parts.scheme is not None and not resumed:
        images = data.calibration_batch(parts.recipe.calibration_batches)
        _calibrate(spec, student.to(device), images.to(device))
    set_up_feature_loss(task.to(device), parts, device)
    if not resumed and (networks.teacher is not None or parts.recipe.epochs == 0):
        history.initial = report_initial(task, data, trainer, calibrated=parts.scheme is not None)
    # Not earlier, so that a command refused above can be corrected without a conflict.
    done_by_first(partial(folder.claim, spec), first=first_process())
    if not resumed and parts.recipe.epochs:
        history.seconds = pretrain(
            task,
            data,
            spec.config["trainer"],
            epochs=parts.length.stage,
            images=data.calibration_batch(1)[:PROBE_IMAGES].to(device),
            resume=_resume(folder.pretraining, run),
            callbacks=parts.callbacks,
            compilation=_compilation(spec, folder, folder.pretraining_compilation),
        )
    for logger in trainer.loggers:
        logger.log_hyperparams(spec.config | {"choices": group_values(spec, dict(reference.changes))})
    with resume.restoring():
        trainer.fit(task, datamodule=data, ckpt_path=resume.start.file, weights_only=True)
    if result.record is None:
        done = trainer.current_epoch
        raise RunError(
            f"stopped after {done} of the {parts.recipe.epochs} epochs of the training; the same command continues it"
        )
    return result.record


def _resume(file: Path, run: str) -> Resume:
    """Return the callback that saves a training, and print a line if its last checkpoint is damaged."""
    start = find_start(file, run=run)
    if start.note:
        say(start.note)
    return Resume(file, run=run, start=start)


def _compilation(spec: Spec, folder: RunFolder, file: Path) -> Compilation:
    """Return the callback that compiles the steps of a training; `auto` continues a run as it was started.

    Args:
        spec: of the run.
        folder: of the run.
        file: where the callback keeps its decision.
    """
    mode: Mode = spec.config["trainer"]["compile"]
    if mode == "auto" and folder.config.exists():
        started = folder.read_config().get("trainer", {}).get("compile")
        mode = started if isinstance(started, bool) else mode
    if mode == "auto" and spec.config["trainer"]["deterministic"]:
        mode = False  # the decision depends on the speed of the machine
    cache = CodeCache(Path(spec.config["paths"]["cache"]))
    return Compilation(mode, cache=cache, file=file, say=say)


def _calibrate(spec: Spec, student: nn.Module, images: Tensor) -> None:
    """Set the ranges of a student, and warn if the values in the calibrated network are out of balance."""
    torch.manual_seed(stream_seed(spec.seed, "calibration"))  # stochastic depth and dropout draw here
    calibrate(student, images)
    if problem := describe_imbalance(balances(student, images)):
        has_scale = spec.config["quantizer"]["output_scale"]
        say(f"warning: after calibration {problem}; {IMBALANCE_ADVICE.format('' if has_scale else OUTPUT_SCALE)}")

"""From a sentence to a finished run: find or train the teacher, quantize, calibrate, fit, record."""

from __future__ import annotations

import copy
import os
import warnings
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from sqakd.app.compose import changes, check_bits, parse, read, run_of, told
from sqakd.app.console import first_process, say
from sqakd.app.forecast import plan
from sqakd.dataset.base import ImageDataModule
from sqakd.dataset.transforms.augment import Augment
from sqakd.files import sha256
from sqakd.kd.objective import Objective
from sqakd.models.trial import try_network
from sqakd.quantization.calibrate import calibrate
from sqakd.quantization.convert import Scheme, quantize
from sqakd.quantization.cost import cost
from sqakd.randomness import stream_seed
from sqakd.report.run_picture import draw_run
from sqakd.runs.checkpoint import CheckpointError, load_weights, num_classes, restore, save_weights
from sqakd.runs.folder import Run, RunError
from sqakd.runs.names import choices
from sqakd.runs.paper import published
from sqakd.runs.record import main_score, make_record, summary
from sqakd.runs.spec import Sentence
from sqakd.training.callbacks.bits_schedule import BitsSchedule
from sqakd.training.callbacks.divergence import Divergence
from sqakd.training.callbacks.history import History
from sqakd.training.callbacks.result import Result
from sqakd.training.callbacks.resume import Resume
from sqakd.training.pretrain import pretrain
from sqakd.training.recipe import Recipe
from sqakd.training.task import Task
from sqakd.training.trainer import make_trainer, top1


def main(cfg: DictConfig) -> float | None:
    """Run the composed sentence; bad input ends in one sentence instead of a traceback.

    Returns:
        The last validation top-1 (or agreement with the teacher where there are no labels), for sweepers.
    """
    return told(lambda: train(_allowed(read(cfg, HydraConfig.get()))))


def _allowed(sentence: Sentence) -> Sentence:
    """Refuse what Hydra would do and nobody wants.

    A search that looks at the test images chooses what fits them by chance. A run of a sweep that starts processes of
    its own starts the sweep again in each of them, unless a scheduler starts them.
    """
    many = HydraConfig.get().mode == RunMode.MULTIRUN and shared(sentence) and not sentence.config["plan"]
    if many and "SLURM_NTASKS" not in os.environ:
        raise ValueError(
            f"trainer.devices={sentence.config['trainer']['devices']} in a sweep, whose runs have one device each;"
            f" type trainer.devices=1 hydra/launcher=joblib for several runs at a time, or give this run alone"
        )
    sweeper = HydraConfig.get().runtime.choices.get("hydra/sweeper", "basic")
    if sweeper not in ("basic", "table") and not sentence.config["dataset"]["holdout"]:
        raise ValueError(
            f"hydra/sweeper={sweeper} chooses by the result on the validation images, which here are those that results"
            f" are reported on; type dataset.holdout=0.2 to choose by a part of the training images"
        )
    return sentence


def train(sentence: Sentence) -> float | None:
    """Train what the sentence says, unless it is finished; resume it if it was begun.

    Raises:
        ValueError: for bad input of any kind; the message says what to type.
        DivergenceError: if the loss is no longer finite.
        SIGTERMException: after SIGTERM, once the state is saved.
    """
    run = run_of(sentence)
    if sentence.config["plan"] not in (False, True, "measure"):
        raise ValueError(f"plan={sentence.config['plan']!r}: expected true, measure or false")
    if sentence.config["plan"]:
        plan(sentence, train)
        return None
    run.check()
    record = run.record()
    if record is None:
        training = Training(sentence, run)  # bad input ends here, before anything is written
        # Of several processes of one run only the first decides; the others follow the files it left.
        with run.locked() if first_process() or not shared(sentence) else nullcontext():
            run.check()  # another process may have been here meanwhile
            record = run.record()
            if record is None:
                record = training.result()
                say(f"finished: {summary(record)}")
                return main_score(record)
    say(f"done before: {summary(record)}")
    return main_score(record)


def shared(sentence: Sentence) -> bool:
    """Whether several processes train this run together."""
    how = sentence.config["trainer"]
    return how["num_nodes"] > 1 or how["devices"] not in (1, "1")


class Training:
    """One run's objects, put together in the order in which they need each other.

    Args:
        sentence: what to train.
        run: where it is kept.
    """

    def __init__(self, sentence: Sentence, run: Run) -> None:
        self.sentence, self.run = sentence, run
        self.config = config = sentence.config
        node = OmegaConf.create(config)
        self.data: ImageDataModule = instantiate(node.dataset)
        self.recipe: Recipe = instantiate(node.recipe)
        self.objective: Objective = instantiate(node.kd)
        self.scheme: Scheme | None = instantiate(node.quantizer) if node.quantizer else None
        plus: dict[str, Any] = {name: instantiate(part) for name, part in sorted((node.get("plus") or {}).items())}
        self.data.extend({name: part for name, part in plus.items() if isinstance(part, Augment)})
        # First, because others look at what these have done.
        self.chosen: list[pl.Callback] = [part for part in plus.values() if isinstance(part, pl.Callback)]
        self.chosen += [instantiate(callback) for callback in (node.callbacks or {}).values() if callback]
        self.node = node
        check_bits(config, self.scheme)
        self.changes = changes(sentence)
        self.paper = published(sentence, self.changes)
        self._check_plus(plus)
        self.data.setup()
        if self.objective.needs_labels and not self.data.labelled:
            raise ValueError(
                f"kd={sentence.choices['kd']} reads labels and the images in this data set have none;"
                f" type kd=sqakd, which needs only a teacher: teacher.checkpoint=FILE"
            )
        if self.objective.needs_labels and self.data.mixes:
            raise ValueError(
                f"plus={sentence.choices['plus']} mixes images and kd={sentence.choices['kd']} reads labels, which are"
                f" not mixed; type kd=sqakd, which reads none, or leave the mixing away"
            )
        is_float = self.scheme is None and not self.objective.needs_teacher
        torch.manual_seed(stream_seed(config["seed"], "initial weights"))
        # Also where the teacher's weights will take its place, and its number of classes: whether it fits shows now.
        network = self._build(config["model"], self.data.num_classes or 2, pretrained=is_float)
        if self.scheme is not None:
            self._quantize(network, self.scheme)
        self.initial = network if is_float else None
        if self.objective.feature_loss is not None:
            self._try_features(network)

    def _check_plus(self, plus: dict[str, Any]) -> None:
        wanting = [name for name, part in plus.items() if getattr(part, "needs_quantizer", False)]
        if wanting and self.scheme is None:
            raise ValueError(f"plus={wanting[0]} is about quantized weights and quantizer=none has none; leave it away")
        schedules = [name for name, part in plus.items() if isinstance(part, BitsSchedule)]
        if len(schedules) > 1:
            raise ValueError(f"plus={' and plus='.join(schedules)} both say the bits of each epoch; choose one of them")

    def result(self) -> dict[str, Any]:
        """Train, then write weights, picture and record; returns the record."""
        say(f"run {self.run.folder}")
        student, teacher = self._networks()
        task = self._task(student, teacher, self.objective, self.classes)
        result = Result(lambda: self._record(task))
        trainer = self._trainer(result)
        if teacher is not None:
            self._report_teacher(teacher, trainer.strategy.root_device)
        resume = str(self.run.checkpoint) if self.run.checkpoint.exists() else None
        if self.scheme is not None and resume is None:
            device = trainer.strategy.root_device
            torch.manual_seed(stream_seed(self.config["seed"], "calibration"))  # of dropped paths and the like
            calibrate(student.to(device), self.data.calibration_batch().to(device))
        few = self.data.calibration_batch()[:2].to(trainer.strategy.root_device)
        self._build_feature_loss(task.to(few.device))
        if first_process():  # not earlier: a word that is refused further up can then be typed again without a conflict
            self.run.claim()
        if resume is None:
            how, file = self.config["trainer"], self.run.pretraining
            pretrain(task, self.data, how, images=few, file=file, callbacks=self.chosen)
        for logger in trainer.loggers:
            logger.log_hyperparams(self.config | {"choices": choices(self.sentence, self.changes)})
        trainer.fit(task, datamodule=self.data, ckpt_path=resume, weights_only=True)
        if trainer.is_global_zero:
            self._finish(task, result.record)
        trainer.strategy.barrier()
        return result.record

    def _task(self, student: nn.Module, teacher: nn.Module | None, objective: Objective, classes: int) -> Task:
        return Task(
            student=student,
            teacher=teacher,
            objective=objective,
            recipe=self.recipe,
            num_classes=classes,
            labelled=self.data.labelled,
            seed=self.config["seed"],
            compile=self.config["trainer"]["compile"],
            channels_last=self.config["trainer"]["channels_last"],
            feature_layers=self.config["model"]["feature_layers"],
            teacher_feature_layers=self._teacher_layers(),
        )

    def _teacher_layers(self) -> list[str]:
        """The teacher's own feature layers if they were typed or it is another network, else the student's."""
        typed = any(word.lstrip("+").startswith("teacher.feature_layers=") for word in self.sentence.overrides)
        same = self.sentence.choices["model"] == self.sentence.choices["model@teacher"]
        layers: list[str] = self.config["teacher" if typed or not same else "model"]["feature_layers"]
        return layers

    def _build_feature_loss(self, task: Task) -> None:
        task.build_feature_loss(
            self.data.calibration_batch()[:2].to(task.device),
            training_images=len(self.data.train_images),
            labels=self.data.train_labels,
        )

    def _try_features(self, student: nn.Module) -> None:
        """A kd that does not go with the two networks shows now, not after a teacher has been trained."""
        classes = self.data.num_classes or 2
        teacher = self._build(self.teacher_model, classes)
        self._build_feature_loss(self._task(student, teacher, copy.deepcopy(self.objective), classes))

    # networks

    @cached_property
    def teacher_model(self) -> dict[str, Any]:
        """The teacher's own `model` node."""
        model: dict[str, Any] = parse(self.sentence.float_run("model@teacher")).config["model"]
        return model

    def _networks(self) -> tuple[nn.Module, nn.Module | None]:
        """(student, teacher); the student with the teacher's weights, quantized but not yet calibrated."""
        if self.initial is not None:
            assert self.data.num_classes is not None
            self.classes, self.float_record = self.data.num_classes, None
            return self.initial, None
        weights, source, self.float_record = self._teacher_weights()
        self.classes = num_classes(weights)
        if self.data.num_classes not in (None, self.classes):
            raise CheckpointError(
                f"the teacher ({source}) tells {self.classes} classes apart and the data set has"
                f" {self.data.num_classes}: choose a teacher trained on these classes, or another data set"
            )
        teacher = self._build(self.teacher_model, self.classes)
        restore(teacher, weights, source=source)
        same = self.teacher_model["net"] == self.config["model"]["net"]
        student = copy.deepcopy(teacher) if same else self._own_float_network()
        if self.scheme is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it was said when the run was put together
                self._quantize(student, self.scheme)
        return student, teacher

    def _build(self, model: dict[str, Any], classes: int, *, pretrained: bool = False) -> nn.Module:
        """A network that takes the data set's images; pretrained weights are only for one that no others follow."""
        net = model["net"]
        if "weights" in net and not pretrained:
            net = net | {"weights": None}
        network: nn.Module = instantiate(net, num_classes=classes)
        try_network(network, name=model["name"], image_shape=self.data.image_shape, num_classes=classes)
        return network

    def _quantize(self, network: nn.Module, scheme: Scheme) -> None:
        quantize(network, scheme, first=self.config["model"]["first"], image_shape=self.data.image_shape)

    def _own_float_network(self) -> nn.Module:
        """The student before it is quantized, where the teacher is another network."""
        weights, source, self.float_record = self._float_run("model")
        student = self._build(self.config["model"], self.classes)
        restore(student, weights, source=source)
        return student

    def _teacher_weights(self) -> tuple[dict[str, Tensor], str, dict[str, Any] | None]:
        file = self.config["teacher"]["checkpoint"]
        if file is not None:
            weights, facts = load_weights(Path(file))
            return weights, str(file), self._of_these_images(facts.get("record"))
        if not self.data.labelled:
            raise ValueError(
                "a teacher cannot be trained on images without labels; type teacher.checkpoint=FILE"
                " (weights of the float network chosen by model@teacher=)"
            )
        return self._float_run("model@teacher")

    def _of_these_images(self, record: dict[str, Any] | None) -> dict[str, Any] | None:
        """A checkpoint's own record, if its scores are about this data set; others say nothing here."""
        if record is None or record["choices"]["dataset"] != self.sentence.choices["dataset"]:
            return None
        mine, its = (
            {k: v for k, v in c.items() if k.startswith("dataset.")} for c in (self.changes, record["changes"])
        )
        return record if mine == its else None

    def _float_run(self, role: str) -> tuple[dict[str, Tensor], str, dict[str, Any]]:
        """Weights of the float run of one network: found under runs/, or trained now, exactly once."""
        sentence = parse(self.sentence.float_run(role))
        run = run_of(sentence)
        if run.record() is None:
            say(f"the float network comes first: {run.folder}")
        try:
            train(sentence)
        except RunError as error:
            raise RunError(f"{error} (it is this student's float run; model.name=ANOTHER_NAME renames both)") from error
        weights, facts = load_weights(run.weights)
        return weights, str(run.weights), facts["record"]

    def _report_teacher(self, teacher: nn.Module, device: torch.device) -> None:
        """Measure the teacher before the student starts; a wrong teacher should not cost a night."""
        if self.data.labelled:
            say(f"teacher {self.teacher_model['name']}: top-1 {100 * top1(teacher, self.data, device):.2f}%")

    # trainer

    def _trainer(self, result: Result) -> pl.Trainer:
        self.history = History(self.run.folder / "metrics.csv")
        return make_trainer(
            self.recipe,
            self.config["trainer"],
            callbacks=[Divergence(every_n_steps=50), self.history, *self.chosen, Resume(self.run.checkpoint), result],
            loggers=[instantiate(node) for node in (self.node.logger or {}).values()],
            folder=self.run.folder,
        )

    def _record(self, task: Task) -> dict[str, Any]:
        devices = task.trainer.world_size
        # Batch norm works on each device's share of a batch, so this is not the cell that one device trains.
        apart = devices > 1 and not self.config["trainer"]["sync_batchnorm"]
        return make_record(
            self.sentence,
            self.history.rows,
            changes=self.changes | ({"trainer.devices": devices} if apart else {}),
            cost=cost(task.student, self.data.image_shape),
            labels_used=self.objective.needs_labels,
            float_record=self.float_record,
            paper=None if apart else self.paper,
            training_seconds=self.history.seconds,
            device=task.device,
            devices=devices,
        )

    def _finish(self, task: Task, record: dict[str, Any]) -> None:
        facts = {
            "record": record,
            "num_classes": self.classes,
            "class_names": self.data.class_names,
            "mean": self.data.mean,
            "std": self.data.std,
            "model": self.config["model"],
            "quantizer": self.config["quantizer"],
        }
        save_weights(self.run.weights, task.student, facts)
        record["weights_sha256"] = sha256(self.run.weights)
        draw_run(self.run.folder, record)
        self.run.finish(record)
        self.run.pretraining.unlink(missing_ok=True)  # superseded by the training's own checkpoint long ago

"""From a sentence to a finished run: compose, find or train the teacher, quantize, calibrate, fit, record.

The only file that knows Hydra and OmegaConf.
"""

from __future__ import annotations

import copy
import logging
import sys
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra import compose
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch import Tensor, nn

from sqakd.callbacks.divergence import Divergence, DivergenceError
from sqakd.callbacks.history import History
from sqakd.callbacks.resume import Resume
from sqakd.checkpoint import CheckpointError, load_weights, num_classes, restore, save_weights
from sqakd.cost import cost
from sqakd.dataset.base import ImageDataModule
from sqakd.kd.base import Objective
from sqakd.quantize import Scheme, calibrate, quantize
from sqakd.randomness import stream_seed
from sqakd.recipe import Recipe
from sqakd.record import main_score, make_record, summary
from sqakd.report import draw_run
from sqakd.runs import Run
from sqakd.sentence import Sentence
from sqakd.task import Task

SIGTERM_STATUS = 143


def main(cfg: DictConfig) -> float | None:
    """Run the composed sentence; bad input ends in one sentence instead of a traceback.

    Returns:
        The last validation top-1 (or agreement with the teacher where there are no labels), for sweepers.
    """
    quiet_libraries()
    try:
        return train(read(cfg, HydraConfig.get()))
    except SIGTERMException:
        print("stopped by SIGTERM; the state is saved, the same command continues", file=sys.stderr)  # noqa: T201
        raise SystemExit(SIGTERM_STATUS) from None
    except (ValueError, DivergenceError, InstantiationException) as error:
        raise SystemExit(f"error: {_root_cause(error)}") from error


def _root_cause(error: BaseException) -> BaseException:
    """Hydra wraps what a constructor says; the constructor's own words are what helps."""
    while isinstance(error, InstantiationException) and error.__cause__ is not None:
        error = error.__cause__
    return error


def read(cfg: DictConfig, hydra: Any) -> Sentence:
    """Plain data of a composed configuration; `hydra` is its Hydra node."""
    config = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=False)
    assert isinstance(config, dict)
    config.pop("hydra", None)
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        raise ValueError(f"no value for {', '.join(missing)}; type {missing[0]}=VALUE")
    choices = {str(k): str(v) for k, v in hydra.runtime.choices.items() if not str(k).startswith("hydra/")}
    return Sentence({str(k): v for k, v in config.items()}, choices, tuple(hydra.overrides.task))


def parse(words: list[str]) -> Sentence:
    """Compose another sentence while one is running; needs Hydra to be initialised on `conf`."""
    cfg = compose("train", overrides=words, return_hydra_config=True)
    holder = HydraConfig.instance()
    running = holder.cfg
    holder.set_config(cfg)
    try:
        return read(OmegaConf.masked_copy(cfg, [str(k) for k in cfg if k != "hydra"]), cfg.hydra)
    finally:
        holder.cfg = running


def train(sentence: Sentence) -> float | None:
    """Train what the sentence says, unless it is finished; resume it if it was begun.

    Raises:
        ValueError: for bad input of any kind; the message says what to type.
        DivergenceError: if the loss is no longer finite.
        SIGTERMException: after SIGTERM, once the state is saved.
    """
    config = sentence.config
    run = Run(Path(config["paths"]["runs"]) / config["name"] / f"seed{config['seed']}", config)
    run.check()
    record = run.record()
    if record is None:
        training = Training(sentence, run)  # bad input ends here, before anything is written
        # Of several processes of one run only the first decides; the others follow the files it left.
        with run.locked() if first_process() else nullcontext():
            record = run.record()
            if record is None:
                record = training.result()
                say(f"finished: {summary(record)}")
                return main_score(record)
    say(f"done before: {summary(record)}")
    return main_score(record)


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
        self.node = node
        if self.scheme is None and (config["w_bits"], config["a_bits"]) != (32, 32):
            raise ValueError(
                f"quantizer=none trains the float network, but bits are w{config['w_bits']} a{config['a_bits']}:"
                f" leave bits away, or choose a quantizer, e.g. quantizer=ewgs"
            )
        if self.scheme is not None:
            self.scheme.check()
        self.data.setup()
        if self.objective.needs_labels and not self.data.labelled:
            raise ValueError(
                f"kd={sentence.choices['kd']} reads labels and the images in this data set have none;"
                f" type kd=sqakd, which needs only a teacher: teacher.checkpoint=FILE"
            )

    def result(self) -> dict[str, Any]:
        """Train, then write weights, picture and record; returns the record."""
        say(f"run {self.run.folder}")
        if first_process():
            self.run.claim()
        student, teacher = self._networks()
        task = Task(
            student=student,
            teacher=teacher,
            objective=self.objective,
            recipe=self.recipe,
            num_classes=self.classes,
            labelled=self.data.labelled,
            seed=self.config["seed"],
            compile=self.config["trainer"]["compile"],
            channels_last=self.config["trainer"]["channels_last"],
        )
        trainer = self._trainer()
        resume = str(self.run.checkpoint) if self.run.checkpoint.exists() else None
        try:
            trainer.fit(task, datamodule=self.data, ckpt_path=resume, weights_only=True)
        finally:
            for logger in trainer.loggers:
                logger.finalize("success" if trainer.state.finished else "failed")
        record = make_record(
            self.sentence,
            self.history.rows,
            cost=cost(task.student, self.data.image_shape),
            labels_used=self.objective.needs_labels,
            float_record=self.float_record,
            training_seconds=self.history.seconds,
        )
        if trainer.is_global_zero:
            self._finish(task, record)
        trainer.strategy.barrier()
        return record

    # networks

    def _networks(self) -> tuple[nn.Module, nn.Module | None]:
        """(student, teacher), the student calibrated unless a checkpoint will be loaded over it anyway."""
        if self.scheme is None and not self.objective.needs_teacher:
            assert self.data.num_classes is not None
            self.classes, self.float_record = self.data.num_classes, None
            torch.manual_seed(stream_seed(self.config["seed"], "initial weights"))
            return self._build(self.config["model"]), None
        weights, source, self.float_record = self._teacher_weights()
        self.classes = num_classes(weights)
        if self.data.num_classes not in (None, self.classes):
            raise CheckpointError(
                f"the teacher ({source}) tells {self.classes} classes apart and the data set has"
                f" {self.data.num_classes}: choose a teacher trained on these classes, or another data set"
            )
        architecture = parse(self.sentence.float_run("model@teacher")).config["model"]
        teacher = self._build(architecture)
        restore(teacher, weights, source=source)
        student = copy.deepcopy(teacher) if architecture == self.config["model"] else self._own_float_network()
        self._report_teacher(teacher)
        if self.scheme is not None:
            quantize(student, self.scheme)
            if not self.run.checkpoint.exists():
                self._calibrate(student)
        return student, teacher

    def _build(self, model: dict[str, Any]) -> nn.Module:
        network: nn.Module = instantiate(model["net"], num_classes=self.classes)
        return network

    def _own_float_network(self) -> nn.Module:
        """The student before it is quantized, where the teacher is another network."""
        weights, source, self.float_record = self._float_run("model")
        student = self._build(self.config["model"])
        restore(student, weights, source=source)
        return student

    def _teacher_weights(self) -> tuple[dict[str, Tensor], str, dict[str, Any] | None]:
        file = self.config["teacher"]["checkpoint"]
        if file is not None:
            weights, facts = load_weights(Path(file))
            return weights, str(file), facts.get("record")
        if not self.data.labelled:
            raise ValueError(
                "a teacher cannot be trained on images without labels; type teacher.checkpoint=FILE"
                " (weights of the float network chosen by model@teacher=)"
            )
        return self._float_run("model@teacher")

    def _float_run(self, role: str) -> tuple[dict[str, Tensor], str, dict[str, Any]]:
        """Weights of the float run of one network: found under runs/, or trained now, exactly once."""
        sentence = parse(self.sentence.float_run(role))
        config = sentence.config
        folder = Path(config["paths"]["runs"]) / config["name"] / f"seed{config['seed']}"
        if not (folder / "record.json").exists():
            say(f"the float network comes first: {folder}")
        train(sentence)
        weights, facts = load_weights(folder / "weights.pt")
        return weights, str(folder / "weights.pt"), facts["record"]

    def _calibrate(self, student: nn.Module) -> None:
        device = self._trainer().strategy.root_device
        calibrate(student.to(device), self.data.calibration_batch().to(device))

    def _report_teacher(self, teacher: nn.Module) -> None:
        """Measure the teacher before the student starts; a wrong teacher should not cost a night."""
        if not self.data.labelled:
            return
        task = Task(
            student=copy.deepcopy(teacher),
            teacher=None,
            objective=Objective(ce=1.0, kl=0.0, temperature=1.0),
            recipe=self.recipe,
            num_classes=self.classes,
            labelled=True,
            seed=0,
            compile=False,
            channels_last=self.config["trainer"]["channels_last"],
        )
        accelerator = self.config["trainer"]["accelerator"]
        judge = pl.Trainer(accelerator=accelerator, devices=1, **QUIET)
        (scores,) = judge.validate(task, datamodule=self.data, verbose=False)
        self.teacher_top1 = scores["val/top1"]
        say(f"teacher {self.sentence.choices['model@teacher']}: top-1 {100 * self.teacher_top1:.2f}%")

    # trainer

    def _trainer(self) -> pl.Trainer:
        how = self.config["trainer"]
        self.history = History(self.run.folder / "metrics.csv")
        chosen = [instantiate(node) for node in (self.node.callbacks or {}).values() if node]
        return pl.Trainer(
            max_epochs=self.recipe.epochs,
            accumulate_grad_batches=self.recipe.accumulate,
            gradient_clip_val=self.recipe.gradient_clip,
            accelerator=how["accelerator"],
            devices=how["devices"],
            num_nodes=how["num_nodes"],
            strategy=how["strategy"],
            precision=how["precision"],
            deterministic=how["deterministic"],
            logger=[instantiate(node) for node in (self.node.logger or {}).values()] or False,
            callbacks=[
                Divergence(every_n_steps=50),
                self.history,
                *chosen,
                Resume(self.run.checkpoint),
            ],
            default_root_dir=self.run.folder,
            **{k: v for k, v in QUIET.items() if k not in ("logger", "enable_checkpointing")},
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
        draw_run(self.run.folder, record)
        self.run.finish(record)


QUIET: dict[str, Any] = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
    "use_distributed_sampler": False,
    "log_every_n_steps": 10**9,
}


def quiet_libraries() -> None:
    """Leave the terminal to what the run has to say; Lightning's warnings stay, its tips and its own slips go."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated")
    # What is logged comes out of torchmetrics, which has already put the ranks' shares together.
    warnings.filterwarnings("ignore", message="It is recommended to use .self.log")


def first_process() -> bool:
    """Whether this is the process that decides and writes, of all that train one network together."""
    return not getattr(rank_zero_only, "rank", 0)


@rank_zero_only
def say(text: str) -> None:
    """A line for the person who waits; one process speaks."""
    print(text, flush=True)  # noqa: T201

"""From a sentence to a finished run: compose, find or train the teacher, quantize, calibrate, fit, record.

The only file that knows Hydra and OmegaConf.
"""

from __future__ import annotations

import atexit
import copy
import io
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext, redirect_stdout
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from hydra import compose
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException, InstantiationException
from hydra.types import RunMode
from hydra.utils import instantiate
from lightning_fabric.utilities.exceptions import MisconfigurationException
from omegaconf import MISSING, DictConfig, OmegaConf
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch import Tensor, nn

from sqakd.callbacks.bits_schedule import BitsSchedule
from sqakd.callbacks.divergence import Divergence, DivergenceError
from sqakd.callbacks.history import History
from sqakd.callbacks.result import Result
from sqakd.callbacks.resume import Resume
from sqakd.checkpoint import CheckpointError, load_weights, num_classes, restore, save_weights
from sqakd.console import first_process, quiet_libraries, say
from sqakd.cost import cost
from sqakd.dataset.augment import Augment, normalize
from sqakd.dataset.base import ImageDataModule
from sqakd.files import sha256
from sqakd.kd.base import Objective
from sqakd.models.trial import try_network
from sqakd.picture import draw_run
from sqakd.plan import Plan
from sqakd.pretrain import pretrain
from sqakd.quantize import Scheme, calibrate, dequantize, quantize
from sqakd.randomness import stream_seed
from sqakd.recipe import Recipe
from sqakd.record import main_score, make_record, summary
from sqakd.runs import Run, RunError, identity
from sqakd.sentence import Sentence
from sqakd.task import Task
from sqakd.trainer import make_trainer, top1

if TYPE_CHECKING:
    from sqakd.export.pipeline import Trained
    from sqakd.export.source import Source
    from sqakd.export.verify import Examples

SIGTERM_STATUS = 143
PLAN = Plan()
MEASURED_STEPS = 4  # of a run whose time is not known
PLANNED: dict[tuple[str, ...], Sentence] = {}  # float runs by their words

# ${joined:a,b} is a_b, and a where b is null: for names made of what was chosen.
# ${plus:node} is -a+b for a node with the keys a and b, and nothing for none: for the names of runs.
# ${pick:x,{a:1},2} is 1 where x is a, else 2: for rows that deviate.
OmegaConf.register_new_resolver("joined", lambda *parts: "_".join(str(p) for p in parts if p), replace=True)
OmegaConf.register_new_resolver(
    "plus", lambda parts: "-" + "+".join(names) if (names := added(parts)) else "", replace=True
)
OmegaConf.register_new_resolver("pick", lambda key, values, otherwise: values.get(key, otherwise), replace=True)
# ${typed:quantizer/rounding,+} is +ewgs where quantizer/rounding=ewgs was typed, else nothing.
OmegaConf.register_new_resolver("typed", lambda group, sign: _typed(group, sign), replace=True)


def _typed(group: str, sign: str) -> str:
    chosen = [word.partition("=")[2] for word in HydraConfig.get().overrides.task if word.startswith(f"{group}=")]
    return sign + chosen[-1] if chosen else ""


def main(cfg: DictConfig) -> float | None:
    """Run the composed sentence; bad input ends in one sentence instead of a traceback.

    Returns:
        The last validation top-1 (or agreement with the teacher where there are no labels), for sweepers.
    """
    return _told(lambda: train(_searched(read(cfg, HydraConfig.get()))))


def export(cfg: DictConfig) -> float | None:
    """Export the run that the configuration names; bad input ends in one sentence.

    Returns:
        Agreement of the file with the trained network.
    """
    return _told(lambda: export_run(read(cfg, HydraConfig.get()).config))


def _told(action: Callable[[], float | None]) -> float | None:
    """Do it; what a user can do wrong is told in one sentence."""
    quiet_libraries()
    try:
        return action()
    except SIGTERMException:
        print("stopped by SIGTERM; the state is saved, the same command continues", file=sys.stderr)  # noqa: T201
        raise SystemExit(SIGTERM_STATUS) from None
    except (ValueError, DivergenceError, InstantiationException, MisconfigurationException) as error:
        message = f"error: {_root_cause(error)}"
        if HydraConfig.get().mode == RunMode.MULTIRUN:  # the other runs of a sweep go on; Hydra fails at its end
            print(message, file=sys.stderr, flush=True)  # noqa: T201
            raise CompactHydraException(message) from error
        raise SystemExit(message) from error


def _searched(sentence: Sentence) -> Sentence:
    """Refuse a search that looks at the test images: it would choose what fits them by chance."""
    sweeper = HydraConfig.get().runtime.choices.get("hydra/sweeper", "basic")
    if sweeper != "basic" and not sentence.config["dataset"]["holdout"]:
        raise ValueError(
            f"hydra/sweeper={sweeper} chooses by the result on the validation images, which here are those that results"
            f" are reported on; type dataset.holdout=0.2 to choose by a part of the training images"
        )
    return sentence


def _root_cause(error: BaseException) -> BaseException:
    """Hydra wraps what a constructor says; the constructor's own words are what helps."""
    while isinstance(error, InstantiationException) and error.__cause__ is not None:
        error = error.__cause__
    return error


def read(cfg: DictConfig, hydra: Any, *, complete: bool = True) -> Sentence:
    """Plain data of a composed configuration; `hydra` is its Hydra node.

    Raises:
        ValueError: if it is to be complete, and a value that must be typed is not there.
    """
    config = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=False)
    assert isinstance(config, dict)
    config.pop("hydra", None)
    plus = config.pop("plus", {})
    if names := added(plus):
        config["plus"] = {name: plus[name] for name in names}
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing and complete:
        raise ValueError(f"no value for {', '.join(missing)}; type {missing[0]}=VALUE")
    choices = {str(k): str(v) for k, v in hydra.runtime.choices.items() if not str(k).startswith("hydra/")}
    choices.pop("plus", None)  # Hydra leaves it out where several options are chosen
    if names:
        choices["plus"] = "+".join(names)
    return Sentence({str(k): v for k, v in config.items()}, choices, tuple(hydra.overrides.task))


def added(plus: Mapping[str, Any] | None) -> list[str]:
    """Names of what a `plus` node adds, in order; values for something that is not chosen add nothing."""
    return sorted(name for name, part in (plus or {}).items() if "_target_" in part)


def parse(words: list[str], *, complete: bool = True) -> Sentence:
    """Compose another sentence while one is running; needs Hydra to be initialised on `conf`."""
    cfg = compose("train", overrides=words, return_hydra_config=True)
    holder = HydraConfig.instance()
    running = holder.cfg
    holder.set_config(cfg)
    try:
        plain = OmegaConf.masked_copy(cfg, [str(k) for k in cfg if k != "hydra"])
        return read(plain, cfg.hydra, complete=complete)
    finally:
        holder.cfg = running


def train(sentence: Sentence) -> float | None:
    """Train what the sentence says, unless it is finished; resume it if it was begun.

    Raises:
        ValueError: for bad input of any kind; the message says what to type.
        DivergenceError: if the loss is no longer finite.
        SIGTERMException: after SIGTERM, once the state is saved.
    """
    run = run_of(sentence)
    if sentence.config["plan"]:
        plan(sentence)
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


def run_of(sentence: Sentence) -> Run:
    """Where a sentence's run is kept."""
    config = sentence.config
    return Run(Path(config["paths"]["runs"]) / config["name"] / f"seed{config['seed']}", config)


def changes(sentence: Sentence) -> dict[str, Any]:
    """What a sentence has besides its choices: {key: value}, empty for a cell as the project defines it."""
    plain = identity(parse(sentence.plain(), complete=False).config)
    own = identity(sentence.config)
    keys = sorted(key for key in plain.keys() | own.keys() if plain.get(key) != own.get(key))
    return {key: own.get(key) for key in keys if key not in ("name", "seed", "bits") and plain.get(key) != MISSING}


def shared(sentence: Sentence) -> bool:
    """Whether several processes train this run together."""
    how = sentence.config["trainer"]
    return how["num_nodes"] > 1 or how["devices"] not in (1, "1")


def plan(sentence: Sentence) -> None:
    """Say what would be done for a sentence, its float runs first; the sum follows when all is said."""
    if not PLAN.seen:
        atexit.register(lambda: say(PLAN.total()))
    config = sentence.config
    problem, measured = impossible(sentence), config["plan"] == "measure"
    taught = config["quantizer"] is not None or config["kd"]["kl"] > 0 or config["kd"]["feature_loss"] is not None
    if taught and config["teacher"]["checkpoint"] is None and not problem:
        for role in ("model@teacher", "model"):
            words = tuple(sentence.float_run(role))
            if words not in PLANNED:  # many cells share it, and composing takes longer than the rest
                PLANNED[words] = parse(list(words))
            run = run_of(PLANNED[words])
            if line := _planned(PLANNED[words], impossible(PLANNED[words]), measured=measured):
                say(line)
            if run.folder in PLAN.refused:
                problem = "its float run is refused"
    if line := _planned(sentence, problem, measured=measured):
        say(line)


def _planned(sentence: Sentence, problem: str, *, measured: bool) -> str | None:
    """The plan's line for a run, measured first if that is wanted and needed."""
    run = run_of(sentence)
    new = run.folder not in PLAN.seen and run.record() is None and not problem
    if measured and new and PLAN.seconds_per_epoch(run) is None:
        try:
            PLAN.learn(run, measure(sentence))
        except (ValueError, DivergenceError, InstantiationException) as error:
            problem = str(_root_cause(error))
    return PLAN.add(run, problem)


def measure(sentence: Sentence) -> float:
    """Seconds of one epoch, from a few steps of the same sentence in a folder that is thrown away.

    Raises:
        ValueError: as for the run itself, for instance if the images are not there.
    """
    data = instantiate(OmegaConf.create(sentence.config["dataset"]))
    data.setup()
    images = len(data.train_images)
    batch_size = sentence.config["recipe"]["batch_size"]
    with tempfile.TemporaryDirectory() as scratch, redirect_stdout(io.StringIO()):
        words = [word for word in sentence.overrides if not word.startswith(("plan=", "paths.runs=", "logger"))]
        # Two epochs: the first of them compiles and warms up, and the faster one is what is recorded.
        short = [f"dataset.limit={MEASURED_STEPS * batch_size}", "recipe.epochs=2", "teacher.recipe.epochs=2"]
        few = parse([*words, *short, "logger=none", "callbacks.progress=null", f"paths.runs={scratch}"])
        train(few)
        record = run_of(few).record()
    assert record is not None
    return float(images / record["images_per_second"])


def impossible(sentence: Sentence) -> str:
    """Why no data could make a sentence run, as far as quantizer and network tell, or nothing."""
    node = OmegaConf.create(sentence.config)
    network = dict(sentence.config["model"]["net"])
    if "weights" in network:
        network["weights"] = None  # nothing is downloaded for a plan
    try:
        check_bits(sentence.config, instantiate(node.quantizer) if node.quantizer else None)
        with torch.device("meta"):
            instantiate(network, num_classes=2)
    except (ValueError, InstantiationException) as error:
        return str(_root_cause(error))
    return ""


def check_bits(config: dict[str, Any], scheme: Scheme | None) -> None:
    """Refuse bits that no quantizer takes.

    Raises:
        ValueError: with what to type.
    """
    if scheme is not None:
        scheme.check()
    elif (config["w_bits"], config["a_bits"]) != (32, 32):
        raise ValueError(
            f"quantizer=none trains the float network, but bits are w{config['w_bits']} a{config['a_bits']}:"
            f" leave bits away, or choose a quantizer, e.g. quantizer=ewgs"
        )


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
            logger.log_hyperparams(self.config)
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
        return make_record(
            self.sentence,
            self.history.rows,
            changes=self.changes,
            cost=cost(task.student, self.data.image_shape),
            labels_used=self.objective.needs_labels,
            float_record=self.float_record,
            training_seconds=self.history.seconds,
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


def export_run(config: dict[str, Any]) -> float:
    """Export a finished run; `config` is that of conf/export.yaml.

    Raises:
        ValueError: if the run cannot be exported, or the file disagrees with it.
    """
    try:  # not above: training needs none of the packages that the export needs
        from sqakd.export import pipeline
        from sqakd.export.benchmark import Timing
        from sqakd.export.report import read_exports
        from sqakd.export.source import read_run
    except ModuleNotFoundError as error:
        raise ValueError(f"export.py needs a package ({error}); type: pip install 'sqakd[export]'") from error
    keys = [field.name for field in fields(pipeline.Options)]
    timing = Timing(**config["benchmark"])
    options = pipeline.Options(**{key: config[key] for key in keys} | {"benchmark": timing})
    source = read_run(Path(config["run"]))
    trained = trained_network(source)
    say(f"exporting {source.folder} as {options.profile}")
    folder = Path(config["folder"] or source.folder / f"export-{options.profile}")
    others = read_exports(source.folder.resolve().parents[1])
    record = pipeline.export(trained, options, folder, others)
    for verdict in record["verify"]:
        say(
            f"{verdict['runtime']} agrees with the trained network on {100 * verdict['agreement']:.2f}% of"
            f" {verdict['images']} validation images"
        )
    sizes = record["sizes"]
    say(f"{folder / 'model.onnx'}: {sizes['file'] / 1000:.1f} kB, float {sizes['float'] / 1000:.1f} kB")
    return min(float(verdict["agreement"]) for verdict in record["verify"])


def trained_network(source: Source) -> Trained:
    """Put a finished run's network together again, with its data.

    Raises:
        ValueError: if its parts do not fit.
    """
    from sqakd.export.pipeline import Trained

    config, facts = source.config, source.facts
    node = OmegaConf.create(config)
    data: ImageDataModule = instantiate(node.dataset)
    data.setup()
    net = config["model"]["net"]
    net = net | ({"weights": None} if "weights" in net else {})
    network, float_network = (instantiate(net, num_classes=facts["num_classes"]) for _ in range(2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it was said when the run was trained
        scheme: Scheme = instantiate(node.quantizer)
        quantize(network, scheme, first=config["model"]["first"], image_shape=data.image_shape)
    restore(network, source.weights, source=str(source.folder / "weights.pt"))
    if source.float_weights is not None:
        restore(float_network, load_weights(source.float_weights)[0], source=str(source.float_weights))
    else:
        float_network = copy.deepcopy(network)
        dequantize(float_network)
    return Trained(
        network=network.eval(),
        float_network=float_network.eval(),
        float_source=str(source.float_weights or "this run's weights, not rounded"),
        image_shape=data.image_shape,
        class_names=list(facts["class_names"]),
        mean=list(facts["mean"]),
        std=list(facts["std"]),
        resize={"margin": int(getattr(data.evaluate, "margin", 0))},
        identity={
            "name": source.record["name"],
            "seed": source.record["seed"],
            "dataset": source.record["choices"]["dataset"],
            "model": source.record["model"],
            "quantizer": source.record["choices"]["quantizer"],
            "w_bits": source.record["w_bits"],
            "a_bits": source.record["a_bits"],
            "config_hash": source.config_hash,
        },
        calibration=lambda n: data.probe_batches(count=1, size=n, epoch=0)[0].image,
        validation=lambda: _examples(data),
    )


def _examples(data: ImageDataModule) -> Iterator[Examples]:
    """Validation batches as pixels and normalised; the pixels are whole numbers, also where an image was resized."""
    from sqakd.export.verify import Examples

    mean, std = torch.tensor(data.mean), torch.tensor(data.std)
    for batch in data.val_dataloader():
        pixels = batch.image if data.evaluate is None else data.evaluate(batch.image)
        pixels = pixels.round().clamp(0, 255).to(torch.uint8)
        yield Examples(pixels, normalize(pixels, mean, std), batch.label)

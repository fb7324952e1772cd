"""What a sweep would do, put together: cells, their float runs, and the time of those whose kind is not known.

The sums are `sqakd.app.plan`'s.
"""

from __future__ import annotations

import atexit
import io
import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf

from sqakd.app.advice import explain
from sqakd.app.compose import check_bits, parse, root_cause, run_of
from sqakd.app.console import say
from sqakd.app.plan import Plan
from sqakd.runs.spec import Sentence
from sqakd.training.callbacks.divergence import DivergenceError

PLAN = Plan()
MEASURED_STEPS = 4  # of a run whose time is not known
PLANNED: dict[tuple[str, ...], Sentence] = {}  # float runs by their words
# Trains a sentence; the composition root's, which this file does not know.
Train = Callable[[Sentence], float | None]


def plan(sentence: Sentence, train: Train) -> None:
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
            if line := _planned(PLANNED[words], impossible(PLANNED[words]), train=train if measured else None):
                say(line)
            if run.folder in PLAN.refused:
                problem = "its float run is refused"
    if line := _planned(sentence, problem, train=train if measured else None):
        say(line)


def _planned(sentence: Sentence, problem: str, *, train: Train | None) -> str | None:
    """The plan's line for a run, measured first if that is wanted and needed."""
    run = run_of(sentence)
    new = run.folder not in PLAN.seen and run.record() is None and not problem
    if train is not None and new and PLAN.seconds_per_epoch(run) is None:
        try:
            PLAN.learn(run, measure(sentence, train))
        except (ValueError, DivergenceError, InstantiationException) as error:
            problem = explain(root_cause(error))
    return PLAN.add(run, problem)


def measure(sentence: Sentence, train: Train) -> float:
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
    assert record.images_per_second is not None
    return images / record.images_per_second


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
        return explain(root_cause(error))
    return ""

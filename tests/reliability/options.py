"""Odd commands for train.py: each key of the configuration with each odd value of its type."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import command
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from sqakd.app import resolvers
from tests.reliability.attempt import Attempt, Check
from tests.reliability.case import Case, Expected, Fault
from tests.reliability.option_values import Odd, odd_values
from tests.reliability.samples import Samples

# One epoch of one batch with a teacher that is given: what is accepted trains for seconds.
BASE = (
    "dataset=digits16",
    "dataset.limit=64",
    "dataset.eval_batch_size=64",
    "model.net.blocks=1",
    "recipe.epochs=1",
    "trainer.accelerator=cpu",
)
GIVEN = "teacher.checkpoint=teacher.pt"
# Choices whose keys are not part of the default configuration, and where those keys lie.
CHOICES = {
    ("kd=dist",): "kd.feature_loss",
    ("kd=crd", "kd.feature_loss.negatives=16"): "kd.feature_loss",
    ("kd=cktf", "kd.feature_loss.negatives=16"): "kd.feature_loss",
    ("kd=vid",): "kd.feature_loss",
    ("kd=rkd",): "kd.feature_loss",
    ("kd=fitnet",): "kd.feature_loss",
    ("kd=cc",): "kd.feature_loss",
    ("kd=ft", "kd.feature_loss.pretrain_epochs=1"): "kd.feature_loss",
    ("kd=fsp", "kd.feature_loss.pretrain_epochs=1"): "kd.feature_loss",
    ("kd=squat",): "kd.feature_loss",
    ("kd=reconstruction", "recipe.epochs=2"): "kd.feature_loss",
    ("plus=bn",): "plus.bn",
    ("plus=cutmix",): "plus.cutmix",
    ("plus=dampen",): "plus.dampen",
    ("plus=ema",): "plus.ema",
    ("plus=trivial",): "plus.trivial",
    ("recipe=tiny_imagenet", "recipe.epochs=1"): "recipe.schedule",
}
FEW = {"word for a number", "nan", "negative", "true for a number", "fraction", "word for a boolean", "list"}
# Copies of other keys, and keys that only other processes read.
LEFT_OUT = ("teacher.name", "teacher.first", "teacher.feature_layers", "teacher.net._target_", "w_bits", "a_bits")
WORDS_OF_BOOLEANS = {"no": False, "off": False, "yes": True, "on": True}


def configuration(*overrides: str) -> dict[str, Any]:
    """Return the composed configuration, resolved where that needs no run."""
    resolvers.register()
    with initialize_config_dir(str(command.ROOT / "conf"), version_base="1.3"):
        plain = OmegaConf.to_container(compose("train", overrides=list(overrides)), resolve=False)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def leaves(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) of everything below a node that is no dict."""
    for name, value in node.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{key}.")
        else:
            yield key, value


def cases(samples: Samples) -> Iterator[Case]:
    """Yield the cases of keys and values."""
    config = configuration(*BASE)
    for key, default in leaves(config):
        if key.startswith(LEFT_OUT) or key == "logger":
            continue
        real = _resolved(config, default)
        few = key.startswith("teacher.recipe.")
        for odd in odd_values(key, real):
            if not few or odd.kind in FEW:
                yield _case(samples, (*BASE, *(("teacher.recipe.epochs=1",) if few else (GIVEN,))), key, odd)
    for choice, place in CHOICES.items():
        config = configuration(*BASE, *choice)
        for key, default in leaves(config):
            if key.startswith(f"{place}.") and not key.endswith(("_target_", "_partial_")):
                for odd in odd_values(key, _resolved(config, default)):
                    if odd.kind in FEW:
                        yield _case(samples, (*BASE, *choice, GIVEN), key, odd, prefix=f"{choice[0]} ")


def _case(samples: Samples, base: tuple[str, ...], key: str, odd: Odd, *, prefix: str = "") -> Case:
    checks: tuple[Check, ...] = ()
    expected = odd.expected
    if odd.kind == "word for a boolean" and odd.text in WORDS_OF_BOOLEANS:
        checks, expected = (_means(key, WORDS_OF_BOOLEANS[odd.text]),), Expected.EITHER
    attempt = Attempt(
        ("train.py", *base, f"{key}={odd.text}"),
        expected,
        prepare=lambda folder: shutil.copy(samples.teacher, folder),
        checks=checks,
    )
    return Case("options", odd.kind, f"{prefix}{key}={odd.text}".replace("\n", "\\n"), attempt)


def _means(key: str, meaning: bool) -> Check:
    """Return a check that a run took a word such as "off" for what it means."""

    def check(folder: Path, done: subprocess.CompletedProcess[str]) -> list[tuple[Fault, str]]:
        for file in folder.glob("runs/*/seed*/config.yaml"):
            value = dict(leaves(yaml.safe_load(file.read_text()))).get(key)
            if value is not meaning:
                return [(Fault.NONSENSE, f"{key} is {value!r} in config.yaml")]
        return []

    return check


def _resolved(config: dict[str, Any], value: object) -> object:
    """Return a value, or for "${other.key}" the other key's value."""
    while isinstance(value, str) and value.startswith("${") and ":" not in value and value.endswith("}"):
        value = dict(leaves(config)).get(value[2:-1].lstrip("."), 0.5)
    return value

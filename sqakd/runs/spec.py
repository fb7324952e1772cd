"""The specification of one run: its configuration, its choices, and its identity.

Two commands mean the same run if they have the same identity. An identity holds values, the names of chosen options,
and digests of the files that the run reads. The options stand for the classes that they choose, because moving or
renaming a class must not turn a finished run into another one. Only a class in place of that of the options, as a file
under conf/experiment may name one, is part of the identity by its import path.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

# Keys that decide how or where a run is executed, not what it computes; and keys that only hand their value on to
# others: quantizer.start is in quantizer.weight.start and quantizer.input.start, layer_bits in quantizer.layer_bits,
# residual_bits in quantizer.residual_bits, model.options in model.net.options.
NOT_IDENTITY = (
    "paths",
    "logger",
    "plan",
    "cell",
    "released",
    "dataset.classes",  # the digest of the images has the names, wherever they came from
    "callbacks.progress",
    "callbacks.quantizer_statistics",
    "callbacks.histograms",
    "quantizer.start",
    "layer_bits",
    "layer_w_bits",
    "layer_a_bits",
    "residual_bits",
    "model.options",
    "teacher.options",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.strategy",
    "trainer.sync_batchnorm",
    "trainer.compile",
    "trainer.channels_last",
    "dataset.root",
    "dataset.download",
    "dataset.cache",
)
# The callback that estimates EWGS's scaling factors computes nothing unless a rounding rule asks for the estimate.
ESTIMATE, ESTIMATED = "callbacks.hessian_scaling", "hessian"
# Bits of single layers, by pattern. They are part of the identity as one text, because the order of the patterns
# counts, and only if there are any, so that a run is the same whether its quantizer's file has these keys or not.
LAYER_BITS = ("layer_bits", "layer_w_bits", "layer_a_bits")
RESIDUAL_BITS = "residual_bits"
AUTO = "auto"  # bits that are chosen for each layer under a budget
# Configuration groups whose option chooses a class. The option stands for the class in the identity.
CHOICES = ("dataset", "model", "model@teacher", "quantizer", "quantizer/rounding", "kd", "plus")
# Keys that older runs lack, and the value that each of them had implicitly. A group that is absent or null stays so.
ADDED_KEYS: dict[str, Any] = {
    "quantizer.outer": "float",
    "recipe.calibration_batches": 1,
    "teacher.recipe.calibration_batches": 1,
    "callbacks.hessian_scaling.slice_size": 64,  # older runs differentiated a batch as a whole; theirs had 32 images
    "quantizer.start": None,
    "quantizer.weight.start": "paper",
    "quantizer.input.start": "paper",
    "quantizer.weight.power_of_two": False,
    "quantizer.input.power_of_two": False,
    "quantizer.residual_bits": None,
    "dataset.resize": None,
    "dataset.classes": None,
    "model.net.options": None,
    "teacher.net.options": None,
}
STARTING = ("WeightBounds", "ActivationBounds", "LearnedStep", "ClippedActivation")
# The classes that have an added key, where a group has others too.
OWNERS = {
    "quantizer.weight.start": STARTING,
    "quantizer.input.start": STARTING,
    "quantizer.weight.power_of_two": ("LearnedStep",),
    "quantizer.input.power_of_two": ("LearnedStep",),
    "dataset.resize": ("ImageFolder",),
    "dataset.classes": ("ImageFolder",),
    "model.net.options": ("timm_network",),
    "teacher.net.options": ("timm_network",),
}
TARGET = "_target_"
OWN = "sqakd."  # import paths of this project
HELPER = "_"  # first character of a user's own keys at the top, which other values refer to by ${_key}
IMAGES = "inputs.images"


@dataclass(frozen=True)
class Spec:
    """The specification of one run.

    Attributes:
        config: the resolved configuration as plain data.
        choices: the chosen option of each configuration group.
        overrides: the overrides given on the command line, e.g. "quantizer=ewgs".
        inputs: digests of files that the run reads and that may change: "teacher", "images".
        classes: import paths of this project's classes in place of those of the choices, by key of the configuration.
    """

    config: dict[str, Any]
    choices: dict[str, str]
    overrides: tuple[str, ...]
    inputs: Mapping[str, str] = field(default_factory=dict)
    classes: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return str(self.config["name"])

    @property
    def seed(self) -> int:
        seed: int = self.config["seed"]
        return seed

    @property
    def bits(self) -> tuple[int | str, int | str]:
        """Bits of weights and of activations; 32 for a float network, "auto" if they are chosen for each layer."""
        return self.config["w_bits"], self.config["a_bits"]

    @property
    def undecided(self) -> bool:
        """Whether the bits of the layers are still to be chosen."""
        quantizer = self.config.get("quantizer")
        return is_auto(self.config) and quantizer is not None and not any(map(quantizer.get, LAYER_BITS))

    def with_layer_bits(self, patterns: Mapping[str, Mapping[str, int]]) -> Spec:
        """Return the specification with bits of single layers, by key of `LAYER_BITS`; unchanged if there are none."""
        if not patterns:
            return self
        return replace(self, config=self.config | {"quantizer": self.config["quantizer"] | dict(patterns)})

    @property
    def saved(self) -> dict[str, Any]:
        """The content of config.yaml: the configuration, and the choices and inputs that belong to the identity."""
        chosen = {group: self.choices[group] for group in CHOICES if self.choices.get(group, "None") != "None"}
        for override in self.overrides:
            key, _, value = override.lstrip("+").partition("=")
            if key.endswith(f".{TARGET}") and value.startswith(OWN) and not _is_execution(key):
                chosen[key] = value
        chosen |= self.classes
        parts = {"choices": chosen, "inputs": dict(self.inputs)}
        return self.config | {key: value for key, value in parts.items() if value}

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Everything that decides what the run computes, as {dotted key: value}."""
        return identity(self.saved)


def identity(saved: Mapping[str, Any]) -> dict[str, Any]:
    """Return everything that decides what a run computes, as {dotted key: value}.

    Args:
        saved: content of a run's config.yaml.

    Example:
        >>> identity({"recipe": {"_target_": "sqakd.training.recipe.Recipe", "lr": 0.1}, "paths": {"runs": "runs"}})
        {'recipe.lr': 0.1}
    """
    flat: dict[str, Any] = {}

    def walk(prefix: str, value: Any) -> None:
        if _is_execution(prefix):
            return
        if prefix.rpartition(".")[2] == TARGET and str(value).startswith(OWN) and not prefix.startswith("choices."):
            return
        if prefix.rpartition(".")[2] in LAYER_BITS:
            if value:
                flat[prefix] = patterns_text(value)
        elif isinstance(value, Mapping) and value:
            for key, inner in value.items():
                walk(f"{prefix}.{key}" if prefix else str(key), inner)
        else:
            flat[prefix] = value

    walk("", saved)
    if not is_auto(saved):
        flat = {key: value for key, value in flat.items() if not key.startswith("budget")}
    if not any(key.startswith("quantizer.") and value == ESTIMATED for key, value in flat.items()):
        flat = {key: value for key, value in flat.items() if not key.startswith(ESTIMATE)}
    return flat


def targets(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the import path of each class in a configuration that decides what the run computes, by dotted key.

    Example:
        >>> targets({"recipe": {"_target_": "sqakd.training.recipe.Recipe", "lr": 0.1}, "logger": {"_target_": "x.Y"}})
        {'recipe._target_': 'sqakd.training.recipe.Recipe'}
    """
    found: dict[str, str] = {}

    def walk(prefix: str, value: Any) -> None:
        if _is_execution(prefix):
            return
        if isinstance(value, Mapping):
            for key, inner in value.items():
                walk(f"{prefix}.{key}" if prefix else str(key), inner)
        elif prefix.rpartition(".")[2] == TARGET:
            found[prefix] = str(value)

    walk("", config)
    return found


def is_auto(config: Mapping[str, Any]) -> bool:
    """Return whether the bits of single layers are chosen under a budget, which has no meaning otherwise."""
    return AUTO in (config.get("w_bits"), config.get("a_bits"))


def patterns_text(patterns: Any) -> str:
    """Return the bits of single layers as text.

    Example:
        >>> patterns_text({"conv1": 8, "layer3.*": 4})
        'conv1:8, layer3.*:4'
    """
    pairs = patterns.items() if isinstance(patterns, Mapping) else [(patterns, "?")]
    return ", ".join(f"{pattern}:{bits}" for pattern, bits in pairs)


def with_added_keys(saved: Mapping[str, Any]) -> dict[str, Any]:
    """Return a saved configuration with the keys that were added after its run.

    Example:
        >>> with_added_keys({"quantizer": {"first_last": "float"}})
        {'quantizer': {'first_last': 'float', 'outer': 'float', 'start': None, 'residual_bits': None}}
        >>> with_added_keys({"quantizer": None})
        {'quantizer': None}
    """
    filled = copy.deepcopy(dict(saved))
    for key, value in ADDED_KEYS.items():
        *groups, name = key.split(".")
        node: Any = filled
        for group in groups:
            node = node.get(group) if isinstance(node, dict) else None
        if not isinstance(node, dict):
            continue
        if key not in OWNERS or str(node.get(TARGET)).rpartition(".")[2] in OWNERS[key]:
            node.setdefault(name, value)
    return filled


def with_recorded_classes(saved: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """Return a saved configuration whose choices have the classes of its nodes at some keys.

    Older runs recorded no classes in place of those of their choices, but their nodes have them. An older run with such
    a class still equals a command without one.

    Args:
        saved: content of a run's config.yaml; one without choices is returned as it is.
        keys: dotted keys of the configuration, each of a class.

    Example:
        >>> saved = {"choices": {"recipe": "own"}, "recipe": {"schedule": {"_target_": "sqakd.training.schedule.Step"}}}
        >>> with_recorded_classes(saved, ["recipe.schedule._target_"])["choices"]
        {'recipe.schedule._target_': 'sqakd.training.schedule.Step', 'recipe': 'own'}
    """
    if "choices" not in saved:
        return dict(saved)
    known = targets(saved)
    return {**saved, "choices": {key: known[key] for key in keys if key in known} | saved["choices"]}


def _is_execution(key: str) -> bool:
    return key.startswith(HELPER) or any(key == name or key.startswith(f"{name}.") for name in NOT_IDENTITY)


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """List the keys of two identities that differ, each as "key: there -> here".

    Runs of version 1 recorded neither choices nor inputs, so these are compared only if both sides have them. The
    same holds for the images: earlier versions recorded no digest of some data sets, and images with a checksum of
    their own have none.
    """
    absent = "(absent)"
    keys = there.keys() | here.keys()
    for recorded in ("choices.", "inputs."):
        if not all(any(key.startswith(recorded) for key in side) for side in (there, here)):
            keys = {key for key in keys if not key.startswith(recorded)}
    if not (IMAGES in there and IMAGES in here):
        keys = keys - {IMAGES}
    pairs = {key: [side.get(key, absent) for side in (there, here)] for key in sorted(keys)}
    return [f"{key}: {old} -> {new}" for key, (old, new) in pairs.items() if old != new]

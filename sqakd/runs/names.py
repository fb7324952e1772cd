"""Names of everything that a run logs. The names do not change, so dashboards can rely on them.

Words in capitals are placeholders: LAYER for a quantized layer, TENSOR for its weight or input, CODE for an integer,
SCORE for a name after val/, AGGREGATE for last, best or mean_of_last_5. Shares and scores are between 0 and 1,
differences between -1 and 1. docs/dashboard.md shows the same table.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from sqakd.runs.record import changes_text
from sqakd.runs.spec import AUTO, LAYER_BITS, Spec, is_auto, patterns_text

METRICS = {
    "epoch": "number of the epoch, from 0; part of every row of an epoch",
    "images_per_second": "of the training part of the epoch",
    "preliminary": "1 if the epoch has more bits than the run (plus=progressive, two_step)",
    "train/loss": "weighted sum of the parts, mean of the epoch",
    "train/ce": "part of the loss: cross-entropy with the labels",
    "train/kl": "part of the loss: KL divergence from the teacher's logits",
    "train/feature": "part of the loss: the feature loss",
    "train/distance_to_grid": "sum of squared distances of the weights to the grid (plus=dampen)",
    "train/lr": "learning rate of the network",
    "train/quantizer_lr": "learning rate of the quantizers",
    "val/top1": "top-1 on the validation images; needs labels",
    "val/topK": "top-K on the validation images; K is 5, or the number of classes if there are fewer",
    "val/agreement": "share of the validation images on which student and teacher agree",
    "val/kl": "KL divergence from the teacher's logits",
    "quantizer/LAYER/TENSOR/clip_low": "lower end of the clip range: the method's bound, or the end of its grid",
    "quantizer/LAYER/TENSOR/clip_high": "upper end of the clip range",
    "quantizer/LAYER/TENSOR/entropy": "entropy of the codes in bits; at most the layer's bits",
    "quantizer/LAYER/TENSOR/used": "share of the codes that occur",
    "quantizer/LAYER/TENSOR/code_CODE": "share of the values that have this code",
    "quantizer/LAYER/TENSOR/lower": "learned lower bound (ewgs, ste)",
    "quantizer/LAYER/TENSOR/upper": "learned upper bound (ewgs, ste)",
    "quantizer/LAYER/TENSOR/step": "learned or frozen step (lsq; released pact, dorefa)",
    "quantizer/LAYER/TENSOR/alpha": "learned clip (pact)",
    "quantizer/LAYER/TENSOR/delta": "gradient scaling (ewgs)",
    "quantizer/LAYER/TENSOR/output_scale": "output scale of the layer (ewgs, ste)",
    "layers/TENSOR/clip_low": "mean over the quantized layers",
    "layers/TENSOR/clip_high": "mean over the quantized layers",
    "layers/TENSOR/entropy": "mean over the quantized layers",
    "layers/TENSOR/used": "mean over the quantized layers",
    "quantizers": "table of the ranges, scales and codes of each layer, as in quantizers.csv",
    "histogram/LAYER/TENSOR": "histogram of the float values, 64 bins",
    "record/SCORE/AGGREGATE": "scores of the run, once, at the end",
    "record/before_training/top1": "top-1 after calibration, before any training",
    "record/before_training/agreement": "agreement with the teacher at that moment",
    "record/drop_from_float": "last top-1 of the float run minus that of the run",
    "record/paper/top1": "the published number of the run's cell",
    "record/difference_from_paper": "last top-1 of the run minus the published number",
    "record/packed_bytes": "packed size of the network",
    "record/bit_operations": "bit-operations for one image",
    "record/images_per_second": "median over the epochs",
    "record/training_seconds": "of all epochs and of a stage before them, over all starts of the run",
    "picture": "the run's picture.png",
}
PLACEHOLDERS = {
    "LAYER": r"[^/]+",
    "TENSOR": "(weight|input)",
    "CODE": r"-?\d+",
    "SCORE": r"[a-z]+\d?",
    "AGGREGATE": "(last|best|mean_of_last_5)",
    "topK": r"top[2-5]",
}
# Keys of `choices` in the configuration that the loggers store: runs can be grouped by them.
GROUP_KEYS = {
    "cell": "name of the cell and its changes; the same for all seeds",
    "dataset": "the chosen data set",
    "model": "name of the network",
    "quantizer": "the chosen quantizer",
    "kd": "the chosen loss",
    "plus": "the chosen add-ons, joined by +",
    "bits": "e.g. w2a2; w32a32 for a float run; w2a2+mixed3f1c with bits of single layers; w2a2+r8 with those of sums",
    "experiment": "the chosen experiment",
    "table": "the table that the run is part of",
    "changes": "other values that differ from those of the choices",
}
NONE = "none"
USUAL_CRITERION = "kl"  # another one is part of the name
# Limits of a budget as they stand in a name: the value with this unit.
BUDGET_UNITS = {"size": "", "bit_operations": "bitops", "average_bits": "bits"}


def pattern(name: str) -> re.Pattern[str]:
    """Return a pattern that matches the metrics of a name in the table."""
    parts = re.split(f"({'|'.join(PLACEHOLDERS)})", name)
    return re.compile("".join(PLACEHOLDERS.get(part, re.escape(part)) for part in parts))


def listed_name(metric: str) -> str | None:
    """Return the name in the table of a logged metric; None if there is none."""
    return next((name for name in METRICS if pattern(name).fullmatch(metric)), None)


def group_values(spec: Spec, changes: dict[str, Any]) -> dict[str, str]:
    """Return a value for each key of `GROUP_KEYS`, by which runs can be grouped; "none" if nothing was chosen.

    Args:
        spec: the specification of the run.
        changes: values that differ from those of the choices alone.
    """
    config, others = spec.config, changes_text(changes)
    chosen = {key: value for key, value in spec.choices.items() if value != "None"}
    chosen |= {
        "cell": " ".join(part for part in (config["cell"], others) if part),
        "model": config["model"]["name"],
        "bits": bits_name(config),
        "changes": others,
    }
    return {key: chosen.get(key) or NONE for key in GROUP_KEYS}


def bits_name(config: Mapping[str, Any]) -> str:
    """Return the bits of a run as they stand in its name; a digest stands for the bits of single layers.

    Args:
        config: the configuration.

    Example:
        >>> bits_name({"w_bits": 1, "a_bits": 4, "quantizer": {}})
        'w1a4'
        >>> bits_name({"w_bits": 2, "a_bits": 2, "quantizer": {"layer_bits": {"conv1": 8}}})
        'w2a2+mixedc7e6'
        >>> bits_name({"w_bits": 2, "a_bits": 2, "quantizer": {"residual_bits": 8}})
        'w2a2+r8'
        >>> auto = {"w_bits": "auto", "a_bits": "auto", "quantizer": {}}
        >>> bits_name(auto | {"budget": {"size": "40kB", "average_bits": 2.5}})
        'auto+40kB+2.5bits'
        >>> bits_name(auto | {"a_bits": 4, "budget": {"size": "40kB", "criterion": "curvature"}})
        'wautoa4+40kB+curvature'
    """
    quantizer = config["quantizer"] or {}
    residual = [f"r{bits}" for bits in (quantizer.get("residual_bits"),) if bits is not None]
    if is_auto(config):
        both, budget = {config["w_bits"], config["a_bits"]} == {AUTO}, config.get("budget") or {}
        limits = [f"{budget[key]}{unit}" for key, unit in BUDGET_UNITS.items() if budget.get(key) is not None]
        criterion = [budget["criterion"]] if budget.get("criterion", USUAL_CRITERION) != USUAL_CRITERION else []
        return "+".join([AUTO if both else f"w{config['w_bits']}a{config['a_bits']}", *limits, *criterion, *residual])
    patterns = [f"{key}={patterns_text(quantizer[key])}" for key in LAYER_BITS if quantizer.get(key)]
    digest = hashlib.sha256("; ".join(patterns).encode()).hexdigest()[:4]
    mixed = [f"mixed{digest}"] * bool(patterns)
    return "+".join([f"w{config['w_bits']}a{config['a_bits']}", *mixed, *residual])

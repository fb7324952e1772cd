"""Everything a run logs, under names that stay: what a dashboard may rely on. docs/dashboard.md shows this table.

A word in capitals stands for: LAYER a quantized layer, TENSOR its weight or input, CODE an integer, SCORE a name after
val/, KIND last, best or mean_of_last_5. Shares, scores and differences are between 0 and 1 (-1 and 1).
"""

from __future__ import annotations

import json
import re
from typing import Any

from sqakd.runs.spec import Spec

METRICS = {
    "epoch": "from 0; beside every number of an epoch",
    "images_per_second": "of the training part of the epoch",
    "preliminary": "1 where the epoch has more bits than asked for (plus=progressive, two_step)",
    "train/loss": "weighted sum of the parts, mean of the epoch",
    "train/ce": "part: labels",
    "train/kl": "part: the teacher's logits",
    "train/feature": "part: the feature loss",
    "train/distance_to_grid": "of the weights (plus=dampen)",
    "train/lr": "learning rate of the network",
    "train/quantizer_lr": "of the quantizers",
    "val/top1": "share of the validation images; needs labels",
    "val/topK": "K is 5, or the number of classes if there are fewer",
    "val/agreement": "share on which student and teacher agree",
    "val/kl": "divergence from the teacher",
    "quantizer/LAYER/TENSOR/clip_low": "where clipping starts: the method's bound, or the end of its grid",
    "quantizer/LAYER/TENSOR/clip_high": "the same at the other end; of channels, the widest",
    "quantizer/LAYER/TENSOR/entropy": "of the codes, in bits: at most the layer's bits, if all are used equally",
    "quantizer/LAYER/TENSOR/used": "share of the codes that occur at all",
    "quantizer/LAYER/TENSOR/code_CODE": "share of the values that have this code",
    "quantizer/LAYER/TENSOR/lower": "learned bound (ewgs, ste)",
    "quantizer/LAYER/TENSOR/upper": "learned bound (ewgs, ste)",
    "quantizer/LAYER/TENSOR/step": "learned or frozen step (lsq; released pact, dorefa)",
    "quantizer/LAYER/TENSOR/alpha": "learned clip (pact)",
    "quantizer/LAYER/TENSOR/delta": "gradient scaling (ewgs)",
    "quantizer/LAYER/TENSOR/output_scale": "of the layer (ewgs, ste)",
    "layers/TENSOR/clip_low": "mean over the quantized layers",
    "layers/TENSOR/clip_high": "mean over the quantized layers",
    "layers/TENSOR/entropy": "mean over the quantized layers",
    "layers/TENSOR/used": "mean over the quantized layers",
    "histogram/LAYER/TENSOR": "of the float values, 64 bins",
    "record/SCORE/KIND": "the result, once, at the end",
    "record/drop_from_float": "last top-1 of the float run minus the run's own",
    "record/paper/top1": "the published number of the run's cell",
    "record/difference_from_paper": "the run's last top-1 minus the published one",
    "record/packed_bytes": "size of the weights at their own bits",
    "record/bit_operations": "multiply-adds times both widths, one image",
    "record/images_per_second": "median of the epochs",
    "record/training_seconds": "all epochs, over all starts",
}
PLACEHOLDERS = {
    "LAYER": r"[^/]+",
    "TENSOR": "(weight|input)",
    "CODE": r"-?\d+",
    "SCORE": r"[a-z]+\d?",
    "KIND": "(last|best|mean_of_last_5)",
    "topK": r"top[2-5]",
}
# Keys of `choices` in a run's configuration, where the loggers keep it: what runs can be grouped by.
CHOICES = {
    "cell": "what seeds have in common: the cell's name, and the changes",
    "dataset": "as in the sentence",
    "model": "the network's name",
    "quantizer": "as in the sentence",
    "kd": "as in the sentence",
    "plus": "several are joined by +",
    "bits": "w2a2; w32a32 is the float run",
    "experiment": "as in the sentence",
    "table": "as in the sentence",
    "changes": "every other value that differs from what the choices say",
}
NONE = "none"


def pattern(name: str) -> re.Pattern[str]:
    """Matches what a name of the table stands for."""
    parts = re.split(f"({'|'.join(PLACEHOLDERS)})", name)
    return re.compile("".join(PLACEHOLDERS.get(part, re.escape(part)) for part in parts))


def known(metric: str) -> str | None:
    """The name in the table that a logged metric goes by."""
    return next((name for name in METRICS if pattern(name).fullmatch(metric)), None)


def choices(spec: Spec, changes: dict[str, Any]) -> dict[str, str]:
    """What a run is, flat, one word for each key of `CHOICES`; "none" where nothing was chosen.

    Args:
        spec: what is run.
        changes: values that differ from those of the choices alone.
    """
    config, others = spec.config, ", ".join(f"{key}={json.dumps(value)}" for key, value in changes.items())
    chosen = {key: value for key, value in spec.choices.items() if value != "None"}
    chosen |= {
        "cell": " ".join(part for part in (config["cell"], others) if part),
        "model": config["model"]["name"],
        "bits": f"w{config['w_bits']}a{config['a_bits']}",
        "changes": others,
    }
    return {key: chosen.get(key) or NONE for key in CHOICES}

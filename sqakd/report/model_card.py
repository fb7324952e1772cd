"""The model card of a run: README.md, in the form that model hubs show.

It says what the network is, how it was trained, what its numbers mean, how it is used, and under which terms the images
stand. The front matter has the keys of Hugging Face's model cards:
https://huggingface.co/docs/hub/model-cards#model-card-metadata
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from sqakd.runs.record import Record, changes_text
from sqakd.terminal import printable

SHOWN_CLASSES = 20


def model_card(record: Record, facts: Mapping[str, Any], *, use: str, onnx: str | None = None) -> str:
    """Return the Markdown text of a model card.

    Args:
        record: of a finished run.
        facts: of its weights file.
        use: lines of Python that load the network.
        onnx: name of an exported file beside the card; None if there is none.
    """
    program = "" if onnx is None else f"\n\n`{onnx}` needs no torch: `python -m sqakd.predict {onnx} IMAGE`."
    front = yaml.safe_dump(_front_matter(record), sort_keys=False, allow_unicode=True)
    sections = [
        f"# {printable(record.name)}, seed {record.seed}",
        _description(record),
        f"## Use\n\n```python\n{use}\n```{program}\n\n{_input(facts)}",
        f"## Training\n\n```sh\n{record.command}\n```\n\n{_training(record)}",
        f"## Results\n\n{_results(record)}",
        f"## Images and licence\n\n{_licence(record, facts)}",
    ]
    return f"---\n{front}---\n\n" + "\n\n".join(sections) + "\n"


def loading(file: str) -> str:
    """Return lines of Python that load a network from a file of this name."""
    return f'import sqakd\n\nnetwork = sqakd.load("{file}")  # in evaluation mode, on the CPU'


def _front_matter(record: Record) -> dict[str, Any]:
    tags = ["image-classification", "sqakd"]
    if record.quantizer != "none":
        tags += ["quantization", f"w{record.w_bits}a{record.a_bits}", record.quantizer]
    if record.labels_used is False:
        tags.append("knowledge-distillation")
    front: dict[str, Any] = {"library_name": "sqakd", "pipeline_tag": "image-classification", "tags": tags}
    names = {"top1": ("accuracy", "top-1"), "agreement": ("agreement", "agreement with the float teacher")}
    metrics = [
        {"type": kind, "name": name, "value": round(record.scores[score].last, 6)}
        for score, (kind, name) in names.items()
        if score in record.scores
    ]
    if metrics:
        result = {
            "task": {"type": "image-classification"},
            "dataset": {"type": record.dataset, "name": record.dataset},
            "metrics": metrics,
        }
        front["model-index"] = [{"name": record.name, "results": [result]}]
    return front


def _description(record: Record) -> str:
    if record.epochs == 0:
        labels = "calibrated on training images, without labels and without a training"
    else:
        labels = {
            True: "trained with labels",
            False: "trained without labels: a float network was the teacher",
            None: "trained by an earlier version, which did not record whether it read labels",
        }[record.labels_used]
    if record.quantizer == "none":
        return f"A float {record.model}, {labels}, on images of `{record.dataset}`."
    return (
        f"A {record.model} with {_bits(record)} (quantizer `{record.quantizer}`, loss `{record.kd}`), {labels}, on"
        f" images of `{record.dataset}`. All parameters, with quantized weights at their bits, take"
        f" {record.packed_bytes / 1000:.1f} kB."
    )


def _bits(record: Record) -> str:
    if not record.layer_bits:
        residual = record.changes.get("quantizer.residual_bits")
        if residual is not None:
            return f"{record.w_bits}-bit weights, {record.a_bits}-bit activations and {residual}-bit residual sums"
        return f"{record.w_bits}-bit weights and {record.a_bits}-bit activations"
    ranges = [f"{min(own)} to {max(own)} bits" for own in zip(*record.layer_bits.values(), strict=True)]
    return f"bits for each layer: weights of {ranges[0]} and activations of {ranges[1]}"


def _input(facts: Mapping[str, Any]) -> str:
    shape = facts.get("image_shape")
    size = f"{shape[0]} x {shape[1]} x {shape[2]} (channels, height, width)" if shape else "the size of the training"
    text = (
        f"The input is a batch of images of {size}, scaled to 0 .. 1, minus the mean {facts['mean']}, divided by the"
        f" standard deviation {facts['std']}, per channel. The output has {facts['num_classes']} logits"
    )
    names = [printable(name) for name in facts["class_names"]]
    if not names:
        return f"{text}; the names of their classes are not known."
    more = f" and {len(names) - SHOWN_CLASSES} more" if len(names) > SHOWN_CLASSES else ""
    return f"{text}: {', '.join(names[:SHOWN_CLASSES])}{more}."


def _training(record: Record) -> str:
    parts = [f"{record.epochs} epochs" if record.epochs else "Calibrated only, not trained"]
    if record.float_run:
        parts.append(f"start from the float run `{printable(record.float_run.name)}`, seed {record.float_run.seed}")
    if record.device:
        parts.append(f"device {printable(record.device)}")
    if record.commit:
        parts.append(f"commit {record.commit}")
    parts += [f"{name} {version}" for name, version in record.versions.items()]
    changed = f" Values that differ from those of the choices: `{changes_text(record.changes)}`."
    return f"{', '.join(parts)}.{changed if record.changes else ''}"


def _results(record: Record) -> str:
    meanings = {
        "top1": "top-1: share of validation images whose label has the largest logit",
        "top5": "top-5: share of validation images whose label is among the five largest logits",
        "agreement": "agreement: share of validation images for which network and teacher predict the same class",
        "kl": "kl: divergence of the network's prediction from its teacher's, in nats, mean over the validation images",
    }
    trained = record.epochs > 0
    lines = ["| score | last epoch | best epoch |", "|---|---|---|"] if trained else ["| score | value |", "|---|---|"]
    for name, score in record.scores.items():
        values = (score.last, score.best) if trained else (score.last,)
        shown = " | ".join(f"{value:.4f}" if name == "kl" else _percent(value) for value in values)
        lines.append(f"| {meanings.get(name, name)} | {shown} |")
    text = "\n".join(lines)
    if record.float_run and "top1" in record.float_run.scores:
        text += f"\n\nThe float network has top-1 {_percent(record.float_run.scores['top1'].last)}."
    if not trained:
        return text
    return (
        f"{text}\n\nThe weights are those of the last epoch. The best epoch was chosen by the same validation images,"
        " so it is optimistic."
    )


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _licence(record: Record, facts: Mapping[str, Any]) -> str:
    terms = facts.get("licence")
    known = f"The images of `{record.dataset}`: {terms}." if terms else "The terms of the images were not recorded."
    return f"{known} The weights have no licence of their own; whoever shares them chooses one that these terms allow."

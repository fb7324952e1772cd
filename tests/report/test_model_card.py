"""The model card of a run: front matter that hubs read, and what the numbers mean."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import yaml
from made_runs import Made, made_record

from sqakd.report.model_card import loading, model_card
from sqakd.runs.record import Record, Score

STUDENT = made_record(Made("digits16", "resnet20", "ewgs", 2, "sqakd", 0))
FLOAT = made_record(Made("digits16", "resnet20", "none", 32, "none", 0))
FACTS: dict[str, Any] = {
    "num_classes": 3,
    "class_names": ["cat", "dog", "cow\x1b[2J"],
    "mean": [0.5, 0.4, 0.3],
    "std": [0.2, 0.2, 0.1],
    "image_shape": [3, 32, 32],
    "licence": "MIT licence",
}


def card(record: Record, **changes: Any) -> tuple[dict[str, Any], str]:
    """Return the front matter and the text of a card."""
    text = model_card(record, FACTS | changes, use=loading("weights.safetensors"))
    _, front, body = text.split("---\n", 2)
    found: dict[str, Any] = yaml.safe_load(front)
    return found, body


def test_a_student_s_card_says_how_it_was_trained_and_scored() -> None:
    front, body = card(STUDENT)
    assert {"quantization", "w2a2", "ewgs"} <= {*front["tags"]}
    (metric, *_) = front["model-index"][0]["results"][0]["metrics"]
    assert metric == {"type": "accuracy", "name": "top-1", "value": round(STUDENT.scores["top1"].last, 6)}
    for part in (
        STUDENT.command,
        'sqakd.load("weights.safetensors")',
        "3 logits: cat, dog, cow\\x1b[2J.",
        "MIT licence",
    ):
        assert part in body
    assert f"{100 * STUDENT.scores['top1'].last:.2f} %" in body
    assert "[0.5, 0.4, 0.3]" in body


def test_the_card_of_a_run_with_bits_for_each_layer_says_so() -> None:
    _, body = card(replace(STUDENT, layer_bits={"conv1": [8, 4], "conv2": [1, 2]}))
    assert "A resnet20 with bits for each layer: weights of 1 to 8 bits and activations of 2 to 4 bits" in body


def test_a_float_run_s_card_does_not_speak_of_bits() -> None:
    front, body = card(FLOAT)
    assert "quantization" not in front["tags"]
    assert "A float resnet20, trained with labels" in body


def test_a_float_run_with_a_teacher_did_not_read_labels() -> None:
    assert "A float resnet20, trained without labels" in card(replace(FLOAT, labels_used=False))[1]


def test_a_calibrated_network_was_not_trained_and_has_one_score() -> None:
    body = card(replace(STUDENT, epochs=0))[1]
    assert "calibrated on training images, without labels and without a training" in body
    assert "| score | value |" in body
    assert "best" not in body


def test_the_card_of_a_hub_folder_names_the_exported_file() -> None:
    text = model_card(STUDENT, FACTS, use=loading("model.safetensors"), onnx="model.onnx")
    assert "`python -m sqakd.predict model.onnx IMAGE`" in text


@pytest.mark.parametrize(
    ("labels_used", "text"),
    [(False, "without labels"), (True, "trained with labels"), (None, "did not record whether it read labels")],
)
def test_the_card_says_whether_labels_were_read(labels_used: bool | None, text: str) -> None:
    assert text in card(replace(STUDENT, labels_used=labels_used))[1]


def test_what_is_not_known_is_said_to_be_unknown() -> None:
    score = Score(last=0.9, best=0.95, mean_of_last_5=0.9)
    unlabelled = replace(
        STUDENT, scores={"agreement": score, "kl": score}, float_run=None, command="c", changes={"a": 1}
    )
    front, body = card(unlabelled, class_names=[], licence=None, image_shape=None)
    assert [metric["type"] for metric in front["model-index"][0]["results"][0]["metrics"]] == ["agreement"]
    assert "the names of their classes are not known" in body
    assert "The terms of the images were not recorded." in body
    assert "`a=1`" in body
    assert "0.9000 | 0.9500" in body

"""The teacher's predictions on images without labels."""

from __future__ import annotations

import pytest
import small
import torch
from torch import Tensor, nn

from sqakd.training.confidence import Confidence, confidence


class ByPosition(nn.Module):
    """Returns the given logits for images in their order, once per row."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.register_buffer("logits", logits)
        self.register_buffer("position", torch.tensor(0))

    def forward(self, images: Tensor) -> Tensor:
        start = int(self.get_buffer("position"))
        self.get_buffer("position").add_(len(images))
        return self.get_buffer("logits")[start : start + len(images)]


def test_predictions_and_their_probabilities_are_counted_over_all_batches() -> None:
    data = small.images(small.UnlabelledImages)
    logits = torch.randn(small.VAL, small.CLASSES, generator=torch.Generator().manual_seed(0))
    found = confidence(ByPosition(logits), data, torch.device("cpu"))
    assert found.images == small.VAL
    assert found.counts == torch.bincount(logits.argmax(dim=1), minlength=small.CLASSES).tolist()
    assert found.mean == pytest.approx(float(logits.softmax(dim=1).amax(dim=1).mean()))


def test_the_network_does_not_change() -> None:
    data, network = small.images(small.UnlabelledImages), nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(192, 10))
    first, second = (confidence(network, data, torch.device("cpu")) for _ in range(2))
    assert first == second
    assert all(module.training for module in network)


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        ([5, 0, 5], "predicted classes 0 (50%), 2 (50%); never 1"),
        ([1, 2, 3, 4], "predicted classes 3 (40%), 2 (30%), 1 (20%) and 1 more"),
        ([10, *[0] * 9], "predicted classes 0 (100%); never 9 others"),
    ],
)
def test_the_line_names_the_most_frequent_classes(counts: list[int], text: str) -> None:
    assert Confidence(0.5, counts).text() == f"mean confidence 50.0%, {text}"


def test_few_images_are_a_problem() -> None:
    assert Confidence(0.5, [99]).problem() == "the agreement is measured on 99 images, so one image is 1.0 points"
    assert Confidence(0.5, [100]).problem() is None

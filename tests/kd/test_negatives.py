"""Properties of the negatives of a contrastive loss."""

from __future__ import annotations

import pytest
import torch
from small_crd import LABELS
from torch import Tensor

from sqakd.advice import explain
from sqakd.errors import SqakdError
from sqakd.kd.negatives import NegativeSampler


def negatives(count: int, step: int = 0, index: Tensor | None = None) -> Tensor:
    """Return [N, images], how many times each training image is a negative of each image of a batch."""
    index = torch.arange(60) if index is None else index
    drawn = NegativeSampler(LABELS, count=count).draw(index, torch.Generator().manual_seed(step))
    times = torch.zeros(len(index), 60)
    times[:, drawn["candidates"]] = drawn["chosen"] * drawn["repeats"][:, None]
    return times


@pytest.mark.parametrize("count", [1, 7, 29, 30, 31, 40, 59, 100])
def test_an_image_gets_the_requested_number_of_negatives_and_none_of_its_own_class(count: int) -> None:
    times = negatives(count)
    assert not (times * (LABELS[:, None] == LABELS)).any()
    assert torch.allclose(times.sum(dim=1), torch.full((60,), float(count)))
    others = (LABELS[:, None] != LABELS).sum(dim=1)
    assert torch.equal((times > 0).sum(dim=1), others.clamp(max=count))


def test_negatives_are_a_function_of_seed_and_step() -> None:
    assert torch.equal(negatives(7, step=3), negatives(7, step=3))
    assert not torch.equal(negatives(7, step=3), negatives(7, step=4))
    some = torch.tensor([5, 17, 2])
    assert torch.equal(negatives(7, step=3, index=some), negatives(7, step=3)[some])


def test_all_images_of_other_classes_are_drawn_equally_often() -> None:
    steps, count = 2000, 7
    shares = torch.stack([negatives(count, step) for step in range(steps)]).mean(dim=0)
    others = (LABELS[:, None] != LABELS).float()
    expected = count * others / others.sum(dim=1, keepdim=True)
    deviation = (expected * (1 - expected) / steps).sqrt()
    assert bool(((shares - expected).abs() <= 5 * deviation).all())


def test_a_training_set_of_one_class_is_refused() -> None:
    with pytest.raises(SqakdError, match="all training images are of one class") as error:
        NegativeSampler(torch.zeros(5, dtype=torch.long), count=2)
    assert "kd=sqakd" in explain(error.value)

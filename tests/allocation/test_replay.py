"""Repeated forward passes: nothing that the network changes in place reaches the next pass."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sqakd.allocation.replay import Replay


class Changing(nn.Module):
    """Adds to the output of its first layer in place, as many residual blocks do."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        y += 1
        logits: Tensor = self.last(y)
        return logits


def test_an_output_that_is_changed_in_place_is_the_same_in_each_pass() -> None:
    model, images = Changing(), torch.randn(4, 3)
    replay = Replay(model)
    logits = replay.record(images)
    for _ in range(3):
        assert torch.equal(replay.run(model.last, model.last.forward), logits)

"""The NCE loss and its partition function against the formulas of the paper."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_crd import LABELS, random
from torch import nn

from sqakd.kd.nce import contrastive_loss, log_partition
from sqakd.kd.negatives import NegativeSampler


def test_loss_and_partition_function_equal_the_paper_s_formula() -> None:
    """The formula is evaluated as written, with the memories gathered for each image, in float64."""
    bank, anchor, index = (
        random(60, 16),
        nn.functional.normalize(random(5, 16, seed=1)),
        torch.tensor([3, 8, 9, 20, 40]),
    )
    drawn = NegativeSampler(LABELS, count=12).draw(index, torch.Generator().manual_seed(0))
    gathered = torch.stack([bank[drawn["candidates"][row]] for row in drawn["chosen"]]).double()  # [N, K, D]
    assert gathered.shape == (5, 12, 16)
    scores = (torch.cat([bank[index][:, None], gathered], dim=1) @ anchor[:, :, None].double()).squeeze(2) / 0.1
    z = 60 * scores.exp().mean()
    p, noise = scores.exp() / z, 12 / 60
    expected = -((p[:, 0] / (p[:, 0] + noise)).log() + (noise / (p[:, 1:] + noise)).log().sum(dim=1)).mean()

    own, others = (anchor * bank[index]).sum(dim=1) / 0.1, anchor @ bank[drawn["candidates"]].T / 0.1
    arguments = own, others, drawn["chosen"], drawn["repeats"]
    log_z = log_partition(*arguments, images=60)
    assert float(log_z.exp()) == pytest.approx(float(z), rel=1e-5)
    assert float(contrastive_loss(*arguments, log_z + np.log(noise))) == pytest.approx(float(expected), rel=1e-5)

"""The sum at the end of a residual block, as a module, so that quantization can find it and round it."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class ResidualSum(nn.Module):
    """The end of a residual block: relu(branch + shortcut), two tensors of one shape.

    Example:
        >>> import torch
        >>> ResidualSum()(torch.tensor([1.0, -3.0]), torch.tensor([0.5, 2.0])).tolist()
        [1.5, 0.0]
    """

    def forward(self, branch: Tensor, shortcut: Tensor) -> Tensor:
        return F.relu(branch + shortcut)

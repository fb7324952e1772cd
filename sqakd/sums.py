"""The sum at the end of a residual block, as a module, so that quantization can find it and round it."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class ResidualSum(nn.Module):
    """The end of a residual block: relu(branch + shortcut), two tensors of one shape.

    Args:
        relu: False for branch + shortcut alone, as in networks with linear bottlenecks (MobileNet-V2).

    Example:
        >>> import torch
        >>> ResidualSum()(torch.tensor([1.0, -3.0]), torch.tensor([0.5, 2.0])).tolist()
        [1.5, 0.0]
        >>> ResidualSum(relu=False)(torch.tensor([1.0, -3.0]), torch.tensor([0.5, 2.0])).tolist()
        [1.5, -1.0]
    """

    def __init__(self, *, relu: bool = True) -> None:
        super().__init__()
        self.relu = relu

    def extra_repr(self) -> str:
        return f"relu={self.relu}"

    def forward(self, branch: Tensor, shortcut: Tensor) -> Tensor:
        total = branch + shortcut
        return F.relu(total) if self.relu else total

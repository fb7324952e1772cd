r"""FitNets: a middle layer of the student, after a learned regressor, should equal the teacher's (the hint).

Paper: Romero et al. 2015, "FitNets: Hints for Thin Deep Nets" (https://arxiv.org/abs/1412.6550), equation 3:

    loss = mean (R(student) - teacher)^2,     R = convolution, batch norm, ReLU

Where this differs: the paper first trains the student's lower half on this loss alone, and then drops the loss. Here,
as in SQAKD's comparison, the loss is added to the cross-entropy during the whole training. The paper's regressor R has
no batch norm.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from sqakd.errors import SqakdError
from sqakd.kd.base import FeatureBatch, FeatureLoss, SetupInfo, mismatch
from sqakd.kd.shapes import is_map


def hint_loss(regressed: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared difference of two maps [N, C, H, W].

    Example:
        >>> import torch
        >>> float(hint_loss(torch.zeros(1, 1, 2, 2), torch.full((1, 1, 2, 2), 3.0)))
        9.0
    """
    return F.mse_loss(regressed.float(), teacher.float())


def regressor(student: Tensor, teacher: Tensor) -> nn.Sequential | None:
    """Return a module from the student's map to the shape of the teacher's, or None if no rule below applies.

    - Teacher half as large: a 3x3 convolution of stride 2.
    - Teacher twice as large: a 4x4 transposed convolution of stride 2.
    - Teacher smaller or equal: a convolution without padding, whose kernel removes the difference in size. Equal sizes
      so get a 1x1 kernel.

    Args:
        student: [N, C, H, W].
        teacher: [N, C', H', W'].
    """
    height, width = student.shape[2:]
    wanted = tuple(teacher.shape[2:])
    channels = student.shape[1], teacher.shape[1]
    convolution: nn.Module
    if (height, width) == (2 * wanted[0], 2 * wanted[1]):
        convolution = nn.Conv2d(*channels, 3, stride=2, padding=1)
    elif (2 * height, 2 * width) == wanted:
        convolution = nn.ConvTranspose2d(*channels, 4, stride=2, padding=1)
    elif height >= wanted[0] and width >= wanted[1]:
        convolution = nn.Conv2d(*channels, (1 + height - wanted[0], 1 + width - wanted[1]))
    else:
        return None
    return nn.Sequential(convolution, nn.BatchNorm2d(channels[1]), nn.ReLU())


class Hint(FeatureLoss):
    """The hint loss at one layer.

    Args:
        layer: position of the layer in `feature_layers`, from 0.
    """

    regressor: nn.Sequential

    def __init__(self, *, layer: int) -> None:
        super().__init__()
        self.layer = layer

    def taps(self, layers: Sequence[str], network: nn.Module) -> list[str]:
        if not 0 <= self.layer < len(layers):
            raise SqakdError(
                f"layer={self.layer}: the network's feature_layers are {', '.join(layers)};"
                f" expected a position from 0 to {len(layers) - 1}"
            )
        return [layers[self.layer]]

    def setup(self, info: SetupInfo) -> None:
        ((name, student, teacher),) = self.pairs(info)
        made = regressor(student, teacher) if is_map(student) and is_map(teacher) else None
        if made is None:
            expected = "two maps [C, H, W], the teacher's at most twice as large as the student's"
            raise mismatch(self, name, student, teacher, expected)
        self.regressor = made

    def forward(self, batch: FeatureBatch) -> list[Tensor]:
        return [hint_loss(self.regressor(batch.student[0].float()), batch.teacher[0])]

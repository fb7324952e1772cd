r"""FitNets: a layer in the middle of the student is to say what the teacher's says, after a learned translation.

Paper: Romero et al. 2015, "FitNets: Hints for Thin Deep Nets" (https://arxiv.org/abs/1412.6550), equation 3:

    loss = mean (R(student) - teacher)^2,     R = convolution, batch norm, ReLU

Where this differs: the paper trains the student's lower half on this loss first and then forgets it; here, as in
SQAKD's comparison, it stands beside the labels' loss all along. The paper's R has no batch norm.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from sqakd.kd.base import Example, FeatureLoss, Seen, mismatch
from sqakd.kd.shapes import is_map


def hint_loss(translated: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of two maps [N, C, H, W].

    Example:
        >>> import torch
        >>> float(hint_loss(torch.zeros(1, 1, 2, 2), torch.full((1, 1, 2, 2), 3.0)))
        9.0
    """
    return F.mse_loss(translated.float(), teacher.float())


def regressor(student: Tensor, teacher: Tensor) -> nn.Sequential | None:
    """Brings maps [N, C, H, W] to the shape of the teacher's [N, C', H', W'], or None if no rule of it does.

    Half the size by a stride of 2, twice the size by a transposed convolution, else by a kernel as large as the
    difference asks for; equal sizes so get 1x1.
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
    """Of one layer's output.

    Args:
        layer: its place in `feature_layers`, from 0.
    """

    regressor: nn.Sequential

    def __init__(self, *, layer: int) -> None:
        super().__init__()
        self.layer = layer

    def taps(self, layers: Sequence[str], network: nn.Module) -> list[str]:
        if not 0 <= self.layer < len(layers):
            raise ValueError(
                f"kd.feature_loss.layer={self.layer}: the network's feature_layers are {', '.join(layers)};"
                f" expected a place from 0 to {len(layers) - 1}"
            )
        return [layers[self.layer]]

    def build(self, example: Example) -> None:
        (name,), (student,), (teacher,) = self.names, example.student, example.teacher
        made = regressor(student, teacher) if is_map(student) and is_map(teacher) else None
        if made is None:
            raise mismatch(self, name, student, teacher, "two maps [C, H, W], the teacher's not larger than twice")
        self.regressor = made

    def forward(self, seen: Seen) -> list[Tensor]:
        return [hint_loss(self.regressor(seen.student[0].float()), seen.teacher[0])]

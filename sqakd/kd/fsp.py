r"""Flow of the solution procedure (FSP): the correlations between the channels of consecutive maps are distilled.

Paper: Yim, Joo, Bae, Kim 2017, "A Gift from Knowledge Distillation: Fast Optimization, Network Minimization and
Transfer Learning" (https://openaccess.thecvf.com/content_cvpr_2017/html/Yim_A_Gift_From_CVPR_2017_paper.html),
equations 1 and 2. For two consecutive maps a and b, each a vector of channels at every position,

    G = mean over positions of  b a^T,     loss = mean (G(student) - G(teacher))^2

The paper sums the squared differences instead of averaging them.

Training has two stages, as in the paper. The first trains the student's weights on this loss alone, the second trains
the student on the task alone. The loss therefore has weight 0 in the second stage; kd.feature=50 keeps it in.

Where this differs: the paper has no quantizers. Here the ranges of the quantizers stay as calibrated during the first
stage. SQAKD's release trains them as well, which `quantizers` selects.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from sqakd.kd.base import FeatureBatch, FeatureLoss, SetupInfo, mismatch
from sqakd.kd.inputs import check_maps
from sqakd.kd.shapes import to_smaller


def flow(before: Tensor, after: Tensor) -> Tensor:
    """Return the FSP matrix G of two maps: the mean product of each channel of one with each channel of the other.

    The larger map is average-pooled to the smaller.

    Args:
        before: [N, C, H, W].
        after: [N, C', H', W'].

    Returns:
        [N, C', C].

    Example:
        >>> import torch
        >>> flow(torch.full((1, 1, 4, 4), 2.0), torch.full((1, 2, 2, 2), 3.0)).tolist()
        [[[6.0], [6.0]]]
    """
    before, after = (feature.flatten(2) for feature in to_smaller(before.float(), after.float()))
    return after @ before.transpose(1, 2) / before.shape[2]


def flow_losses(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> list[Tensor]:
    """Return, for each two consecutive maps, the mean squared difference of the FSP matrices.

    Args:
        student: maps [N, C, H, W], from the first layer to the last.
        teacher: maps with the same numbers of channels.
    """
    flows = zip(pairwise(student), pairwise(teacher), strict=True)
    return [(flow(*s) - flow(*t)).square().mean() for s, t in flows]


class SolutionFlow(FeatureLoss):
    """FSP between the first map and the maps of all stages.

    Args:
        pretrain_epochs: length of the first stage.
        pretrain_lr: learning rate of the first stage.
        quantizers: train the quantizers' ranges and output scales in the first stage too.

    Raises:
        SqakdError: if the length or the learning rate is negative.
    """

    def __init__(self, *, pretrain_epochs: int, pretrain_lr: float, quantizers: bool) -> None:
        super().__init__()
        self.set_pretraining(epochs=pretrain_epochs, lr=pretrain_lr)
        self.quantizers = quantizers

    def taps(self, layers: Sequence[str], network: nn.Module) -> list[str]:
        return list(layers[:-1])

    def setup(self, info: SetupInfo) -> None:
        pairs = self.pairs(info)
        check_maps(self, pairs)
        for name, student, teacher in pairs:
            if student.shape[1] != teacher.shape[1]:
                raise mismatch(self, name, student, teacher, "two maps [C, H, W] with the same number of channels")
        self.names = [f"{before} to {after}" for before, after in pairwise(self.names)]

    def forward(self, batch: FeatureBatch) -> list[Tensor]:
        return flow_losses(batch.student, batch.teacher)

    def pretrain_parameters(
        self, network: Sequence[nn.Parameter], quantizer: Sequence[nn.Parameter]
    ) -> list[nn.Parameter]:
        return [*network, *(quantizer if self.quantizers else ())]

    def pretrain_loss(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        return torch.stack(flow_losses(student, teacher)).sum()

r"""Flow of the solution procedure (FSP): how one layer's channels go along with the next layer's.

Paper: Yim, Joo, Bae, Kim 2017, "A Gift from Knowledge Distillation: Fast Optimization, Network Minimization and
Transfer Learning" (https://openaccess.thecvf.com/content_cvpr_2017/html/Yim_A_Gift_From_CVPR_2017_paper.html),
equations 1 and 2. For two neighbouring maps a, then b,

    G = mean over places of  b a^T,     loss = mean (G(student) - G(teacher))^2     (the paper's is their sum)

As in the paper there are two stages: the student's weights are first trained on this loss alone, and then on the task
alone. So the loss has weight 0 in the second stage (kd.feature=50 keeps it on). The paper knows no quantizers; here
their ranges stay as calibrated in the first stage. SQAKD's release trains them too (`quantizers`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from sqakd.kd.base import Example, FeatureLoss, Seen, mismatch
from sqakd.kd.shapes import is_map, to_smaller


def flow(before: Tensor, after: Tensor) -> Tensor:
    """Which channels of two maps fire together, the larger map average-pooled to the smaller.

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
    """Mean squared difference of the flows between each two neighbouring maps.

    Args:
        student: maps [N, C, H, W] in the order of running.
        teacher: maps with the same channels.
    """
    flows = zip(pairwise(student), pairwise(teacher), strict=True)
    return [(flow(*s) - flow(*t)).square().mean() for s, t in flows]


class SolutionFlow(FeatureLoss):
    """Of the first map and every stage's output.

    Args:
        pretrain_epochs: length of the first stage.
        pretrain_lr: its learning rate.
        quantizers: whether it trains ranges and output scales too.
    """

    def __init__(self, *, pretrain_epochs: int, pretrain_lr: float, quantizers: bool) -> None:
        super().__init__()
        self.set_pretraining(epochs=pretrain_epochs, lr=pretrain_lr)
        self.quantizers = quantizers

    def taps(self, layers: Sequence[str], network: nn.Module) -> list[str]:
        return list(layers[:-1])

    def build(self, example: Example) -> None:
        for name, student, teacher in zip(self.names, example.student, example.teacher, strict=True):
            if not (is_map(student) and is_map(teacher) and student.shape[1] == teacher.shape[1]):
                raise mismatch(self, name, student, teacher, "two maps [C, H, W] of as many channels")
        self.names = [f"{before} to {after}" for before, after in pairwise(self.names)]

    def forward(self, seen: Seen) -> list[Tensor]:
        return flow_losses(seen.student, seen.teacher)

    def pretrain_parameters(
        self, network: Sequence[nn.Parameter], quantizer: Sequence[nn.Parameter]
    ) -> list[nn.Parameter]:
        return [*network, *(quantizer if self.quantizers else ())]

    def pretrain_loss(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        return torch.stack(flow_losses(student, teacher)).sum()

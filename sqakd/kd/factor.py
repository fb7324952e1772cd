r"""Factor transfer (FT): the student learns a compressed form of the teacher's last map, called a factor.

Paper: Kim, Park, Kwak 2018, "Paraphrasing Complex Network: Network Compression via Factor Transfer"
(https://arxiv.org/abs/1802.04977). Training has two stages.

1. The paraphraser, an autoencoder, learns to compress the teacher's map t [N, C, H, W] into a factor with fewer
   channels and to reconstruct the map from it. Its loss is mean (decode(encode(t)) - t)^2. Then it is frozen.
2. A translator, trained together with the student, turns the student's map s into a factor of the same width:

       loss = mean |A(translate(s)) - A(encode(t))|,     A(f) = normalise(mean_c f_c^2)

Where this differs: the gradient of the paraphraser's loss grows with the square of the teacher's map, so a learning
rate that suits one teacher diverges for another. Where the mean square of the map exceeds 1, the loss is therefore
divided by that mean square; it then is the share of the map that is not reconstructed. Smaller maps have the paper's
loss. Second, the paper compares the normalised factors themselves. SQAKD compares their attention maps A (see
`attention`), and so does this file, because the published weight of this loss belongs to that form.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from sqakd.kd.attention import attention
from sqakd.kd.base import FeatureBatch, FeatureLoss, SetupInfo
from sqakd.kd.inputs import check_maps
from sqakd.kd.shapes import to_smaller
from sqakd.numbers import check_positive

SLOPE = 0.1  # of LeakyReLU for negative inputs


def factor_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean absolute difference of two factors' attention maps; the larger is average-pooled to the smaller.

    Args:
        student: [N, C, H, W], factor of the student.
        teacher: [N, C', H', W'], factor of the teacher.

    Example:
        >>> import torch
        >>> ones = torch.ones(1, 3, 2, 2)
        >>> float(factor_loss(ones, 5 * ones))
        0.0
    """
    student, teacher = to_smaller(student.float(), teacher.float())
    return (attention(student) - attention(teacher)).abs().mean()


def encoder(inputs: int, outputs: int, *, batch_norm: bool) -> nn.Sequential:
    """Return three 3x3 convolutions from maps [N, inputs, H, W] to factors [N, outputs, H, W]."""

    def block(before: int, after: int) -> list[nn.Module]:
        norm = [nn.BatchNorm2d(after)] if batch_norm else []
        return [nn.Conv2d(before, after, 3, padding=1), *norm, nn.LeakyReLU(SLOPE)]

    return nn.Sequential(*block(inputs, inputs), *block(inputs, outputs), *block(outputs, outputs))


def decoder(inputs: int, outputs: int) -> nn.Sequential:
    """Return three 3x3 transposed convolutions from factors [N, inputs, H, W] to maps [N, outputs, H, W]."""

    def block(before: int, after: int) -> list[nn.Module]:
        return [nn.ConvTranspose2d(before, after, 3, padding=1), nn.LeakyReLU(SLOPE)]

    return nn.Sequential(*block(inputs, inputs), *block(inputs, outputs), *block(outputs, outputs))


class FactorTransfer(FeatureLoss):
    """Factor transfer at the map of the last stage.

    Args:
        share: channels of the factor, as a share of the teacher's channels; 0.5 in the paper.
        pretrain_epochs: length of the paraphraser's training.
        pretrain_lr: learning rate of the paraphraser's training.

    Raises:
        SqakdError: if `share` is not positive, or if the length or the learning rate is negative.
    """

    paraphrase: nn.Sequential  # the paraphraser's encoder
    restore: nn.Sequential  # the paraphraser's decoder
    translate: nn.Sequential  # the translator

    def __init__(self, *, share: float, pretrain_epochs: int, pretrain_lr: float) -> None:
        super().__init__()
        self.set_pretraining(epochs=pretrain_epochs, lr=pretrain_lr)
        check_positive("share", share)
        self.share = share

    def taps(self, layers: Sequence[str], network: nn.Module) -> list[str]:
        return [layers[-2]]

    def setup(self, info: SetupInfo) -> None:
        check_maps(self, self.pairs(info))
        (student,), (teacher,) = info.student, info.teacher
        channels = teacher.shape[1]
        factor = max(1, int(self.share * channels))
        # The paraphraser is frozen here, for the student's training. The stage before it unfreezes it while it lasts.
        self.paraphrase = encoder(channels, factor, batch_norm=False).requires_grad_(False)
        self.restore = decoder(factor, channels).requires_grad_(False)
        self.translate = encoder(student.shape[1], factor, batch_norm=True)

    def forward(self, batch: FeatureBatch) -> list[Tensor]:
        student, teacher = batch.student[0].float(), batch.teacher[0].float()
        return [factor_loss(self.translate(student), self.paraphrase(teacher))]

    def pretrain_parameters(
        self, network: Sequence[nn.Parameter], quantizer: Sequence[nn.Parameter]
    ) -> list[nn.Parameter]:
        return [*self.paraphrase.parameters(), *self.restore.parameters()]

    def pretrain_loss(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """Return the mean squared error of the reconstruction, relative to the map's mean square if that is above 1."""
        feature = teacher[0].float()
        return F.mse_loss(self.restore(self.paraphrase(feature)), feature) / feature.square().mean().clamp(min=1)

r"""Factor transfer (FT): the student's last map, translated, is to look like a paraphrase of the teacher's.

Paper: Kim, Park, Kwak 2018, "Paraphrasing Complex Network: Network Compression via Factor Transfer"
(https://arxiv.org/abs/1802.04977). In a first stage a paraphraser learns to compress the teacher's map into a factor
and to restore it: mean (decode(encode(t)) - t)^2. Then it is frozen, and with a translator beside the student,

    loss = mean |A(translate(s)) - A(encode(t))|,     A(f) = normalise(mean_c f_c^2)

Where this differs: the paper compares the whole normalised factors, SQAKD's comparison their maps of
energy, as attention transfer does; the weight that goes with this loss is for the latter, and so is this.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from sqakd.kd.attention import attention
from sqakd.kd.base import Example, FeatureLoss, Seen, mismatch
from sqakd.kd.shapes import is_map, to_smaller

SLOPE = 0.1


def factor_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean absolute difference of the factors' maps of energy; the larger is average-pooled to the smaller.

    Args:
        student: [N, C, H, W].
        teacher: [N, C', H', W'].

    Example:
        >>> import torch
        >>> ones = torch.ones(1, 3, 2, 2)
        >>> float(factor_loss(ones, 5 * ones))
        0.0
    """
    student, teacher = to_smaller(student.float(), teacher.float())
    return (attention(student) - attention(teacher)).abs().mean()


def encoder(inputs: int, outputs: int, *, batch_norm: bool) -> nn.Sequential:
    """Maps [N, inputs, H, W] -> [N, outputs, H, W] by three 3x3 convolutions."""

    def block(before: int, after: int) -> list[nn.Module]:
        norm = [nn.BatchNorm2d(after)] if batch_norm else []
        return [nn.Conv2d(before, after, 3, padding=1), *norm, nn.LeakyReLU(SLOPE)]

    return nn.Sequential(*block(inputs, inputs), *block(inputs, outputs), *block(outputs, outputs))


def decoder(inputs: int, outputs: int) -> nn.Sequential:
    """Maps [N, inputs, H, W] -> [N, outputs, H, W] by three 3x3 transposed convolutions."""

    def block(before: int, after: int) -> list[nn.Module]:
        return [nn.ConvTranspose2d(before, after, 3, padding=1), nn.LeakyReLU(SLOPE)]

    return nn.Sequential(*block(inputs, inputs), *block(inputs, outputs), *block(outputs, outputs))


class FactorTransfer(FeatureLoss):
    """Of the last stage's output.

    Args:
        share: channels of the factor, as a share of the teacher's.
        pretrain_epochs: length of the paraphraser's training.
        pretrain_lr: its learning rate.
    """

    paraphrase: nn.Sequential
    restore: nn.Sequential
    translate: nn.Sequential

    def __init__(self, *, share: float, pretrain_epochs: int, pretrain_lr: float) -> None:
        super().__init__()
        self.set_pretraining(epochs=pretrain_epochs, lr=pretrain_lr)
        if not share > 0:
            raise ValueError(f"kd.feature_loss.share={share}: expected a positive number; the paper uses 0.5")
        self.share = share

    def taps(self, layers: Sequence[str], network: nn.Module) -> list[str]:
        return [layers[-2]]

    def build(self, example: Example) -> None:
        (name,), (student,), (teacher,) = self.names, example.student, example.teacher
        if not (is_map(student) and is_map(teacher)):
            raise mismatch(self, name, student, teacher, "two maps [C, H, W]")
        channels = teacher.shape[1]
        factor = max(1, int(self.share * channels))
        self.paraphrase = encoder(channels, factor, batch_norm=False).requires_grad_(False)
        self.restore = decoder(factor, channels).requires_grad_(False)
        self.translate = encoder(student.shape[1], factor, batch_norm=True)

    def forward(self, seen: Seen) -> list[Tensor]:
        student, teacher = seen.student[0].float(), seen.teacher[0].float()
        return [factor_loss(self.translate(student), self.paraphrase(teacher))]

    def pretrain_parameters(
        self, network: Sequence[nn.Parameter], quantizer: Sequence[nn.Parameter]
    ) -> list[nn.Parameter]:
        return [*self.paraphrase.parameters(), *self.restore.parameters()]

    def pretrain_loss(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """Of the paraphraser, mean squared error of what it restores."""
        feature = teacher[0].float()
        return F.mse_loss(self.restore(self.paraphrase(feature)), feature)

r"""Noise-contrastive estimation (NCE): the loss of CRD and its partition function, as pure functions.

Paper: Tian, Krishnan, Isola 2020, "Contrastive Representation Distillation" (https://arxiv.org/abs/1910.10699). An
anchor a is compared with the memory m+ of its own image (the positive) and with the memories m_1 .. m_K of images of
other classes (the negatives), drawn from n training images. With temperature tau and partition function Z,

    P(m) = exp(a . m / tau) / Z
    loss = - log P(m+) / (P(m+) + K/n) - sum over k of  log (K/n) / (P(m_k) + K/n)

P(m) / (P(m) + K/n) is the probability that m is the positive and not one of K memories drawn uniformly from n. With the
logit u(m) = a . m / tau - log(Z K/n), this probability is sigmoid(u), so the loss is a logistic loss,

    loss = softplus(-u(m+)) + sum over k of softplus(u(m_k))

The second form is computed here, because it neither overflows nor takes the logarithm of a rounded-off probability.

All functions share these arguments:

- `own` [N]: a . m+ / tau of each anchor.
- `others` [N, M]: a . m / tau of each anchor with the memories of M candidates.
- `chosen` [N, M]: True where a candidate is a negative of the anchor; see `negatives`.
- `repeats` [N]: how many times each negative of the anchor counts.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def contrastive_loss(own: Tensor, others: Tensor, chosen: Tensor, repeats: Tensor, log_noise: Tensor) -> Tensor:
    """Return the NCE loss, as a mean over the batch.

    Args:
        own: [N], see above.
        others: [N, M].
        chosen: [N, M].
        repeats: [N].
        log_noise: scalar, log(Z K/n).

    Example:
        >>> zero, yes, once = torch.zeros(1, 3), torch.ones(1, 3, dtype=torch.bool), torch.ones(1)
        >>> round(float(contrastive_loss(zero[:, 0], zero, yes, once, torch.zeros(()))) / math.log(2), 5)
        4.0
    """
    # The mask avoids a copy of the chosen negatives for each image; most candidates are chosen anyway.
    negatives = (F.softplus(others - log_noise) * chosen).sum(dim=1)
    return (F.softplus(log_noise - own) + repeats * negatives).mean()


def log_partition(own: Tensor, others: Tensor, chosen: Tensor, repeats: Tensor, *, images: int) -> Tensor:
    """Return log Z, where Z is n times the mean of exp(a . m / tau) over all positives and negatives of a batch.

    Args:
        own: [N], see above.
        others: [N, M].
        chosen: [N, M].
        repeats: [N].
        images: size of the training set (n).
    """
    # A negative that counts r times adds r exp(u) = exp(u + log r); a candidate that is no negative adds exp(-inf) = 0.
    counted = torch.where(chosen, others + repeats.log()[:, None], -math.inf)
    total = torch.cat([own, counted.flatten()]).logsumexp(dim=0)
    return total - (1 + repeats * chosen.sum(dim=1)).sum().log() + math.log(images)

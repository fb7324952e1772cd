r"""Knowledge distillation by logits, the whole of SQAKD's training signal.

Papers: Hinton, Vinyals, Dean 2015, "Distilling the Knowledge in a Neural Network"
(https://arxiv.org/abs/1503.02531); Zhao & Zhao 2024, "Self-Supervised Quantization-Aware Knowledge Distillation"
(https://arxiv.org/abs/2403.11106), equation 5.

    KL_T = T^2 / N  sum_n sum_c  p_t (log p_t - log p_s),    p = softmax(logits / T)

With standardised logits, (z - mean) / std for each image, only the teacher's order and relative distances count, not
its logits' size, which a low-bit student may be unable to reach: Sun, Ren, Li, Wang, Cao 2024, "Logit Standardization
in Knowledge Distillation" (https://arxiv.org/abs/2403.01427), equation 11.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

SMALLEST_VARIANCE = 1e-6  # of logits; bounds the gradient of a network that tells nothing apart


def distillation_kl(
    student_logits: Tensor, teacher_logits: Tensor, *, temperature: float, standardize: bool = False
) -> Tensor:
    """KL divergence of the softened class distributions, times T^2, mean over the batch.

    The T^2 keeps the gradient's size independent of the temperature.

    Args:
        student_logits: [N, classes].
        teacher_logits: [N, classes]; counts as a constant.
        temperature: softens both distributions; 4 in SQAKD.
        standardize: whether both are first brought to mean 0 and standard deviation 1.

    Returns:
        One number >= 0, in nats.

    Example:
        >>> import torch
        >>> float(distillation_kl(torch.zeros(1, 2), torch.zeros(1, 2), temperature=4.0))
        0.0
    """
    student_logits, teacher_logits = student_logits.float(), teacher_logits.detach().float()
    if standardize:
        student_logits, teacher_logits = standardized(student_logits), standardized(teacher_logits)
    student = F.log_softmax(student_logits / temperature, dim=1)
    teacher = F.log_softmax(teacher_logits / temperature, dim=1)
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2


def standardized(logits: Tensor) -> Tensor:
    """Each row with mean 0 and standard deviation 1, [N, classes]; a constant row becomes 0, with a finite gradient."""
    centred = logits - logits.mean(dim=1, keepdim=True)
    return centred / (centred.square().mean(dim=1, keepdim=True) + SMALLEST_VARIANCE).sqrt()

r"""Knowledge distillation by logits, the whole of SQAKD's training signal.

Papers: Hinton, Vinyals, Dean 2015, "Distilling the Knowledge in a Neural Network"
(https://arxiv.org/abs/1503.02531); Zhao & Zhao 2024, "Self-Supervised Quantization-Aware Knowledge Distillation"
(https://arxiv.org/abs/2403.11106), equation 5.

    KL_T = T^2 / N  sum_n sum_c  p_t (log p_t - log p_s),    p = softmax(logits / T)
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def distillation_kl(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """KL divergence of the softened class distributions, times T^2, mean over the batch.

    The T^2 keeps the gradient's size independent of the temperature.

    Args:
        student_logits: [N, classes].
        teacher_logits: [N, classes]; counts as a constant.
        temperature: softens both distributions; 4 in SQAKD.

    Returns:
        One number >= 0, in nats.

    Example:
        >>> import torch
        >>> float(distillation_kl(torch.zeros(1, 2), torch.zeros(1, 2), temperature=4.0))
        0.0
    """
    student = F.log_softmax(student_logits.float() / temperature, dim=1)
    teacher = F.log_softmax(teacher_logits.detach().float() / temperature, dim=1)
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2

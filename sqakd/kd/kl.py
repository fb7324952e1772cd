r"""Knowledge distillation by logits, which is the whole training signal of SQAKD.

Papers: Hinton, Vinyals, Dean 2015, "Distilling the Knowledge in a Neural Network"
(https://arxiv.org/abs/1503.02531); Zhao & Zhao 2024, "Self-Supervised Quantization-Aware Knowledge Distillation"
(https://arxiv.org/abs/2403.11106), equation 5.

    KL_T = T^2 / N  sum_n sum_c  p_t (log p_t - log p_s),    p = softmax(logits / T)

Logit standardization replaces the logits of each image by (z - mean) / std. The student then has to match the order of
the teacher's logits and their relative distances, but not their magnitude, which a low-bit student may be unable to
reach. Paper: Sun, Ren, Li, Wang, Cao 2024, "Logit Standardization in Knowledge Distillation"
(https://arxiv.org/abs/2403.01427), equation 11.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional as F

from sqakd.errors import SqakdError
from sqakd.numbers import is_number

# Below it, T^2 and softmax(z / T) leave the range of single precision; above it, so do differences of softmax(z / T).
LEAST_TEMPERATURE, MOST_TEMPERATURE = 0.01, 1000.0
# Added to the variance of an image's logits. It bounds the gradient of a network whose logits are (almost) constant.
SMALLEST_VARIANCE = 1e-6


def distillation_kl(
    student_logits: Tensor, teacher_logits: Tensor, *, temperature: float, standardize: bool = False
) -> Tensor:
    """Return the KL divergence of the softened class distributions, times T^2, as a mean over the batch.

    The gradient of a softened distribution shrinks as 1 / T^2, so the factor T^2 keeps its size independent of T.

    Args:
        student_logits: [N, classes].
        teacher_logits: [N, classes]; no gradient flows to them.
        temperature: T, which softens both distributions; 4 in SQAKD.
        standardize: standardize the logits of each image to mean 0 and standard deviation 1 first.

    Returns:
        A scalar >= 0, in nats.

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


def check_temperature(value: Any) -> None:
    """Refuse a temperature with which the loss cannot be computed in single precision.

    Raises:
        SqakdError: if it is no number in the range.

    Example:
        >>> check_temperature(4)
        >>> check_temperature(0)
        Traceback (most recent call last):
            ...
        sqakd.errors.SqakdError: temperature=0: expected a number from 0.01 to 1000
    """
    if not is_number(value) or not LEAST_TEMPERATURE <= value <= MOST_TEMPERATURE:
        raise SqakdError(f"temperature={value!r}: expected a number from {LEAST_TEMPERATURE:g} to {MOST_TEMPERATURE:g}")


def standardized(logits: Tensor) -> Tensor:
    """Return logits [N, classes] with mean 0 and standard deviation 1 in each row.

    A constant row becomes 0 and has a finite gradient.
    """
    centred = logits - logits.mean(dim=1, keepdim=True)
    return centred / (centred.square().mean(dim=1, keepdim=True) + SMALLEST_VARIANCE).sqrt()

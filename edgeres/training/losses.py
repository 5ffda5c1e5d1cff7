"""Losses as pure functions of logits: tensors in, a scalar out."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean cross entropy of logits (N, C) and labels (N,), with optional label smoothing.

    Source: Szegedy et al. 2016, "Rethinking the Inception Architecture", section 7.
    """
    return F.cross_entropy(logits, labels, label_smoothing=smoothing)


def kd(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Knowledge distillation: `T^2 KL(softmax(teacher / T) || softmax(student / T))`.

    Args:
        student, teacher: logits (N, C); the teacher's carry no gradient.
        temperature: T; the factor T^2 keeps gradients comparable across temperatures.

    Source: Hinton, Vinyals, Dean 2015, "Distilling the Knowledge in a Neural Network", section 2.
    """
    divergence = F.kl_div(
        F.log_softmax(student / temperature, dim=1),
        F.log_softmax(teacher.detach() / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )
    return divergence * temperature**2

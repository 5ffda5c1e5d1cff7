"""One minus the cosine between the two vectors of logits, over the batch's mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

SUMMARY = "angle between the logits"
ONE_LABEL = False


def measure(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Whatever the temperature."""
    import torch.nn.functional as F

    return (1 - F.cosine_similarity(student, teacher.detach(), dim=1)).mean()

"""Knowledge distillation: `T^2 KL(softmax(teacher / T) || softmax(student / T))`.

Source: Hinton, Vinyals, Dean 2015, "Distilling the Knowledge in a Neural Network", section 2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

SUMMARY = "knowledge distillation: divergence of softened answers"
ONE_LABEL = False


def measure(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """The factor T^2 keeps gradients comparable across temperatures."""
    import torch.nn.functional as F

    divergence = F.kl_div(
        F.log_softmax(student / temperature, dim=1),
        F.log_softmax(teacher.detach() / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )
    return divergence * temperature**2

"""Decoupled KD: the label's share and the other classes' proportions, weighted apart.

`T^2 (target KL(b_t || b_s) + others KL(q_t || q_s))`, where b is (label's probability, rest) and q
the softmax over the other classes only.

Source: Zhao et al. 2022, "Decoupled Knowledge Distillation", equations 6 and 7.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

SUMMARY = "decoupled KD: the label's class and the others apart"
ONE_LABEL = True


def measure(
    student: Tensor, teacher: Tensor, labels: Tensor, temperature: float,
    target: float = 1.0, others: float = 8.0,
) -> Tensor:  # fmt: skip
    """The two divergences, weighted: the paper's alpha and beta; 8 is its choice for CIFAR."""
    import torch
    import torch.nn.functional as F

    classes = torch.arange(student.shape[1] - 1, device=labels.device)
    others_at = classes + (classes >= labels[:, None])  # all but the label's: (N, C - 1)

    def parts(logits: Tensor) -> tuple[Tensor, Tensor]:
        log_p = F.log_softmax(logits, dim=1)
        of_label = log_p.gather(1, labels[:, None])[:, 0]
        rest = log_p.gather(1, others_at).logsumexp(1)
        return torch.stack([of_label, rest], 1), F.log_softmax(logits.gather(1, others_at), dim=1)

    (own_s, rest_s), (own_t, rest_t) = (
        parts(logits / temperature) for logits in (student, teacher.detach())
    )
    of_label = F.kl_div(own_s, own_t, reduction="batchmean", log_target=True)
    of_others = F.kl_div(rest_s, rest_t, reduction="batchmean", log_target=True)
    return (target * of_label + others * of_others) * temperature**2

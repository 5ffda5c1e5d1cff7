"""Losses as pure functions of logits: tensors in, a scalar out."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor


def cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean cross entropy of logits (N, C) and labels, with optional label smoothing.

    Args:
        labels: int64 (N,), or shares of the classes, float32 (N, up to C), of mixed images.

    Source: Szegedy et al. 2016, "Rethinking the Inception Architecture", section 7.
    """
    if labels.ndim == 2:  # the last classes may have no image
        labels = F.pad(labels, (0, logits.shape[1] - labels.shape[1]))
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


def dkd(
    student: Tensor, teacher: Tensor, labels: Tensor, temperature: float,
    target: float = 1.0, others: float = 8.0,
) -> Tensor:  # fmt: skip
    """Decoupled KD: the label's share and the other classes' proportions, weighted apart.

    `T^2 (target KL(b_t || b_s) + others KL(q_t || q_s))`, where b is (label's probability, rest)
    and q the softmax over the other classes only.

    Args:
        labels: (N,) class indices.
        target, others: the paper's alpha and beta; 8 is its choice for CIFAR.

    Source: Zhao et al. 2022, "Decoupled Knowledge Distillation", equations 6 and 7.
    """
    mine, theirs = student / temperature, teacher.detach() / temperature
    classes = torch.arange(student.shape[1] - 1, device=labels.device)
    others_at = classes + (classes >= labels[:, None])  # all but the label's: (N, C - 1)

    def parts(logits: Tensor) -> tuple[Tensor, Tensor]:
        log_p = F.log_softmax(logits, dim=1)
        of_label = log_p.gather(1, labels[:, None])[:, 0]
        rest = log_p.gather(1, others_at).logsumexp(1)
        return torch.stack([of_label, rest], 1), F.log_softmax(logits.gather(1, others_at), dim=1)

    (own_s, rest_s), (own_t, rest_t) = parts(mine), parts(theirs)
    of_label = F.kl_div(own_s, own_t, reduction="batchmean", log_target=True)
    of_others = F.kl_div(rest_s, rest_t, reduction="batchmean", log_target=True)
    return (target * of_label + others * of_others) * temperature**2


def dist(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Relations instead of values: `T^2 (1 - corr of rows + 1 - corr of columns)` of softmax(x/T).

    Pearson's correlation, over the classes of each sample and over the batch for each class.

    Source: Huang et al. 2022, "Knowledge Distillation from A Stronger Teacher", equations 6 to 9,
    with both weights 1.
    """
    mine = F.softmax(student / temperature, dim=1)
    theirs = F.softmax(teacher.detach() / temperature, dim=1)
    rows, columns = _correlation(mine, theirs), _correlation(mine.t(), theirs.t())
    return (2 - rows.mean() - columns.mean()) * temperature**2


def mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of the logits.

    Source: Kim et al. 2021, "Comparing Kullback-Leibler Divergence and Mean Squared Error Loss in
    Knowledge Distillation", equation 3.
    """
    return F.mse_loss(student, teacher.detach())


def cosine(student: Tensor, teacher: Tensor) -> Tensor:
    """One minus the cosine between the two vectors of logits, over the batch's mean."""
    return (1 - F.cosine_similarity(student, teacher.detach(), dim=1)).mean()


def hint(student: Tensor, teacher: Tensor) -> Tensor:
    """Half the squared difference of two feature maps (N, C, H, W), as a mean over all numbers.

    Source: Romero et al. 2015, "FitNets: Hints for Thin Deep Nets", equation 3; the paper's sum is
    a mean here, so that a weight means the same for every layer and batch size.
    """
    return 0.5 * F.mse_loss(student, teacher.detach())


def attention_map(features: Tensor) -> Tensor:
    """Where a layer looks: the sum over channels of squares, (N, C, H, W) -> (N, H, W).

    Source: Zagoruyko & Komodakis 2017, "Paying More Attention to Attention", section 3.1, p = 2.
    """
    return features.square().sum(1)


def attention(student: Tensor, teacher: Tensor) -> Tensor:
    """Half the distance of two vectorized attention maps (N, H W), each of length 1; batch mean.

    Source: Zagoruyko & Komodakis 2017, equation 2 for one pair of layers; its beta is the hint's
    weight.
    """
    mine, theirs = F.normalize(student, dim=1), F.normalize(teacher.detach(), dim=1)
    # The norm's gradient at a distance of exactly 0 is not a number; a tiny constant is.
    return 0.5 * ((mine - theirs).square().sum(1) + 1e-12).sqrt().mean()


IMITATIONS: Mapping[str, Callable[[Tensor, Tensor, Tensor, float], Tensor]] = {
    "kd": lambda student, teacher, labels, temperature: kd(student, teacher, temperature),
    "dkd": dkd,
    "dist": lambda student, teacher, labels, temperature: dist(student, teacher, temperature),
    "mse": lambda student, teacher, labels, temperature: mse(student, teacher),
    "cosine": lambda student, teacher, labels, temperature: cosine(student, teacher),
}
"""Name -> how far a student's logits are from the teacher's: (student, teacher, labels, T)."""


def _correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's correlation of each row."""
    a, b = (x - x.mean(1, keepdim=True) for x in (a, b))
    return F.cosine_similarity(a, b, dim=1, eps=1e-8)

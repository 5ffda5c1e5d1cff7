"""Losses of labels and of layers: tensors in, a scalar out. Those of answers: `edgeres.losses`."""

from __future__ import annotations

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

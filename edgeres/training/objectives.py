"""What a training step minimizes: (network, uint8 images, labels) in, a scalar loss out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeres.models.resnet import ResNet, fold_batchnorm
from edgeres.training import losses
from edgeres.training.loop import Objective, in_layout, prepared
from edgeres.types import Preprocess


def supervised(preprocess: Preprocess, smoothing: float) -> Objective:
    """Cross entropy against the labels."""

    def objective(module: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        return losses.cross_entropy(module(prepared(images, preprocess)), labels, smoothing)

    return objective


def distilled(
    teacher: ResNet, preprocess: Preprocess, *, temperature: float, alpha: float, smoothing: float,
    loss: str = "kd",
) -> Objective:  # fmt: skip
    """`alpha` imitation + `(1 - alpha)` cross entropy; both networks see the same augmented view.

    Args:
        teacher: answers in evaluation mode, from images in its own preprocessing; batch norm is
            folded first, the same function in less time.
        preprocess: the student's.
        loss: how the imitation is measured, a name of `losses.IMITATIONS`.
    """
    measure = losses.IMITATIONS[loss]
    teachers = teacher.spec.preprocess
    folded = fold_batchnorm(teacher.eval()).requires_grad_(False)
    frozen = in_layout(folded, teachers)

    def objective(module: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        with torch.no_grad():
            answer = frozen(prepared(images, teachers))
        logits = module(prepared(images, preprocess))
        imitation = measure(logits, answer, labels, temperature)
        if alpha == 1:
            return imitation
        return alpha * imitation + (1 - alpha) * losses.cross_entropy(logits, labels, smoothing)

    return objective

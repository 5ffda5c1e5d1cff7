"""What a training step minimizes: (network, uint8 images, labels) in, a scalar loss out."""

from __future__ import annotations

from torch import Tensor, nn

from edgeres.models.resnet import ResNet
from edgeres.training import losses
from edgeres.training.answers import Teacher, as_teacher
from edgeres.training.hints import Hints
from edgeres.training.inference import prepared
from edgeres.training.loop import Objective
from edgeres.types import Preprocess


def supervised(preprocess: Preprocess, smoothing: float) -> Objective:
    """Cross entropy against the labels."""

    def objective(module: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        return losses.cross_entropy(module(prepared(images, preprocess)).float(), labels, smoothing)

    return objective


def distilled(
    teacher: ResNet | Teacher, preprocess: Preprocess, *,
    temperature: float, alpha: float, smoothing: float, loss: str = "kd",
    hints: Hints | None = None,
) -> Objective:  # fmt: skip
    """`alpha` imitation + `(1 - alpha)` cross entropy; both networks see the same augmented view.

    Args:
        teacher: a network, or anything that answers uint8 images with logits; it isn't asked
            where its answers are stored.
        preprocess: the student's.
        loss: how the imitation is measured, a name of `losses.IMITATIONS`.
        hints: of the same teacher; what they find is added.
    """
    measure = losses.IMITATIONS[loss]
    frozen = hints or as_teacher(teacher)

    def objective(
        module: nn.Module, images: Tensor, labels: Tensor, answer: Tensor | None = None
    ) -> Tensor:
        if answer is None:
            answer = frozen.answer(images).float()
        logits = module(prepared(images, preprocess)).float()
        total = alpha * measure(logits, answer, labels, temperature)
        if alpha < 1:
            total = total + (1 - alpha) * losses.cross_entropy(logits, labels, smoothing)
        return total + hints.distance() if hints else total

    return objective

"""What a training step minimizes: (network, uint8 images, labels) in, a scalar loss out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from edgeres.losses import measure
from edgeres.models.modules import Classifier
from edgeres.training import losses
from edgeres.training.answers import Teacher, as_teacher
from edgeres.training.hints import Hints
from edgeres.training.inference import prepared
from edgeres.training.loop import Objective
from edgeres.types import Preprocess


def supervised(preprocess: Preprocess, smoothing: float) -> Objective:
    """Cross entropy against the labels."""
    return _Supervised(preprocess, smoothing)


def distilled(
    teacher: Classifier | Teacher, preprocess: Preprocess, *,
    temperature: float, alpha: float, smoothing: float, loss: str = "kd",
    hints: Hints | None = None,
) -> Objective:  # fmt: skip
    """`alpha` imitation + `(1 - alpha)` cross entropy; both networks see the same augmented view.

    Args:
        teacher: a network, or anything that answers uint8 images with logits; it isn't asked
            where its answers are stored.
        preprocess: the student's.
        loss: how the imitation is measured, a name of `edgeres.losses`.
        hints: of the same teacher; what they find is added.
    """
    return _Distilled(hints or as_teacher(teacher), preprocess, temperature, alpha, smoothing,
                      measure(loss), hints)  # fmt: skip


@dataclass(frozen=True)
class _Supervised:
    """See `supervised`."""

    preprocess: Preprocess
    smoothing: float

    def replayable(self, stored: bool) -> bool:
        """See `loop.Objective`."""
        return True

    def __call__(self, module: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        logits = module(prepared(images, self.preprocess)).float()
        return losses.cross_entropy(logits, labels, self.smoothing)


@dataclass(frozen=True)
class _Distilled:
    """See `distilled`."""

    teacher: Teacher
    preprocess: Preprocess
    temperature: float
    alpha: float
    smoothing: float
    measure: Callable[[Tensor, Tensor, Tensor, float], Tensor]
    hints: Hints | None

    def __call__(
        self, module: nn.Module, images: Tensor, labels: Tensor, answer: Tensor | None = None
    ) -> Tensor:
        if answer is None:
            answer = self.teacher.answer(images).float()
        logits = module(prepared(images, self.preprocess)).float()
        total = self.alpha * self.measure(logits, answer, labels, self.temperature)
        if self.alpha < 1:
            of_labels = losses.cross_entropy(logits, labels, self.smoothing)
            total = total + (1 - self.alpha) * of_labels
        return total + self.hints.distance() if self.hints else total

    def replayable(self, stored: bool) -> bool:
        """Whether the teacher answers where the images are, if it is asked."""
        return stored or getattr(self.teacher, "in_torch", False)

    def compile(self, batch: int) -> None:
        """Have the teacher answer batches of this size faster, where it can."""
        if self.replayable(stored=False) and not self.hints:  # hints look into it
            self.teacher.compile(batch)  # type: ignore[attr-defined]

"""What a training looks at: a split in memory, and the augmented views of its images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from edgeres.datasets._augment import Draws, augment


class Answers(Protocol):
    """A teacher's answers to the views of a split, stored before the training."""

    count: int
    """How many views of each image there are; they take turns, one each epoch."""

    def of(self, chosen: Tensor, view: int) -> Tensor:
        """Logits float32 (N, C) of these samples' view, of `chosen` int64 (N,)."""
        ...

    def check(self, seed: int, augmentations: tuple[str, ...]) -> None:
        """Raise BadInput unless the answers are to the views of these settings."""
        ...


@dataclass(frozen=True)
class Labelled:
    """A split in memory: images uint8 (N, 3, H, W), labels int64 (N,).

    Attributes:
        answers: a teacher's, if they are known beforehand.
    """

    images: Tensor
    labels: Tensor
    answers: Answers | None = None


@dataclass(frozen=True)
class Views:
    """The augmented views of a split: the same numbers give the same view, wherever it is made."""

    split: Labelled
    augmentations: tuple[str, ...]
    seed: int

    def batch(self, chosen: Tensor, view: int) -> tuple[Tensor, Tensor]:
        """A view of each chosen sample.

        Args:
            chosen: int64 (N,).

        Returns:
            images uint8 (N, 3, H, W), labels int64 (N,).
        """
        draws = Draws(self.seed, view, chosen)
        images = augment(self.split.images[chosen], self.augmentations, draws)
        return images, self.split.labels[chosen]

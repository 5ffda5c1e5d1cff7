"""What a training looks at: a split, and the augmented views of its images."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from edgeres.datasets._augment import augment
from edgeres.datasets._draws import Draws, derived
from edgeres.datasets._mix import mixed
from edgeres.recipe import MixSection, TrainSection


@dataclass(frozen=True)
class ViewSettings:
    """All that decides what the views of an image look like."""

    seed: int
    augmentations: tuple[str, ...] = ()
    mix: MixSection | None = None

    @classmethod
    def of(cls, settings: TrainSection, seed: int) -> ViewSettings:
        """Those of a training."""
        return cls(seed, settings.augment, settings.mix)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ViewSettings:
        """Read what `to_json` gave."""
        mix = MixSection(**data["mix"]) if data["mix"] else None
        return cls(data["seed"], tuple(data["augmentations"]), mix)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        mix = self.mix.model_dump() if self.mix else None
        return {"seed": self.seed, "augmentations": list(self.augmentations), "mix": mix}

    def sentence(self) -> str:
        """`seed 0, augmentation crop, flip, no mixing`."""
        mix = f"{self.mix.kind} {self.mix.alpha:g}" if self.mix else "no mixing"
        return f"seed {self.seed}, augmentation {', '.join(self.augmentations) or 'none'}, {mix}"


class Answers(Protocol):
    """A teacher's answers to the views of a split, stored before the training."""

    count: int
    """How many views of each image there are; they take turns, one each epoch."""

    def of(self, chosen: Tensor, view: int) -> Tensor:
        """Logits float32 (N, C) of these samples' view, of `chosen` int64 (N,)."""
        ...

    def check(self, settings: ViewSettings) -> None:
        """Raise BadInput unless the answers are to these views."""
        ...


@dataclass(frozen=True)
class Labelled:
    """A split, in memory or mapped into it: images uint8 (N, 3, H, W), labels int64 (N,).

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
    settings: ViewSettings

    def batch(
        self, chosen: Tensor, view: int, device: torch.device | str = "cpu"
    ) -> tuple[Tensor, Tensor]:
        """A view of each chosen sample.

        Args:
            chosen: int64 (N,).

        Returns:
            images uint8 (N, 3, H, W); labels int64 (N,), or each class's share, float32 (N, C),
            where images are mixed.
        """
        images, labels = self._changed(chosen, view, device), self.split.labels[chosen].to(device)
        mix = self.settings.mix
        if mix is None:
            return images, labels
        partners = _partners(len(self.split.labels), self.settings.seed, view)[chosen]
        others = self._changed(partners, view, device)
        draws = Draws(self.settings.seed + 1, view, chosen.to(device))
        images, own = mixed(images, others, draws, mix.kind, mix.alpha, mix.share)
        classes = int(self.split.labels.max()) + 1
        shares = F.one_hot(labels, classes) * own[:, None]
        theirs = F.one_hot(self.split.labels[partners].to(device), classes)
        return images, shares + theirs * (1 - own)[:, None]

    def _changed(self, chosen: Tensor, view: int, device: torch.device | str) -> Tensor:
        draws = Draws(self.settings.seed, view, chosen.to(device))
        return augment(self.split.images[chosen].to(device), self.settings.augmentations, draws)


@functools.lru_cache(maxsize=2)
def _partners(n: int, seed: int, view: int) -> Tensor:
    """With which sample each one is mixed in a view: int64 (n,), the same in every batch."""
    generator = torch.Generator().manual_seed(derived(seed, view))
    return torch.randperm(n, generator=generator)

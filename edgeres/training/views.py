"""What a training looks at: a split, and the augmented views of its images."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from edgeres.datasets import _mix
from edgeres.datasets._augment import RESIZED_CROP, augment, drawn_piece
from edgeres.datasets._decoding import Wanted
from edgeres.datasets._draws import Draws, derived, key
from edgeres.datasets._photographs import Photographs
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

    def to_json(self) -> dict[str, object]:
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
    """A split: images uint8 (N, 3, H, W), labels int64 (N,).

    Attributes:
        images: a tensor, in memory or mapped into it, or `Photographs`.
        answers: a teacher's, if they are known beforehand.
    """

    images: Any
    labels: Tensor
    answers: Answers | None = None


@dataclass(frozen=True)
class Raw:
    """Some samples of a view before they are changed, on one device; fields have a row for each.

    Attributes:
        samples, labels: their numbers and classes, int64 (N,).
        keys: of the random changes and of the mixing, int64 (2,) (`_draws.key`).
        partners, other_labels, own: of the images that they are mixed with, and their own shares,
            float32 (N,).
        answer: the teacher's stored logits, float32 (N, C).
        images, others: uint8 (N, 3, H, W), the samples' and their partners', once they are there.
    """

    samples: Tensor
    labels: Tensor
    keys: Tensor
    partners: Tensor | None = None
    other_labels: Tensor | None = None
    own: Tensor | None = None
    answer: Tensor | None = None
    images: Tensor | None = None
    others: Tensor | None = None

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, rows: slice) -> Raw:
        return self._each(lambda name, x: x if name == "keys" else x[rows])

    def with_images(self, images: Tensor) -> Raw:
        """The same with its images out of all of a split's, on the same device."""
        others = None if self.partners is None else images[self.partners]
        return replace(self, images=images[self.samples], others=others)

    def with_decoded(self, images: Tensor) -> Raw:
        """The same with its images, and behind them those of its partners, if it has some."""
        others = None if self.partners is None else images[len(self) :]
        return replace(self, images=images[: len(self)], others=others)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Raw:
        """The same there."""
        return self._each(lambda _, x: x.to(device, non_blocking=non_blocking))

    def pinned(self) -> Raw:
        """The same in memory that a GPU reads on its own."""
        return self._each(lambda _, x: x.pin_memory())

    def clone(self) -> Raw:
        """A copy."""
        return self._each(lambda _, x: x.clone())

    def copy_(self, other: Raw) -> None:
        """Become as another one of the same shapes."""
        mine, theirs = self.tensors(), other.tensors()
        for name, x in mine.items():
            x.copy_(theirs[name])

    def tensors(self) -> dict[str, Tensor]:
        """The fields that there are."""
        return {name: x for name, x in vars(self).items() if x is not None}

    def _each(self, change: Callable[[str, Tensor], Tensor]) -> Raw:
        return Raw(**{name: change(name, x) for name, x in self.tensors().items()})


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
        raw, images = self.numbers(chosen, view), self.split.images
        if isinstance(images, Photographs):
            raw = raw.with_decoded(images.decoded(self.wanted(raw))[0])
        else:
            raw = raw.with_images(images)
        return self.made(raw.to(device))

    def wanted(self, raw: Raw) -> list[Wanted]:
        """The photographs that views are made of: the samples', then their partners'.

        `resized-crop` cuts from the photograph itself what it would cut from its square.
        """
        partners = [] if raw.partners is None else [raw.partners]
        samples, pieces = torch.cat([raw.samples, *partners]), None
        if self._cut:
            pieces = torch.stack(drawn_piece(Draws.keyed(raw.keys[0], samples)), 1)
        wanted: list[Wanted] = self.split.images.wanted(samples.tolist(), pieces)
        return wanted

    def numbers(self, chosen: Tensor, view: int) -> Raw:
        """What a view of each chosen sample, int64 (N,), is made of, but for images and answers."""
        split, seed, mix = self.split, self.settings.seed, self.settings.mix
        keys = torch.tensor([key(seed, view), key(seed + 1, view)])
        raw = Raw(chosen, split.labels[chosen], keys)
        if mix is None:
            return raw
        partners = _partners(len(split.labels), seed, view)[chosen]
        own = _mix.shares(Draws(seed + 1, view, chosen), mix.alpha)
        return replace(raw, partners=partners, other_labels=split.labels[partners], own=own)

    def made(self, raw: Raw) -> tuple[Tensor, Tensor]:
        """The view itself, on the device of `raw`: what `batch` gives."""
        images, mix = self._changed(raw, raw.images, raw.samples), self.settings.mix
        labels = raw.labels
        if mix is None:
            return images, labels
        others = self._changed(raw, raw.others, raw.partners)
        assert raw.other_labels is not None and raw.own is not None
        draws = Draws.keyed(raw.keys[1], raw.samples)
        draws.uniform()  # which `own` was made of
        images, own = _mix.mixed(images, others, raw.own, draws, mix.kind, mix.share)
        shares = F.one_hot(labels, self._classes) * own[:, None]
        theirs = F.one_hot(raw.other_labels, self._classes)
        return images, shares + theirs * (1 - own)[:, None]

    def _changed(self, raw: Raw, images: Tensor | None, samples: Tensor | None) -> Tensor:
        assert images is not None and samples is not None
        draws = Draws.keyed(raw.keys[0], samples)
        return augment(images, self.settings.augmentations, draws, self._cut)

    @functools.cached_property
    def _cut(self) -> bool:
        """Whether images come as the pieces that `resized-crop` shows."""
        names = self.settings.augmentations
        return isinstance(self.split.images, Photographs) and names[:1] == (RESIZED_CROP,)

    @functools.cached_property
    def _classes(self) -> int:
        """How many classes there are up to the last that has an image."""
        return int(self.split.labels.max()) + 1


@functools.lru_cache(maxsize=2)
def _partners(n: int, seed: int, view: int) -> Tensor:
    """With which sample each one is mixed in a view: int64 (n,), the same in every batch."""
    generator = torch.Generator().manual_seed(derived(seed, view))
    return torch.randperm(n, generator=generator)

"""The usual ways to prepare pixels, by name: mean and std as R, G, B, in units of pixel / 255."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Way:
    """One way: what `(pixel / 255 - mean) / std` takes, and in words."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    words: str


WAYS = {
    "imagenet": Way((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "mean and std of ImageNet"),
    "cifar": Way((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), "mean and std of CIFAR-10"),
    "half": Way((0.5,), (0.5,), "pixels from -1 to 1 (mean 0.5, std 0.5)"),
    "unit": Way((0.0,), (1.0,), "pixels from 0 to 1 (mean 0, std 1)"),
    "pixels": Way((0.0,), (1 / 255,), "pixels from 0 to 255 (mean 0, std 0.00392157)"),
    "edgeres": Way((128 / 255,), (64 / 255,), "mean 128/255 and std 64/255, as edgeres trains"),
}  # fmt: skip


def above_one(values: Iterable[object]) -> str | None:
    """What is wrong with a mean or std that is not in units of pixel / 255, and its mend."""
    numbers = [v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)]
    if not any(v > 1 for v in numbers):
        return None
    largest = max(numbers)
    divided = ", ".join(f"{v / 255:.4g}" for v in numbers)
    return (f"{largest:g} is above 1, so it is of pixels from 0 to 255: divide mean and std by "
            f"255 ({divided})")  # fmt: skip


def in_words(mean: Sequence[float], std: Sequence[float]) -> str:
    """`mean 0.485, 0.456, 0.406 and std 0.229, 0.224, 0.225`."""
    said = [", ".join(f"{x:.4g}" for x in values) for values in (mean, std)]
    return f"mean {said[0]} and std {said[1]}"

"""Stratified choices: labels and a seed in, indices out; the same on every machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def order(labels: np.ndarray, seed: int) -> np.ndarray:
    """A shuffled order of all samples of which every prefix is stratified.

    The k-th sample of a class of n stands at (k + 1/2) / n of the way, so the first m samples hold
    each class in its proportion, to within about one sample.

    Args:
        labels: int64 (N,), not negative.

    Returns:
        Indices, int64 (N,), each once.
    """
    import numpy as np

    shuffled = np.random.default_rng(seed).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    sizes = np.bincount(labels)
    starts = np.repeat(np.cumsum(sizes) - sizes, sizes)
    place = np.empty(len(labels))
    place[by_class] = (np.arange(len(labels)) - starts + 0.5) / np.repeat(sizes, sizes)
    # Stable over the shuffled order, so classes of one size take turns at random.
    return shuffled[np.argsort(place[shuffled], kind="stable")]


def cut(labels: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split into (kept, cut), `share` of the samples cut, stratified; both in ascending order.

    At least one sample is cut, but never the last one of a class: what is kept has every class.
    """
    import numpy as np

    if not len(labels):
        return np.arange(0), np.arange(0)
    ranked = order(labels, seed)
    _, last = np.unique(labels[ranked][::-1], return_index=True)
    spare = np.delete(ranked, len(ranked) - 1 - last)
    chosen = np.sort(spare[: max(1, round(share * len(labels)))])
    return np.delete(np.arange(len(labels)), chosen), chosen

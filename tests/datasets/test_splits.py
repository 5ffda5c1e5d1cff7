"""Stratified order and cuts."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgeres.datasets import _splits

LABELS = st.lists(st.integers(0, 5), min_size=1, max_size=120).map(lambda v: np.array(v, np.int64))
SEEDS = st.integers(0, 2**32)


@given(LABELS, SEEDS)
def test_every_prefix_of_the_order_is_stratified(labels: np.ndarray, seed: int) -> None:
    order = _splits.order(labels, seed)
    assert sorted(order) == list(range(len(labels)))
    share = np.bincount(labels) / len(labels)
    for m in range(1, len(labels) + 1):
        drawn = np.bincount(labels[order[:m]], minlength=len(share))
        # A class's k-th sample stands at (k + 1/2) / n: off by 1/2 for itself, by 1/2 on average
        # over the other classes, so never by as much as the number of classes / 2.
        assert np.abs(drawn - share * m).max() <= max(1, np.count_nonzero(share) / 2)


@given(LABELS, SEEDS, st.floats(0.05, 0.95))
def test_a_cut_is_a_partition_that_leaves_every_class_something(
    labels: np.ndarray, seed: int, share: float
) -> None:
    kept, cut = _splits.cut(labels, share, seed)
    assert sorted([*kept, *cut]) == list(range(len(labels)))
    assert list(kept) == sorted(kept)
    assert list(cut) == sorted(cut)
    assert set(labels[kept]) == set(labels)
    assert len(cut) <= max(1, round(share * len(labels)))


def test_a_cut_has_the_size_and_the_proportions_asked_for() -> None:
    labels = np.repeat([0, 1, 2], [100, 200, 700])
    _, cut = _splits.cut(labels, 0.1, seed=3)
    assert np.bincount(labels[cut]).tolist() == [10, 20, 70]


def test_rare_classes_are_not_drawn_before_their_turn() -> None:
    labels = np.array([0] * 95 + [1, 2, 3, 4, 5])
    assert not labels[_splits.order(labels, seed=0)[:40]].any()


def test_a_cut_follows_its_seed() -> None:
    labels = np.repeat(np.arange(4), 50)
    first, again, other = (_splits.cut(labels, 0.2, seed)[1].tolist() for seed in (1, 1, 2))
    assert first == again
    assert first != other

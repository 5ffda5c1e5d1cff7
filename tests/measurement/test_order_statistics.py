"""Statistics against published anchors and scipy."""

from __future__ import annotations

import random

import pytest
from scipy import stats

from edgeres.measurement.statistics import early_stopping, median_ci, ratio_ci


@pytest.mark.parametrize(("percentile", "needed"), [(0.5, 11), (0.9, 64), (0.95, 130), (0.99, 662)])
def test_early_stopping_needs_what_mlperf_says(percentile: float, needed: int) -> None:
    assert early_stopping(range(needed - 1), percentile) == (None, 0)
    assert early_stopping(range(needed), percentile) == (needed - 1, 0)


def test_early_stopping_discards_as_loadgen_does() -> None:
    samples = list(range(962))
    assert early_stopping(samples, 0.9) == (961 - 73, 73)  # LoadGen: "Would discard 73"
    assert early_stopping(range(1024), 0.9)[1] == 79
    assert early_stopping(range(1024), 0.99)[1] == 2


def test_early_stopping_ignores_order_and_is_no_lower_than_the_percentile() -> None:
    generator = random.Random(0)
    samples = [generator.lognormvariate(0, 0.3) for _ in range(500)]
    estimate, _ = early_stopping(samples, 0.9)
    generator.shuffle(samples)
    assert early_stopping(samples, 0.9)[0] == estimate
    assert estimate is not None
    assert estimate > sorted(samples)[450]


@pytest.mark.parametrize("n", [1, 2, 5, 10, 37, 400])
def test_median_interval_has_its_coverage(n: int) -> None:
    samples = list(range(n))
    low, high = median_ci(samples)
    k = int(low) + 1
    assert high == n - k
    if n >= 6:
        assert stats.binom.cdf(k - 1, n, 0.5) <= 0.025 < stats.binom.cdf(k, n, 0.5)


def test_ratio_interval() -> None:
    low, high = ratio_ci([4.0, 4.1, 3.9, 4.0, 4.05], [2.0, 2.05, 1.95, 2.0, 2.02])
    assert 1.9 < low < 2.0 < high < 2.1
    low, high = ratio_ci([2.0, 2.1, 1.9, 2.0, 2.2], [2.05, 1.9, 2.1, 2.0, 1.95])
    assert low < 1 < high

"""Intervals and tests against SciPy and published values."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from edgeres.statistics import calibration_error, mcnemar, paired_difference, wilson


@pytest.mark.parametrize(("correct", "n"), [(0, 5), (5, 5), (1, 1), (563, 599), (9_127, 10_000)])
def test_wilson_is_scipys(correct: int, n: int) -> None:
    expected = stats.binomtest(correct, n).proportion_ci(0.95, method="wilson")
    assert wilson(correct, n) == pytest.approx((expected.low, expected.high), abs=1e-7)


def test_wilson_of_the_ends_and_of_nothing() -> None:
    assert wilson(0, 20)[0] == 0.0
    assert wilson(20, 20)[1] == 1.0
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("correct", "n"), [(-1, 5), (6, 5)])
def test_wilson_refuses_impossible_counts(correct: int, n: int) -> None:
    with pytest.raises(ValueError, match="not possible"):
        wilson(correct, n)


@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_is_the_exact_binomial_test(b: int, c: int) -> None:
    expected = stats.binomtest(min(b, c), b + c, 0.5).pvalue if b + c else 1.0
    assert mcnemar(b, c) == pytest.approx(expected, rel=1e-9)
    assert mcnemar(b, c) == mcnemar(c, b)


def test_mcnemar_stays_exact_where_coefficients_would_overflow() -> None:
    assert mcnemar(49_500, 50_500) == pytest.approx(
        stats.binomtest(49_500, 100_000, 0.5).pvalue, rel=1e-7
    )
    assert mcnemar(0, 1_000_000) == 0.0  # below the smallest float
    assert math.isfinite(mcnemar(10**6, 10**6 + 1))


def test_mcnemar_refuses_negative_counts() -> None:
    with pytest.raises(ValueError, match="negative"):
        mcnemar(-1, 2)


def test_paired_difference_worked_by_hand() -> None:
    # Fagerland, Lydersen and Laake (2014): 21 children, 1 against 7 of them discordant.
    low, high = paired_difference(1, 7, 21)
    centre, half = 6 / 23, 1.959964 * math.sqrt((10 / 23 - (6 / 23) ** 2) / 23)
    assert (low, high) == pytest.approx((centre - half, centre + half))
    assert paired_difference(7, 1, 21) == pytest.approx((-high, -low))


def test_paired_difference_covers_the_truth() -> None:
    random = np.random.default_rng(0)
    draws = random.multinomial(600, [0.03, 0.02, 0.95], size=3000)
    bounds = np.array([paired_difference(int(b), int(c), 600) for b, c, _ in draws])
    covered = ((bounds[:, 0] <= -0.01) & (bounds[:, 1] >= -0.01)).mean()
    assert 0.935 < covered < 0.975


def test_paired_difference_refuses_more_than_n() -> None:
    with pytest.raises(ValueError, match="not possible"):
        paired_difference(3, 3, 5)


def test_calibration_error_by_hand() -> None:
    error, bins = calibration_error([0.9] * 10 + [0.6] * 10, [True] * 7 + [False] * 3 + [True] * 6
                                    + [False] * 4)  # fmt: skip
    assert error == pytest.approx(0.5 * 0.2)  # 0.9 sure and 0.7 right; 0.6 sure and 0.6 right
    assert [(b.n, round(b.accuracy, 9)) for b in bins if b.n] == [(10, 0.6), (10, 0.7)]
    assert calibration_error([1.0, 0.0], [True, False])[0] == 0  # the ends have bins
    assert calibration_error([1.0] * 4, [False] * 4)[0] == 1
    with pytest.raises(ValueError):
        calibration_error([0.5], [])

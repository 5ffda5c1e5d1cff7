"""Interval estimates and tests for classification results: counts in, bounds and p-values out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Z95 = 1.959964
"""The normal quantile of a two-sided 95 % interval."""


def wilson(correct: int, n: int, z: float = Z95) -> tuple[float, float]:
    """Confidence interval of a share: `correct` of `n`; (0, 1) when nothing was counted.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference",
    J. Am. Stat. Assoc. 22 (1927).

    Raises:
        ValueError: unless 0 <= correct <= n.
    """
    if not 0 <= correct <= n:
        raise ValueError(f"{correct} correct of {n} is not possible")
    if n == 0:
        return 0.0, 1.0
    share, shrink = correct / n, 1 + z * z / n
    centre = (share + z * z / (2 * n)) / shrink
    half = z / shrink * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # At the ends the bound is exactly 0 or 1; rounding must not leave it a hair off.
    low = 0.0 if correct == 0 else max(0.0, centre - half)
    high = 1.0 if correct == n else min(1.0, centre + half)
    return low, high


def mcnemar(b: int, c: int) -> float:
    """Exact two-sided p-value that two classifiers err equally often on the same samples.

    Args:
        b: samples that only the first classified correctly.
        c: samples that only the second classified correctly.

    Source: McNemar, Psychometrika 12 (1947), with the binomial distribution in place of chi-square.

    Raises:
        ValueError: a count is negative.
    """
    if b < 0 or c < 0:
        raise ValueError(f"counts can't be negative: {b}, {c}")
    n, fewer = b + c, min(b, c)
    if b == c:
        return 1.0
    # P(X <= fewer) for X ~ Binomial(n, 1/2): the largest term in logarithms, the others by their
    # ratio to it, so that neither huge coefficients nor tiny powers are ever formed.
    largest = math.lgamma(n + 1) - math.lgamma(fewer + 1) - math.lgamma(n - fewer + 1)
    term = total = 1.0
    for k in range(fewer, 0, -1):
        term *= k / (n - k + 1)
        total += term
        if term < 1e-18 * total:
            break
    return min(1.0, 2 * math.exp(largest + math.log(total) - n * math.log(2)))


def paired_difference(b: int, c: int, n: int, z: float = Z95) -> tuple[float, float]:
    """Confidence interval of the second share minus the first, both of the same `n` samples.

    Args:
        b, c: as for `mcnemar`.

    Source: Bonett & Price, "Adjusted Wald confidence interval for a difference of binomial
    proportions based on paired data", J. Educ. Behav. Stat. 37 (2012).

    Raises:
        ValueError: unless 0 <= b, 0 <= c and b + c <= n.
    """
    if b < 0 or c < 0 or b + c > n:
        raise ValueError(f"{b} and {c} of {n} pairs is not possible")
    first, second = (b + 1) / (n + 2), (c + 1) / (n + 2)
    centre = second - first
    half = z * math.sqrt((first + second - centre * centre) / (n + 2))
    return max(-1.0, centre - half), min(1.0, centre + half)


@dataclass(frozen=True)
class Bin:
    """Predictions whose confidence lies in (low, high]: how sure they were, and how right.

    Attributes:
        confidence, accuracy: means over the bin's n predictions; 0 in an empty bin.
    """

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


def calibration_error(
    confidences: Sequence[float], right: Sequence[bool], bins: int = 15
) -> tuple[float, list[Bin]]:
    """Expected calibration error, and the bins of its reliability diagram.

    Args:
        confidences: softmax probability of each prediction, 0 to 1.
        right: whether each prediction was.

    Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equation 5: bins of
    equal width, their gaps between accuracy and confidence weighted by their counts.

    Raises:
        ValueError: there are no predictions, or not as many of one as of the other.
    """
    if not confidences or len(confidences) != len(right):
        raise ValueError(f"{len(confidences)} confidences and {len(right)} answers don't match")
    sums, hits, counts = [0.0] * bins, [0] * bins, [0] * bins
    for confidence, correct in zip(confidences, right, strict=True):
        place = min(max(math.ceil(confidence * bins) - 1, 0), bins - 1)
        sums[place] += confidence
        hits[place] += bool(correct)
        counts[place] += 1
    found = [
        Bin(i / bins, (i + 1) / bins, n, sums[i] / n if n else 0.0, hits[i] / n if n else 0.0)
        for i, n in enumerate(counts)
    ]
    gaps = sum(b.n * abs(b.accuracy - b.confidence) for b in found)
    return gaps / len(confidences), found

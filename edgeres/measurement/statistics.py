"""Statistics of latency samples: pure functions, standard library only.

No distribution is assumed: medians, order statistics and bootstraps (Hoefler & Belli, "Scientific
Benchmarking of Parallel Computing Systems", SC'15, rules 5 to 7).
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from statistics import median

PERCENTILE_METHOD = "MLPerf early stopping"


def median_ci(samples: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Distribution-free interval of the median, from order statistics.

    The k-th smallest and k-th largest of n samples, with the largest k for which
    `P(Binomial(n, 1/2) < k) <= (1 - confidence) / 2`; the whole range if n is too small for that.

    Source: Le Boudec, "Performance Evaluation of Computer and Communication Systems", theorem 2.1.
    """
    ordered = sorted(samples)
    n, tail, k = len(ordered), 0.0, 0
    while k < n // 2:
        tail += _binomial(k, n, 0.5)
        if tail > (1 - confidence) / 2:
            break
        k += 1
    k = max(k, 1)
    return ordered[k - 1], ordered[n - k]


def early_stopping(
    samples: Sequence[float], percentile: float, confidence: float = 0.99
) -> tuple[float | None, int]:
    """MLPerf's early-stopping estimate of a percentile: no lower than it with that confidence.

    With q samples, t is the largest number for which `P(Binomial(q, 1 - percentile) <= t)` is at
    most `1 - confidence`; the estimate is the maximum when the t - 1 slowest are dropped.

    Args:
        percentile: as a share, e.g. 0.9.

    Returns:
        The estimate (None if there are too few samples: 64 are needed for p90, 662 for p99), and
        how many of the slowest samples were dropped for it.

    Source: MLCommons inference_policies, inference_rules.adoc, appendix "Early Stopping Criterion".
    """
    q, total, t = len(samples), 0.0, -1
    while t + 1 <= q:
        total += _binomial(t + 1, q, 1 - percentile)
        if total > 1 - confidence:
            break
        t += 1
    if t < 1:
        return None, 0
    return sorted(samples)[q - t], t - 1


def ratio_ci(
    a: Sequence[float], b: Sequence[float], seed: int = 0, resamples: int = 4000,
    level: float = 0.95,
) -> tuple[float, float]:  # fmt: skip
    """Bootstrap interval of median(a) / median(b), resampling sessions.

    Args:
        a, b: one median per session, of two files measured in turn.
        level: 0.95: a 95 % interval.
    """
    generator = random.Random(seed)
    ratios = sorted(
        median(generator.choices(a, k=len(a))) / median(generator.choices(b, k=len(b)))
        for _ in range(resamples)
    )
    tail = (1 - level) / 2
    return ratios[int(tail * resamples)], ratios[int((1 - tail) * resamples)]


def _binomial(k: int, n: int, p: float) -> float:
    log = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return math.exp(log + k * math.log(p) + (n - k) * math.log1p(-p))

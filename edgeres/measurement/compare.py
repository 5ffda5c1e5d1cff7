"""A against B: the device reports of two subjects in, a verdict per measure out.

A difference counts only if it is both beyond a tolerance and beyond chance: latency by a bootstrap
over sessions, accuracy by McNemar's test where both ran the same samples. Sizes are exact.

A file has three times that scatter (latency, load, first inference), and a gate in CI is asked
again and again: their intervals are 99 % ones, so that noise alone is hardly ever a verdict.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

from edgeres.errors import BadInput
from edgeres.measurement.statistics import ratio_ci
from edgeres.statistics import mcnemar, paired_difference, wilson

Verdict = Literal["better", "same", "worse"]
_ALPHA = 0.05
_LEVEL = 0.99


@dataclass(frozen=True)
class Tolerance:
    """By how much B may be worse than A before it is called worse.

    Attributes:
        latency, memory, size: as shares of A's; accuracy: in points of top-1, as a share of 1.
    """

    latency: float = 0.05
    memory: float = 0.10
    size: float = 0.01
    accuracy: float = 0.005


@dataclass(frozen=True)
class Row:
    """One measure of a file on a device.

    Attributes:
        a, b: the two values, in `unit`.
        change: B as a multiple of A; for accuracy B minus A, as a share.
        interval: of `change`, 99 % for times and 95 % for accuracy; None if it is exact.
        evidence: what the verdict rests on.
    """

    device: str
    a_target: str
    b_target: str
    measure: str
    unit: str
    a: float
    b: float
    change: float
    interval: tuple[float, float] | None
    verdict: Verdict
    evidence: str


def compare(
    a: Sequence[Mapping[str, Any]], b: Sequence[Mapping[str, Any]], tolerance: Tolerance
) -> list[Row]:
    """Every measure that both subjects have.

    Args:
        a, b: device reports (docs/results.md).

    Raises:
        BadInput: they have nothing in common that could be compared.
    """
    rows = [row for pair in _pairs(a, b) for row in _rows(*pair, tolerance)]
    if not rows:
        raise BadInput("nothing to compare: no device measured a file of both; "
                       "`edgeres benchmark` measures more")  # fmt: skip
    return rows


def _pairs(
    a: Sequence[Mapping[str, Any]], b: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """The same target on the same device; or each one's only file, whatever its target."""
    for device in dict.fromkeys(r["device"] for r in a):
        mine = {r["target"]: r for r in a if r["device"] == device}
        other = {r["target"]: r for r in b if r["device"] == device}
        if len(mine) == len(other) == 1:
            yield next(iter(mine.values())), next(iter(other.values()))
        else:
            yield from ((mine[t], other[t]) for t in mine if t in other)


def _rows(a: Mapping[str, Any], b: Mapping[str, Any], tolerance: Tolerance) -> Iterator[Row]:
    who = (a["device"], a["target"], b["target"])
    if not (a.get("emulated") or b.get("emulated")):
        yield _latency(who, a["latency"], b["latency"], tolerance.latency)
        for name in ("load", "first"):
            row = _cold(who, name, a, b, tolerance.latency)
            if row is not None:
                yield row
        first, second = (_memory(r.get("memory")) for r in (a, b))
        if first and second:
            yield _exact(who, "memory", "bytes", first, second, tolerance.memory)
    if a.get("size_bytes") and b.get("size_bytes"):
        yield _exact(who, "size", "bytes", a["size_bytes"], b["size_bytes"], tolerance.size)
    if a.get("accuracy") and b.get("accuracy"):
        yield _accuracy(who, a["accuracy"], b["accuracy"], tolerance.accuracy)


def _latency(
    who: tuple[str, str, str], a: Mapping[str, Any], b: Mapping[str, Any], tolerance: float
) -> Row:
    interval = ratio_ci(b["session_medians_ns"], a["session_medians_ns"], level=_LEVEL)
    evidence = f"bootstrap over {b['sessions']} and {a['sessions']} sessions"
    change = b["median_ns"] / a["median_ns"]
    return Row(*who, "latency", "ns", a["median_ns"], b["median_ns"], change, interval,
               _beyond(interval, tolerance), evidence)  # fmt: skip


def _cold(
    who: tuple[str, str, str], name: str, a: Mapping[str, Any], b: Mapping[str, Any],
    tolerance: float,
) -> Row | None:  # fmt: skip
    """Starting up: each process has one, and they scatter, so the tolerance is doubled."""
    first, second = ((r.get("cold") or {}).get(f"{name}_ns") or () for r in (a, b))
    if len(first) < 2 or len(second) < 2:
        return None
    interval, middle = ratio_ci(second, first, level=_LEVEL), (median(first), median(second))
    return Row(*who, "load" if name == "load" else "first inference", "ns", *middle,
               middle[1] / middle[0], interval, _beyond(interval, 2 * tolerance),
               f"bootstrap over {len(second)} starts")  # fmt: skip


def _exact(
    who: tuple[str, str, str], measure: str, unit: str, a: float, b: float, tolerance: float
) -> Row:
    change = b / a
    return Row(*who, measure, unit, a, b, change, None, _beyond((change, change), tolerance),
               f"tolerance {tolerance:.0%}")  # fmt: skip


def _accuracy(
    who: tuple[str, str, str], a: Mapping[str, Any], b: Mapping[str, Any], tolerance: float
) -> Row:
    shares = a["correct"] / a["n"], b["correct"] / b["n"]
    change = shares[1] - shares[0]
    paired = a.get("right") and b.get("right") and a["n"] == b["n"]
    if paired and a.get("samples") is not None and a.get("samples") == b.get("samples"):
        right = [int(r["right"], 16) for r in (a, b)]
        lost, won = ((x & ~y).bit_count() for x, y in (right, reversed(right)))
        p = mcnemar(lost, won)
        interval = paired_difference(lost, won, a["n"])
        evidence = f"McNemar p = {p:.2g}: {lost} lost, {won} won of {a['n']}"
        chance = p >= _ALPHA
    else:
        (low_a, high_a), (low_b, high_b) = (wilson(r["correct"], r["n"]) for r in (a, b))
        interval, chance = None, low_a <= high_b and low_b <= high_a
        evidence = f"Wilson intervals of {a['n']} and {b['n']} samples"
    verdict: Verdict = "same"
    if not chance and abs(change) > tolerance:
        verdict = "better" if change > 0 else "worse"
    return Row(*who, "top-1", "share", *shares, change, interval, verdict, evidence)


def _beyond(interval: tuple[float, float], tolerance: float) -> Verdict:
    """Of a ratio where less is better: the whole interval has to lie beyond the tolerance."""
    low, high = interval
    return "worse" if low > 1 + tolerance else "better" if high < 1 / (1 + tolerance) else "same"


def _memory(found: Mapping[str, Any] | None) -> float | None:
    peak = (found or {}).get("peak_rss_bytes")
    return float(peak) if peak else None

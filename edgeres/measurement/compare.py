"""A against B: the device reports of two subjects in, a verdict per measure out.

A difference counts only if it is both beyond a tolerance and beyond chance: latency by a bootstrap
over sessions, accuracy by McNemar's test where both ran the same samples. Sizes are exact. What
can't be judged (an invalid measurement, other test images) is a verdict of its own.

A file has three times that scatter (latency, load, first inference), and a gate in CI is asked
again and again: their intervals are 99 % ones, so that noise alone is hardly ever a verdict.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Literal

from edgeres.errors import BadInput
from edgeres.measurement import standing
from edgeres.measurement.statistics import ratio_ci
from edgeres.statistics import mcnemar, paired_difference, wilson

if TYPE_CHECKING:
    from edgeres.records import Answered, Report

Verdict = Literal["better", "same", "worse", "not measurable"]
_ALPHA = 0.05
_LEVEL = 0.99


@dataclass(frozen=True)
class Tolerance:
    """By how much B may be worse than A before it is called worse.

    Attributes:
        latency, cold (load, first inference), memory, energy, size: as shares of A's.
        accuracy: in points of top-1.
    """

    latency: float = 0.05
    cold: float = 0.10
    memory: float = 0.10
    energy: float = 0.10
    size: float = 0.01
    accuracy: float = 0.5


@dataclass(frozen=True)
class Row:
    """One measure of a file on a device.

    Attributes:
        a, b: the two values, in `unit`; None where there is none to judge.
        change: B as a multiple of A; for accuracy B minus A, in points.
        interval: of `change`, 99 % for times and 95 % for accuracy; None if it is exact or unknown.
        evidence: what the verdict rests on, or why there is none.
    """

    device: str
    a_target: str
    b_target: str
    measure: str
    unit: str
    a: float | None
    b: float | None
    change: float | None
    interval: tuple[float, float] | None
    verdict: Verdict
    evidence: str


Who = tuple[str, str, str]


def compare(
    a: Sequence[Report], b: Sequence[Report], tolerance: Tolerance, allow_invalid: bool = False
) -> list[Row]:
    """Every measure that both subjects have.

    Args:
        a, b: device reports (docs/results.md).
        allow_invalid: judge the times of measurements that are marked invalid, too.

    Raises:
        BadInput: they have nothing in common that could be compared.
    """
    rows = [row for pair in _pairs(a, b) for row in _rows(*pair, tolerance, allow_invalid)]
    if not rows:
        raise BadInput(f"nothing to compare: A has {_listed(a)}, B has {_listed(b)}; "
                       "`edgeres benchmark` measures more")  # fmt: skip
    return rows


def left_out(a: Sequence[Report], b: Sequence[Report]) -> list[str]:
    """What isn't compared although one of the two has it, and what had to be assumed."""
    pairs = list(_pairs(a, b))
    said = []
    for first, second in pairs:
        name = f"{first['target']} / {second['target']}" if first["target"] != second["target"] \
            else first["target"]  # fmt: skip
        lacking = [which for which, r in (("A", first), ("B", second)) if not r.get("accuracy")]
        if lacking:
            said.append(f"{name}: top-1 isn't compared: {' and '.join(lacking)} "
                        f"{'have' if len(lacking) > 1 else 'has'} none")  # fmt: skip
        if not (first.get("device") and second.get("device")):
            said.append(f"{name}: as far as is told, A was measured on {standing.device(first)}, "
                        f"B on {standing.device(second)}")  # fmt: skip
        said += [f"{name}: {which}: {note}" for which, r in (("A", first), ("B", second))
                 for note in (r.get("notes") or ()) if r.get("source")]  # fmt: skip
    known = {id(report) for pair in pairs for report in pair}
    return said + [f"only {which} has {r['target']} on {standing.device(r)}"
                   for which, reports in (("A", a), ("B", b))
                   for r in reports if id(r) not in known]  # fmt: skip


def _listed(reports: Sequence[Report]) -> str:
    return ", ".join(f"{r['target']} on {standing.device(r)}" for r in reports[:5]) or "nothing"


def _pairs(a: Sequence[Report], b: Sequence[Report]) -> Iterator[tuple[Report, Report]]:
    """The same target on the same device; or each one's only file, whatever its target.

    Of two single reports, a device that isn't known may be any.
    """
    if len(a) == len(b) == 1 and not (a[0].get("device") and b[0].get("device")):
        yield a[0], b[0]
        return
    for device in dict.fromkeys(r["device"] for r in a):
        mine = {r["target"]: r for r in a if r["device"] == device}
        other = {r["target"]: r for r in b if r["device"] == device}
        if len(mine) == len(other) == 1:
            yield next(iter(mine.values())), next(iter(other.values()))
        else:
            yield from ((mine[t], other[t]) for t in mine if t in other)


def _rows(a: Report, b: Report, tolerance: Tolerance, allow_invalid: bool) -> Iterator[Row]:
    who = (standing.device(a if a.get("device") else b), a["target"], b["target"])
    if not (a.get("emulated") or b.get("emulated")):
        yield _latency(who, a, b, tolerance.latency, allow_invalid)
        for name in ("load", "first"):
            row = _cold(who, name, a, b, tolerance.cold, allow_invalid)
            if row is not None:
                yield row
        first, second = map(standing.peak_rss, (a, b))
        if first and second:
            yield _exact(who, "peak RSS", "bytes", first, second, tolerance.memory)
        row = _energy(who, a, b, tolerance.energy, allow_invalid)
        if row is not None:
            yield row
    if (old := a.get("size_bytes")) and (new := b.get("size_bytes")):
        yield _exact(who, "size", "bytes", old, new, tolerance.size)
    if (before := a.get("accuracy")) and (after := b.get("accuracy")):
        yield _accuracy(who, before, after, tolerance.accuracy)


def _unjudged(
    who: Who, measure: str, unit: str, values: Sequence[float | None], reasons: Sequence[str]
) -> Row:
    said = "; ".join(f"{which}: {reason}" for which, reason in zip("AB", reasons, strict=True)
                     if reason)  # fmt: skip
    return Row(*who, measure, unit, values[0], values[1], None, None, "not measurable", said)


def _latency(
    who: Who, first: Report, second: Report, tolerance: float, allow_invalid: bool
) -> Row:  # fmt: skip
    both = (first, second)
    reasons = [standing.against_latency(r, allow_invalid) for r in both]
    a, b = (r.get("latency") for r in both)
    medians = [found["median_ns"] if found else None for found in (a, b)]
    batches = list(map(standing.batch, both))
    measure = f"latency per batch of {batches[0]}" if batches[0] > 1 else "latency"
    if batches[0] != batches[1]:
        measure = "latency"
        reasons = [f"a query is a batch of {n}" for n in batches]
    if any(reasons) or a is None or b is None:
        return _unjudged(who, measure, "ns", medians, reasons)
    change, interval = b["median_ns"] / a["median_ns"], None
    evidence = "one session has no interval: the difference may be chance"
    if min(a["sessions"], b["sessions"]) > 1:
        interval = ratio_ci(b["session_medians_ns"], a["session_medians_ns"], level=_LEVEL)
        evidence = f"bootstrap over {b['sessions']} and {a['sessions']} sessions"
    return Row(*who, measure, "ns", a["median_ns"], b["median_ns"], change, interval,
               _beyond(interval or (change, change), tolerance), evidence)  # fmt: skip


def _cold(
    who: Who, name: str, a: Report, b: Report, tolerance: float, allow_invalid: bool
) -> Row | None:  # fmt: skip
    """Starting up: each process has one, and they scatter."""
    key: Literal["load_ns", "first_ns"] = "load_ns" if name == "load" else "first_ns"
    first, second = ((r.get("cold") or {}).get(key) or () for r in (a, b))
    if len(first) < 2 or len(second) < 2:
        return None
    measure, middle = (
        "load" if name == "load" else "first inference",
        (median(first), median(second)),
    )
    reasons = [standing.against_times(r, allow_invalid) for r in (a, b)]
    if any(reasons):
        return _unjudged(who, measure, "ns", middle, reasons)
    interval = ratio_ci(second, first, level=_LEVEL)
    return Row(*who, measure, "ns", *middle, middle[1] / middle[0], interval,
               _beyond(interval, tolerance), f"bootstrap over {len(second)} starts")  # fmt: skip


def _energy(
    who: Who, a: Report, b: Report, tolerance: float, allow_invalid: bool
) -> Row | None:  # fmt: skip
    first, second = ((r.get("energy") or {}).get("joules_per_inference") for r in (a, b))
    if not (first and second):
        return None
    reasons = [standing.against_times(r, allow_invalid) for r in (a, b)]
    if any(reasons):
        return _unjudged(who, "energy", "J", (first, second), reasons)
    return _exact(who, "energy", "J", first, second, tolerance)


def _exact(who: Who, measure: str, unit: str, a: float, b: float, tolerance: float) -> Row:
    change = b / a
    return Row(*who, measure, unit, a, b, change, None, _beyond((change, change), tolerance),
               f"tolerance {tolerance:.0%}")  # fmt: skip


def _accuracy(who: Who, a: Answered, b: Answered, tolerance: float) -> Row:
    shares = a["correct"] / a["n"], b["correct"] / b["n"]
    if found := _other_test(a, b):
        return Row(*who, "top-1", "share", *shares, None, None, "not measurable", found)
    change = (shares[1] - shares[0]) * 100
    paired = a.get("right") and b.get("right") and a["n"] == b["n"]
    if paired and a.get("samples") is not None and a.get("samples") == b.get("samples"):
        right = [int(r["right"], 16) for r in (a, b)]
        lost, won = ((x & ~y).bit_count() for x, y in (right, reversed(right)))
        p = mcnemar(lost, won)
        low, high = paired_difference(lost, won, a["n"])
        interval = (low * 100, high * 100)
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


def _other_test(a: Answered, b: Answered) -> str:
    """What makes two accuracies those of different tests; "" if nothing known does."""
    for one, other, words in ((a.get("classes"), b.get("classes"), "classes"),
                              (a["n"], b["n"], "test images")):  # fmt: skip
        if one and other and one != other:
            return f"A has {one} {words}, B has {other}: two different tests"
    if a.get("samples") and b.get("samples") and a["samples"] != b["samples"]:
        return "A and B ran different test images"
    return ""


def _beyond(interval: tuple[float, float], tolerance: float) -> Verdict:
    """Of a ratio where less is better: the whole interval has to lie beyond the tolerance."""
    low, high = interval
    return "worse" if low > 1 + tolerance else "better" if high < 1 / (1 + tolerance) else "same"

"""Budgets: limits and what was measured flow in, a pass or fail for each flows out.

A budgets file is YAML: a list of limits, each for the files and devices it names (all, if it names
none). A limit that nothing was measured for fails, unless the file allows it to be unmeasurable. So
do the times of a measurement that is marked invalid, unless the file allows such ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Literal

from edgeres import documents, errors
from edgeres.errors import BadInput
from edgeres.measurement import standing

if TYPE_CHECKING:
    from edgeres.records import Facts, Report

_KIND = documents.Kind("budgets file", 64 << 10, "it needs a list `budgets`")
Verdict = Literal["pass", "fail", "not measurable"]


# What a report says of a measure, and why that is nothing: one of the two.
Reading = tuple[float | None, str]
_NONE = "not measured"


def _latency(name: str) -> Callable[[Report, bool], Reading]:
    def value(report: Report, allow_invalid: bool) -> Reading:
        if reason := standing.against_latency(report, allow_invalid):
            return None, reason
        latency: Mapping[str, object] = report["latency"] or {}
        found, images = latency.get(f"{name}_ns"), standing.batch(report)
        if not isinstance(found, (int, float)):
            return None, "too few queries, or the tool doesn't tell it"
        if images > 1:
            return None, f"{found / 1e6:.4g} ms is the latency per batch of {images}"
        return found / 1e6, ""

    return value


def _memory(report: Report, _: bool) -> Reading:
    peak = standing.peak_rss(report)
    return (None, _NONE) if peak is None else (peak / 1e6, "")


def _cold(report: Report, allow_invalid: bool) -> Reading:
    """Load and first inference of a fresh process, its middle one."""
    cold, images = report.get("cold") or {}, standing.batch(report)
    if reason := standing.against_times(report, allow_invalid):
        return None, reason
    loads, firsts = cold.get("load_ns"), cold.get("first_ns")
    if not (loads and firsts):
        return None, "load or first inference isn't told"
    if images > 1:
        return None, f"its first inference is a batch of {images}"
    return (median(loads) + median(firsts)) / 1e6, ""


def _energy(report: Report, allow_invalid: bool) -> Reading:
    joules = (report.get("energy") or {}).get("joules_per_inference")
    if joules is None:
        return None, _NONE
    reason = standing.against_times(report, allow_invalid)
    return (None, reason) if reason else (float(joules) * 1e3, "")


def _accuracy(report: Report, _: bool) -> Reading:
    found = report.get("accuracy")
    return (found["correct"] / found["n"], "") if found else (None, _NONE)


def _size(report: Report, _: bool) -> Reading:
    found = report.get("size_bytes")
    return (found / 1e3, "") if found else (None, _NONE)


def _drop(report: Report, _: bool) -> Reading:
    found = report.get("accuracy")
    if not found or not (lost := found.get("against_float")):
        return None, _NONE
    return (lost["lost"] - lost["won"]) / found["n"] * 100, ""


# key -> (what it reads of a device report, whether the value has to be at most the limit)
MEASURES: dict[str, tuple[Callable[[Report, bool], Reading], bool]] = {
    "latency_median_ms": (_latency("median"), True),
    "latency_p90_ms": (_latency("p90"), True),
    "latency_p95_ms": (_latency("p95"), True),
    "latency_p99_ms": (_latency("p99"), True),
    "cold_start_ms": (_cold, True),
    "memory_mb": (_memory, True),
    "size_kb": (_size, True),
    "energy_mj": (_energy, True),
    "accuracy": (_accuracy, False),
    "accuracy_drop_points": (_drop, True),
}
_DOCUMENT = {"budgets", "allow_unmeasurable", "allow_invalid"}
_KEYS = ("target", "device", *MEASURES, "agreement")
_SHARES = ("accuracy", "agreement")


@dataclass(frozen=True)
class Budget:
    """One limit, for a target and a device (None: every one)."""

    measure: str
    limit: float
    target: str | None
    device: str | None


@dataclass(frozen=True)
class Result:
    """A limit against what was measured; `value` is None if nothing was, and `reason` says why."""

    measure: str
    target: str
    device: str
    limit: float
    value: float | None
    verdict: Verdict
    reason: str = ""


@dataclass(frozen=True)
class Limits:
    """What a file or a recipe asks for.

    Attributes:
        unmeasurable: measures that pass if they were not measured.
        invalid: whether a measurement that is marked invalid counts.
    """

    budgets: Sequence[Budget]
    unmeasurable: Sequence[str] = ()
    invalid: bool = False


def load(path: Path) -> Limits:
    """The limits of a budgets file.

    Raises:
        BadInput: it can't be read, or a key or value is wrong.
    """
    document = _document(path)
    allowed = document.get("allow_unmeasurable", ())
    invalid = document.get("allow_invalid", False)
    rows = document.get("budgets")
    if not isinstance(invalid, bool):
        raise BadInput(f"{path}: `allow_invalid` is true or false")
    if not isinstance(rows, tuple) or not isinstance(allowed, tuple):
        raise BadInput(f"{path}: `budgets` and `allow_unmeasurable` are lists")
    if not rows:
        raise BadInput(f"{path}: lists no budget; see docs/budgets.md")
    for name in allowed:
        if not isinstance(name, str):
            raise BadInput(f"{path}: `allow_unmeasurable` lists names of measures")
        if name not in (*MEASURES, "agreement"):
            raise errors.unknown(f"measure in {path}", name, (*MEASURES, "agreement"))
    return Limits([b for row in rows for b in _budgets(path, row)], tuple(allowed), invalid)


def check(
    limits: Limits, reports: Sequence[Report], agreement: Mapping[str, float]
) -> list[Result]:
    """Each limit against every report it is meant for.

    Args:
        reports: device reports (docs/results.md).
        agreement: target -> top-1 agreement of its certificate.
    """
    found = [r for b in limits.budgets for r in _results(b, reports, agreement, limits.invalid)]
    return [r for r in found
            if r.verdict != "not measurable" or r.measure not in limits.unmeasurable]  # fmt: skip


def agreement(certified: Facts | None) -> dict[str, float]:
    """Target -> top-1 agreement with the trained graph, from the facts of verification."""
    rows = certified["files"] if certified else ()
    return {row["target"]: row["agreement"] for row in rows if row.get("agreement") is not None}


def judged(measure: str, limit: float, value: float | None) -> Verdict:
    """A value against its limit."""
    if value is None:
        return "not measurable"
    at_most = measure in MEASURES and MEASURES[measure][1]
    return "pass" if (value <= limit if at_most else value >= limit) else "fail"


def _results(
    budget: Budget, reports: Sequence[Report], agreement: Mapping[str, float], invalid: bool
) -> Iterator[Result]:
    values: dict[tuple[str, str], Reading]
    if budget.measure == "agreement":
        values = {(t, "-"): (v, "") for t, v in agreement.items() if budget.target in (None, t)}
    else:
        read, _ = MEASURES[budget.measure]
        values = {(r["target"], standing.device(r)): read(r, invalid) for r in reports
                  if budget.target in (None, r["target"])
                  and budget.device in (None, r["device"])}  # fmt: skip
    if not values:
        values = {(budget.target or "any file", budget.device or "any device"): (None, _NONE)}
    for (target, device), (value, reason) in values.items():
        verdict = judged(budget.measure, budget.limit, value)
        yield Result(budget.measure, target, device, budget.limit, value, verdict, reason)


def _budgets(path: Path, row: object) -> Iterator[Budget]:
    if not isinstance(row, dict):
        raise BadInput(f"{path}: each budget is a mapping of {', '.join(_KEYS)}")
    for key, value in row.items():
        if key not in _KEYS:
            raise errors.unknown(f"key in {path}", str(key)[:80], _KEYS)
        kind = str if key in ("target", "device") else (int, float)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise BadInput(f"{path}: {key} must be {'text' if kind is str else 'a number'}")
    limits = {k: float(v) for k, v in row.items() if k not in ("target", "device")}
    for key in _SHARES:
        if not 0 <= limits.get(key, 0) <= 1:
            raise BadInput(f"{path}: {key}: {limits[key]:g} is no share of 1; 97 % is 0.97")
    if not limits:
        raise BadInput(f"{path}: a budget without a limit; known: {', '.join(_KEYS[2:])}")
    for measure, limit in limits.items():
        yield Budget(measure, limit, row.get("target"), row.get("device"))


def _document(path: Path) -> dict[str, object]:
    document = documents.values(path, _KIND)
    if set(document) - _DOCUMENT:
        raise BadInput(
            f"{path}: has the keys {', '.join(f'`{k}`' for k in sorted(_DOCUMENT))} only"
        )
    return document

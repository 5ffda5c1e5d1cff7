"""What sessions mean: samples in, one report with its figures and the doubts about them out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from statistics import mean, median
from typing import TYPE_CHECKING

from edgeres.measurement.runners import Preset, Session
from edgeres.measurement.statistics import PERCENTILE_METHOD, early_stopping, median_ci
from edgeres.records import Curve

if TYPE_CHECKING:
    from edgeres.measurement.protocol import Candidate
    from edgeres.records import Energy, Latency, Timed

_DRIFT = 0.05
_SPREAD = 0.10
_BUSY = 0.75
_WINDOW_NS = 10e9
_SINCE_BOOT = 0xF0000  # Raspberry Pi's bits for what it has met since it started
_PERCENTILES = {"p90_ns": 0.90, "p95_ns": 0.95, "p99_ns": 0.99}


def report(
    candidate: Candidate,
    sessions: Sequence[Session],
    preset: Preset,
    before: Mapping[str, object],
    after: Mapping[str, object],
    failure: str | None,
) -> Timed:
    """One file on one device (docs/results.md)."""
    reasons = _doubts(sessions, preset, before, after)
    if failure:
        reasons.append(f"it ended early: {failure}")
    return {
        "target": candidate.target,
        "file_sha256": candidate.sha256,
        "size_bytes": candidate.size_bytes,
        "latency": latency(sessions),
        "cold": {
            "load_ns": [s.load_ns for s in sessions if s.load_ns is not None],
            "first_ns": [s.first_ns for s in sessions if s.first_ns is not None],
        },
        "state_before": dict(before),
        "state_after": dict(after),
        "runtime": dict(sessions[0].runtime),
        "build": dict(sessions[0].build),
        "notes": sorted({note for s in sessions for note in s.notes}),
        "valid": not reasons,
        "reasons": reasons,
        "emulated": bool(before.get("emulated")),
        "measured_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }  # fmt: skip


def energy(session: Session, watts: Sequence[Mapping[str, float]]) -> Energy | None:
    """Energy per inference from the mean power during a session; idle power is in it."""
    if not watts:
        return None
    power = mean(reading["total"] for reading in watts)
    nanoseconds = _median(session)
    return {
        "watts": power, "readings": len(watts),
        "joules_per_inference": power * nanoseconds / 1e9,
        "definition": "mean power of the board, idle included, times the median latency",
    }  # fmt: skip


def throttled(state: Mapping[str, object]) -> bool:
    """Whether a device says that it is slowing down for heat now (Android: any status at all)."""
    return bool(state.get("thermal_status") or state.get("throttled_now"))


class _Begun(Curve):
    sessions: int
    median_ns: float
    median_ci_ns: list[float] | None
    session_medians_ns: list[float]
    batch: int | None


def latency(sessions: Sequence[Session], batch: int | None = 1) -> Latency:
    """The report's `latency` (docs/results.md).

    Args:
        batch: images in a query; None if nobody knows.
    """
    medians = [_median(s) for s in sessions]
    pooled = [ns for s in sessions for ns in s.samples_ns]
    begun: _Begun = {
        "sessions": len(sessions), "median_ns": median(medians),
        # Queries of one process resemble each other, sessions don't: the interval is theirs.
        "median_ci_ns": list(median_ci(medians)) if len(medians) > 1 else None,
        "session_medians_ns": medians, "batch": batch,
    }  # fmt: skip
    if len(sessions) == 1:
        begun["curve"] = _curve(sessions[0].samples_ns)
    if pooled:
        p90, p95, p99 = (early_stopping(pooled, p)[0] for p in _PERCENTILES.values())
        return {**begun, "p90_ns": p90, "p95_ns": p95, "p99_ns": p99, "n": len(pooled),
                "min_ns": min(pooled), "max_ns": max(pooled),
                "percentile_method": PERCENTILE_METHOD}  # fmt: skip
    p90, p95, p99 = (_told(sessions, name) for name in _PERCENTILES)
    return {
        **begun, "n": sum(s.n for s in sessions), "p90_ns": p90, "p95_ns": p95, "p99_ns": p99,
        "min_ns": min((s.min_ns for s in sessions if s.min_ns is not None), default=None),
        "max_ns": max((s.max_ns for s in sessions if s.max_ns is not None), default=None),
        "percentile_method": f"{sessions[0].runtime.get('tool', 'the tool')}'s own, per session",
    }  # fmt: skip


def _told(sessions: Sequence[Session], name: str) -> float | None:
    known = [value for s in sessions if (value := getattr(s, name)) is not None]
    return median(known) if known else None


def _curve(samples: Sequence[int]) -> list[list[float]]:
    """Seconds since the start, and the median latency in ns, of each ten seconds of queries."""
    curve: list[list[float]] = []
    window, elapsed = list[int](), 0
    for ns in samples:
        window.append(ns)
        elapsed += ns
        if elapsed >= (len(curve) + 1) * _WINDOW_NS:
            curve.append([elapsed / 1e9, median(window)])
            window = []
    return curve


def _median(session: Session) -> float:
    if session.samples_ns:
        return float(median(session.samples_ns))
    assert session.median_ns is not None
    return session.median_ns


def _doubts(
    sessions: Sequence[Session],
    preset: Preset,
    before: Mapping[str, object],
    after: Mapping[str, object],
) -> list[str]:
    """Why a measurement shouldn't be trusted, in sentences."""
    reasons = []
    if before.get("emulated"):
        reasons.append("the processor is emulated: its times mean nothing")
    fewest = min(len(s.samples_ns) or s.n for s in sessions)
    if fewest < preset.min_queries:
        reasons.append(f"a session made {fewest} queries, {preset.min_queries} are needed")
    unsettled = sum(s.settled is False for s in sessions)
    if unsettled > len(sessions) // 2:
        reasons.append(f"the warm-up of {unsettled} of {len(sessions)} sessions didn't settle")
    drifting = sum(_drifts(s.samples_ns) for s in sessions)
    if drifting > len(sessions) // 2:
        reasons.append(f"latency drifted by over {_DRIFT:.0%} within {drifting} sessions")
    medians = [_median(s) for s in sessions]
    middle = median(medians)
    apart = sum(abs(m - middle) > _SPREAD * middle for m in medians)
    if apart > 1:  # the median of sessions bears one that was disturbed
        reasons.append(f"{apart} of {len(sessions)} session medians lie over {_SPREAD:.0%} apart")
    reasons += sorted({doubt for s in sessions for doubt in s.unsteady})
    return reasons + _state_doubts(before, after)


def _state_doubts(before: Mapping[str, object], after: Mapping[str, object]) -> list[str]:
    reasons = []
    busy, cores = before.get("busy_cores"), before.get("cores")
    if isinstance(busy, (int, float)) and isinstance(cores, int) and busy > _BUSY * cores:
        reasons.append(f"the device was busy before: {busy:.1f} of {cores} cores")
    heat = _count(after, "throttle_count") > _count(before, "throttle_count")
    met = _count(after, "throttled_bits") & ~_count(before, "throttled_bits")
    if heat or met & _SINCE_BOOT or throttled(before) or throttled(after):
        reasons.append("the processor throttled for heat or power")
    return reasons


def _count(state: Mapping[str, object], name: str) -> int:
    value = state.get(name)
    return value if isinstance(value, int) else 0


def _drifts(samples: Sequence[int]) -> bool:
    if not samples:
        return False
    third = max(len(samples) // 3, 1)
    first, last = median(samples[:third]), median(samples[-third:])
    return abs(last - first) > _DRIFT * first

"""The measurement: files and an open device flow in, device reports and raw samples flow out.

Single stream, batch 1: the next query starts when the last one ended; encoding and decoding are
outside the timer. Every session is a fresh process; sessions of different files alternate in random
order, so that a noisy minute hurts all files alike. Memory is measured in processes of its own.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from edgeres.devices import Device, run_runner
from edgeres.errors import unknown
from edgeres.measurement.statistics import PERCENTILE_METHOD, early_stopping, median_ci

if TYPE_CHECKING:
    import numpy as np

SESSIONS = 6  # the fewest whose range is a 95 % interval of their median
_STARTUP_S = 120.0
_DRIFT = 0.05
_SPREAD = 0.10
_BUSY = 0.75


@dataclass(frozen=True)
class Preset:
    """How long a session measures: until both minima are met, or the cap is reached."""

    min_queries: int
    min_seconds: float
    max_seconds: float
    max_warmup_seconds: float = 8.0


PRESETS = {
    "quick": Preset(64, 0.5, 10.0, max_warmup_seconds=2.0),
    "normal": Preset(128, 10.0, 60.0),
    "submission": Preset(1024, 60.0, 600.0),
}
"""MLPerf Mobile's presets, but for `quick`, which measures 0.5 s a session in place of 6 s."""


@dataclass(frozen=True)
class Candidate:
    """A file to measure.

    Attributes:
        inputs: encoded samples (N, ...) that latency and memory sessions cycle through.
        accuracy_inputs: encoded samples for accuracy, or None; labels (N,) belong to them.
        decode: raw outputs (N, C) -> float logits (N, C).
    """

    target: str
    path: Path
    sha256: str
    size_bytes: int
    inputs: np.ndarray
    accuracy_inputs: np.ndarray | None
    labels: np.ndarray | None
    decode: Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class _Pushed:
    """Where a candidate's files are on the device."""

    model: str
    inputs: str


def measure(
    candidates: Sequence[Candidate],
    device: Device,
    preset: str,
    *,
    threads: int = 1,
    seed: int = 0,
    on_event: Callable[[str], None] = lambda note: None,
) -> tuple[list[dict[str, Any]], dict[str, list[list[int]]]]:
    """Measure files on a device.

    Returns:
        A report per candidate (see docs/architecture.md), and target -> samples in ns per session.

    Raises:
        BadInput: an unknown preset.
        DeviceError: the device failed, or a file doesn't run there.
    """
    if preset not in PRESETS:
        raise unknown("preset", preset, PRESETS)
    before = device.probe()
    with tempfile.TemporaryDirectory() as folder:
        pushed = {c.target: _push(c, device, Path(folder)) for c in candidates}
        sessions = _sessions(candidates, pushed, device, PRESETS[preset], threads, seed, on_event)
        memory = {c.target: _memory(pushed[c.target], device, threads) for c in candidates}
        accuracy = {
            c.target: _accuracy(c, pushed[c.target], device, Path(folder), threads, on_event)
            for c in candidates
        }
    after = device.probe()
    reports = [
        _report(c, sessions[c.target], PRESETS[preset], before, after)
        | {"device": device.name, "preset": preset, "threads": threads,
           "memory": memory[c.target], "accuracy": accuracy[c.target]}
        for c in candidates
    ]  # fmt: skip
    return reports, {t: [e["samples"]["ns"] for e in found] for t, found in sessions.items()}


def _push(candidate: Candidate, device: Device, folder: Path) -> _Pushed:
    import numpy as np

    local = folder / f"{candidate.target}.npy"
    np.save(local, candidate.inputs, allow_pickle=False)
    return _Pushed(device.push(candidate.path), device.push(local))


def _sessions(
    candidates: Sequence[Candidate],
    pushed: Mapping[str, _Pushed],
    device: Device,
    preset: Preset,
    threads: int,
    seed: int,
    on_event: Callable[[str], None],
) -> dict[str, list[dict[str, dict[str, Any]]]]:
    """Fresh processes, the files in turn; the events of each session."""
    shuffle = random.Random(seed)
    found: dict[str, list[dict[str, dict[str, Any]]]] = {c.target: [] for c in candidates}
    for session in range(SESSIONS):
        for target in shuffle.sample(sorted(found), len(found)):
            on_event(f"{target} on {device.name}, session {session + 1} of {SESSIONS}")
            arguments = [
                *_arguments("latency", pushed[target], threads),
                "--min-queries", str(preset.min_queries), "--min-seconds", str(preset.min_seconds),
                "--max-seconds", str(preset.max_seconds),
                "--warmup-max-seconds", str(preset.max_warmup_seconds),
            ]  # fmt: skip
            found[target].append(run_runner(device, arguments, _STARTUP_S + preset.max_seconds))
    return found


def _memory(pushed: _Pushed, device: Device, threads: int) -> dict[str, Any]:
    arguments = _arguments("memory", pushed, threads)
    loaded = run_runner(device, arguments, _STARTUP_S)["memory"]
    baseline = run_runner(device, [*arguments, "--null"], _STARTUP_S)["memory"]
    return {
        "peak_rss_bytes": loaded["peak_rss_bytes"],
        "baseline_rss_bytes": baseline["peak_rss_bytes"],
        "definition": f"{loaded['definition']}; baseline: the same with the runtime, no model",
    }


def _accuracy(
    candidate: Candidate,
    pushed: _Pushed,
    device: Device,
    folder: Path,
    threads: int,
    on_event: Callable[[str], None],
) -> dict[str, int] | None:
    import numpy as np

    if candidate.accuracy_inputs is None or candidate.labels is None:
        return None
    on_event(f"{candidate.target} on {device.name}, accuracy")
    inputs, outputs = folder / "accuracy.npy", folder / "outputs.npy"
    np.save(inputs, candidate.accuracy_inputs, allow_pickle=False)
    remote = device.push(inputs)
    there = f"{remote}.outputs.npy"
    arguments = _arguments("accuracy", _Pushed(pushed.model, remote), threads)
    run_runner(device, [*arguments, "--outputs", there], _STARTUP_S + len(candidate.labels))
    device.pull(there, outputs)
    logits = candidate.decode(np.load(outputs, allow_pickle=False))
    correct = int((logits.argmax(1) == candidate.labels).sum())
    return {"correct": correct, "n": len(candidate.labels)}


def _arguments(mode: str, pushed: _Pushed, threads: int) -> list[str]:
    return ["--mode", mode, "--model", pushed.model, "--inputs", pushed.inputs,
            "--threads", str(threads)]  # fmt: skip


def _report(
    candidate: Candidate,
    sessions: Sequence[Mapping[str, Mapping[str, Any]]],
    preset: Preset,
    before: Mapping[str, Any],
    after: Mapping[str, Any],
) -> dict[str, Any]:
    each = [list(events["samples"]["ns"]) for events in sessions]
    pooled = [ns for samples in each for ns in samples]
    # Queries of one process resemble each other, sessions are independent: the interval is theirs.
    medians = [median(samples) for samples in each]
    reasons = _doubts(sessions, each, medians, preset, before, after)
    return {
        "target": candidate.target,
        "file_sha256": candidate.sha256,
        "size_bytes": candidate.size_bytes,
        "latency": {
            "n": len(pooled), "sessions": len(each), "median_ns": median(medians),
            "median_ci_ns": list(median_ci(medians)), "p90_ns": early_stopping(pooled, 0.9)[0],
            "min_ns": min(pooled), "max_ns": max(pooled), "session_medians_ns": medians,
            "percentile_method": PERCENTILE_METHOD,
        },
        "cold": {
            "load_ns": [events["loaded"]["load_ns"] for events in sessions],
            "first_ns": [events["first"]["first_ns"] for events in sessions],
        },
        "state_before": dict(before),
        "state_after": dict(after),
        "runtime": dict(sessions[0]["loaded"]["runtime"]),
        "valid": not reasons,
        "reasons": reasons,
        "emulated": bool(before["emulated"]),
        "measured_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }  # fmt: skip


def _doubts(
    sessions: Sequence[Mapping[str, Mapping[str, Any]]],
    each: Sequence[Sequence[int]],
    medians: Sequence[float],
    preset: Preset,
    before: Mapping[str, Any],
    after: Mapping[str, Any],
) -> list[str]:
    """Why a measurement shouldn't be trusted, in sentences."""
    reasons = []
    if before["emulated"]:
        reasons.append("the processor is emulated: its times mean nothing")
    fewest = min(map(len, each))
    if fewest < preset.min_queries:
        reasons.append(f"a session made {fewest} queries, {preset.min_queries} are needed")
    unsettled = sum(not events["warm"]["stable"] for events in sessions)
    if unsettled > len(each) // 2:
        reasons.append(f"the warm-up of {unsettled} of {len(each)} sessions didn't settle")
    drifting = sum(_drifts(samples) for samples in each)
    if drifting > len(each) // 2:
        reasons.append(f"latency drifted by over {_DRIFT:.0%} within {drifting} sessions")
    middle = median(medians)
    apart = sum(abs(m - middle) > _SPREAD * middle for m in medians)
    if apart > 1:  # the median of sessions bears one that was disturbed
        reasons.append(f"{apart} of {len(each)} session medians lie over {_SPREAD:.0%} apart")
    busy = before.get("busy_cores")
    if busy is not None and busy > _BUSY * before["cores"]:
        reasons.append(f"the device was busy before: {busy:.1f} of {before['cores']} cores")
    if (after.get("throttle_count") or 0) > (before.get("throttle_count") or 0):
        reasons.append("the processor throttled for heat")
    return reasons


def _drifts(samples: Sequence[int]) -> bool:
    third = max(len(samples) // 3, 1)
    first, last = median(samples[:third]), median(samples[-third:])
    return abs(last - first) > _DRIFT * first

"""The measurement: files and an open device flow in, device reports and raw samples flow out.

Single stream, batch 1: the next query starts when the last one ended; encoding and decoding are
outside the timer. Every session is a fresh process; sessions of different files alternate in random
order, so that a noisy minute hurts all files alike. Memory and energy are measured in processes of
their own. A file that fails, or a device that goes away, keeps what was measured until then.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from edgeres import scratch, targets
from edgeres.devices import Device
from edgeres.errors import DeviceError, unknown
from edgeres.measurement import runners, verdict
from edgeres.measurement.runners import Loaded, Preset, Session, Work

if TYPE_CHECKING:
    import numpy as np

    from edgeres.records import Answered, Aside, Report
    from edgeres.types import TensorSpec

_COOL_DOWN_S, _COOL_DOWNS = 90.0, 2  # androidx.benchmark's

PRESETS = {
    "quick": Preset(64, 0.5, 10.0, max_warmup_seconds=2.0),
    "normal": Preset(128, 10.0, 60.0),
    "submission": Preset(1024, 60.0, 600.0),
    "sustained": Preset(1024, 600.0, 600.0, sessions=1),
}
"""MLPerf Mobile's presets, but for `quick`, which measures 0.5 s a session in place of 6 s, and
`sustained`, ten minutes without a pause: what heat does to a device."""


@dataclass(frozen=True)
class Candidate:
    """A file to measure.

    Attributes:
        inputs: encoded samples (N, ...) that latency and memory sessions cycle through.
        accuracy_inputs: encoded samples for accuracy, or None.
        judge: raw outputs (N, C) of the accuracy inputs -> what they say, JSON-ready.
    """

    target: str
    path: Path
    sha256: str
    size_bytes: int
    input: TensorSpec
    output: TensorSpec
    inputs: np.ndarray
    accuracy_inputs: np.ndarray | None = None
    judge: Callable[[np.ndarray], Answered] | None = None


@dataclass
class Measured:
    """What came of one device.

    Attributes:
        reports: one per file (docs/results.md).
        samples: target -> samples in ns, per session.
        failures: what went wrong, one sentence each.
    """

    reports: list[Report] = field(default_factory=list)
    samples: dict[str, list[list[int]]] = field(default_factory=dict)
    failures: list[dict[str, str]] = field(default_factory=list)


def _nothing() -> Aside:
    return {"memory": None, "energy": None, "accuracy": None}


@dataclass
class _File:
    """A candidate on the device, and what it has yielded so far."""

    candidate: Candidate
    loaded: Loaded
    sessions: list[Session] = field(default_factory=list)
    more: Aside = field(default_factory=_nothing)
    failure: str | None = None

    def measure_once(self, preset: Preset) -> None:
        """One more session."""
        self.sessions.append(self.loaded.session(preset))


def measure(
    candidates: Sequence[Candidate],
    device: Device,
    preset: str,
    *,
    threads: int = 1,
    seed: int = 0,
    on_event: Callable[[str], None] = lambda note: None,
) -> Measured:
    """Measure files on a device.

    Raises:
        BadInput: an unknown preset.
        DeviceError: nothing at all could be measured.
    """
    if preset not in PRESETS:
        raise unknown("preset", preset, PRESETS)
    how, found = PRESETS[preset], Measured()
    with scratch.folder("measure") as folder, device.steady() as settings:
        before = _cool(device, on_event)
        files = [f for c in candidates if (f := _load(c, device, folder, threads, found))]
        _sessions(files, device, how, seed, on_event)
        for file in files:
            _aside(file, device, how, on_event)
        after = _state(device, before)
    for file in files:
        if file.failure:
            found.failures.append(_failure(device, file.candidate.target, file.failure))
        if file.sessions:
            judged = verdict.report(file.candidate, file.sessions, how, before, after, file.failure)
            found.reports.append({
                **judged, "device": device.name, "preset": preset, "threads": threads,
                "settings": settings, **file.more,
            })  # fmt: skip
            samples = [list(s.samples_ns) for s in file.sessions]
            found.samples[file.candidate.target] = samples
    if not found.reports and found.failures:
        raise DeviceError(found.failures[0]["message"])
    return found


def _load(
    candidate: Candidate, device: Device, folder: Path, threads: int, found: Measured
) -> _File | None:
    runner = runners.of(device.profile, candidate.path)
    if runner is None:
        return None
    scratch = folder / candidate.target
    scratch.mkdir()
    work = Work(_whole(candidate.path, scratch), candidate.inputs, candidate.input,
                candidate.output, threads, scratch)  # fmt: skip
    try:
        return _File(candidate, runner.load(device, work))
    except DeviceError as error:
        found.failures.append(_failure(device, candidate.target, str(error)))
        return None


def _whole(path: Path, scratch: Path) -> Path:
    """The file with what it keeps beside itself, which a device doesn't have."""
    _, target = targets.of_file(path)
    (folder := scratch / "whole").mkdir()
    found: Path = target.whole(path, folder) if hasattr(target, "whole") else path
    return found


def _sessions(
    files: Sequence[_File],
    device: Device,
    preset: Preset,
    seed: int,
    on_event: Callable[[str], None],
) -> None:
    """Fresh processes, the files in turn."""
    shuffle = random.Random(seed)
    for session in range(preset.sessions):
        for file in shuffle.sample(files, len(files)):
            if file.failure is None:
                target = file.candidate.target
                on_event(f"{target} on {device.name}, session {session + 1} of {preset.sessions}")
                _guarded(file, file.measure_once, preset)


def _aside(file: _File, device: Device, preset: Preset, on_event: Callable[[str], None]) -> None:
    """What isn't latency: memory, energy, accuracy."""
    name = f"{file.candidate.target} on {device.name}"

    def energy() -> None:
        meter = device.meter()
        if meter is not None:
            on_event(f"{name}, energy")
            with meter:
                session = file.loaded.session(preset)
            file.more["energy"] = verdict.energy(session, meter.watts())

    def memory() -> None:
        file.more["memory"] = file.loaded.memory()

    def accuracy() -> None:
        inputs, judge = file.candidate.accuracy_inputs, file.candidate.judge
        if inputs is not None and judge is not None:
            on_event(f"{name}, accuracy")
            outputs = file.loaded.outputs(inputs)
            file.more["accuracy"] = None if outputs is None else judge(outputs)

    for part in (memory, energy, accuracy):
        if file.failure is None:
            _guarded(file, part)


def _guarded(file: _File, work: Callable[..., None], *arguments: object) -> None:
    """A failure ends this file's measurement, not that of the others."""
    try:
        work(*arguments)
    except DeviceError as error:
        file.failure = str(error)


def _failure(device: Device, target: str, message: str) -> dict[str, str]:
    return {"device": device.name, "target": target, "message": message}


def _cool(device: Device, on_event: Callable[[str], None]) -> Mapping[str, object]:
    """The device's state once it isn't throttled, or after the waiting that is worth it."""
    state = device.probe()
    for _ in range(_COOL_DOWNS):
        if not verdict.throttled(state):
            break
        on_event(f"{device.name} is hot; waiting {_COOL_DOWN_S:.0f} s")
        time.sleep(_COOL_DOWN_S)
        state = device.probe()
    return state


def _state(device: Device, before: Mapping[str, object]) -> Mapping[str, object]:
    """The state afterwards; a device that is gone has none."""
    try:
        return device.probe()
    except DeviceError:
        return dict.fromkeys(before)

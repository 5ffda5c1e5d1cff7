"""Measured layers: the shapes of a network and a device flow in, a `LatencyTable` comes out.

Each layer is a file of its own, run by the benchmark's own runner in fresh processes. What was
measured is kept in a cache folder, by the device's identity (machine and runtime versions), the
target, the threads and the file's contents: the next budget measures only what is new.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from filelock import FileLock

from edgeres import devices, runtimes, scratch, targets
from edgeres.devices import Device, DeviceProfile
from edgeres.disk import cache_folder, file_sha256, storage_errors, write_whole
from edgeres.errors import BadInput, DeviceError, MissingComponent
from edgeres.measurement import farm, runners
from edgeres.measurement.protocol import Candidate
from edgeres.measurement.runners import Preset, Work
from edgeres.models.latency import Family, LatencyTable, family, grid
from edgeres.models.shapes import LayerShape
from edgeres.runtimes._asking import ask

if TYPE_CHECKING:
    from edgeres.records import Estimate, Medians
    from edgeres.types import TensorSpec

PRESET = Preset(200, 0.1, 3.0, max_warmup_seconds=0.3, sessions=2)
"""How long one layer is measured; the fastest session counts, as other work only slows one down."""

_INPUTS = 2
_EMPTY = LayerShape("", "conv", 8, 8)  # 64 multiplications: all that its file takes is overhead


def build(
    shapes: Iterable[LayerShape],
    target: str,
    profile: DeviceProfile,
    *,
    round_to: int,
    cache: Path | None = None,
    on_event: Callable[[str], None] = lambda note: None,
) -> LatencyTable:
    """Measure what the table lacks.

    Args:
        shapes: of the widest network; slimmer ones are then predicted.
        cache: folder of what was measured before; the user's if None.

    Raises:
        BadInput: the device is emulated, or there are no single-layer files for this target.
        DeviceError: the device can't run them.
    """
    require_real(profile)
    write, suffix = _writer(target)
    wanted = grid(shapes, round_to)
    with scratch.folder("measure") as folder, contextlib.ExitStack() as stack:
        measure, identity = _stopwatch(profile, target, stack, on_event)
        store = _Store(cache or cache_folder() / "latency", identity, target, profile)
        times: dict[LayerShape, float] = {}
        for number, shape in enumerate([_EMPTY, *wanted]):
            path = folder / f"layer-{number}{suffix}"
            first, last = write(shape, path)
            key = file_sha256(path)
            known = store.times.get(key)
            if known is None:
                on_event(f"layer {number} of {len(wanted)} on {profile.name}")
                known = measure(path, first, last)
                store.add(key, known)
            times[shape] = known
    overhead = times.pop(_EMPTY)
    points: dict[Family, dict[tuple[int, int], float]] = {}
    for shape in wanted:
        column = points.setdefault(family(shape), {})
        column[shape.cin, shape.cout] = max(times[shape] - overhead, 0.0)
    return LatencyTable(profile.name, target, overhead, points)


def _stopwatch(
    profile: DeviceProfile,
    target: str,
    stack: contextlib.ExitStack,
    on_event: Callable[[str], None],
) -> tuple[Callable[[Path, TensorSpec, TensorSpec], float], str]:
    """What takes a layer's time (file, input, output -> ns) until the stack ends, and whose."""
    if profile.kind == devices.ESTIMATE:
        return (
            lambda path, *_: float(_estimated(profile.name, target, path)["median_ns"]),
            runtimes.identity(profile.name).replace(" ", "-"),
        )
    device = stack.enter_context(devices.open_device(profile))
    stack.enter_context(farm.reserved(device.address, on_event))
    stack.enter_context(device.steady())

    def measure(path: Path, first: TensorSpec, last: TensorSpec) -> float:
        own = path.with_suffix("")
        own.mkdir()
        return _measured(device, path, first, last, profile.threads, own)

    return measure, device.identity()


def _estimated(name: str, target: str, path: Path) -> Estimate:
    """What a runtime estimates, like the latency of a report; the same each time.

    Raises:
        BadInput: it doesn't take such files.
        DeviceError: it gives no estimate of this one, or leaves operators to another processor.
    """
    takes = runtimes.load(name).TAKES
    if target not in takes:
        raise BadInput(f"device '{name}' is an estimate for {', '.join(takes)}, not {target}")
    with scratch.folder("estimate") as folder:
        (answer,) = ask(name, [(path, None)], folder)
    if answer.refused:
        raise DeviceError(f"device '{name}' estimates only what it computes itself; not taken: "
                          f"{answer.refused[0]}")  # fmt: skip
    if not answer.latency_ns:
        raise DeviceError(f"device '{name}': {answer.error or 'no estimate'}")
    ns = float(answer.latency_ns)
    return {"median_ns": ns, "median_ci_ns": [ns, ns], "n": 1, "session_medians_ns": [ns],
            "estimated_by": answer.version}  # fmt: skip


def require_real(profile: DeviceProfile) -> None:
    """Refuse a device whose times mean nothing.

    Raises:
        BadInput: it is emulated.
    """
    if profile.emulated:
        raise BadInput(f"device '{profile.name}' is emulated, so its times mean nothing; measure "
                       f"latency on a real device")  # fmt: skip


def whole_files(
    candidates: Sequence[Candidate], profile: DeviceProfile, target: str, preset: str,
    on_event: Callable[[str], None] = lambda note: None,
) -> Mapping[str, Medians]:  # fmt: skip
    """The latency of exported files, run in turn: name -> the `latency` part of its report.

    Raises:
        DeviceError: one of them could not be measured.
    """
    if profile.kind == devices.ESTIMATE:
        return {c.target: _estimated(profile.name, target, c.path) for c in candidates}
    (found,) = farm.measure(candidates, [profile], preset, on_event=on_event)
    if found.failures or not found.reports:
        why = found.failures[0]["message"] if found.failures else "nothing there runs such files"
        raise DeviceError(f"device '{profile.name}': {why}")
    return {r["target"]: latency for r in found.reports if (latency := r["latency"])}


def _writer(target: str) -> tuple[Callable[[LayerShape, Path], tuple[TensorSpec, TensorSpec]], str]:
    module, precision = targets.load(target)
    write = getattr(module, "layer_file", None)
    if write is None or precision != "int8":
        raise BadInput(f"prune.target: there are no single-layer files for {target}; "
                       f"use tflite-int8 or onnx-int8")  # fmt: skip
    return write, module.SUFFIX


def _measured(
    device: Device, path: Path, first: TensorSpec, last: TensorSpec, threads: int, own: Path
) -> float:
    import numpy as np

    runner = runners.of(device.profile, path)
    if runner is None:
        raise DeviceError(f"device '{device.name}': none of its runners takes {path.suffix} files")
    rng = np.random.default_rng(0)
    limits = np.iinfo(first.dtype)
    inputs = rng.integers(limits.min, limits.max + 1, (_INPUTS, *first.shape[1:]))
    work = Work(path, inputs.astype(first.dtype), first, last, threads, own)
    loaded = runner.load(device, work)
    return min(_median(loaded.session(PRESET)) for _ in range(PRESET.sessions))


def _median(session: runners.Session) -> float:
    found = median(session.samples_ns) if session.samples_ns else session.median_ns
    if found is None:
        raise MissingComponent("the runner gives no median latency; choose another one")
    return float(found)


class _Store:
    """File hash -> nanoseconds, on disk; written after each layer, so an interruption costs one."""

    def __init__(self, folder: Path, identity: str, target: str, profile: DeviceProfile):
        known = json.dumps(devices.measured_with(profile), sort_keys=True)
        setup = hashlib.sha256(known.encode()).hexdigest()[:12]
        self.path = folder / f"{identity}-{target}-{profile.threads}-{setup}.json"
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self.times: dict[str, float] = self._read()

    def add(self, key: str, nanoseconds: float) -> None:
        with storage_errors(self.path), FileLock(f"{self.path}.lock"):
            self.times = {**self._read(), **self.times, key: nanoseconds}
            write_whole(self.path, json.dumps({"schema": 1, "ns": self.times}, indent=1))

    def _read(self) -> dict[str, float]:
        try:
            document = json.loads(self.path.read_text("utf-8"))
            return {str(k): float(v) for k, v in document["ns"].items() if float(v) > 0}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}  # not there, or damaged: measured anew

"""Runs .onnx files with NVIDIA's trtexec on a device with TensorRT (a Jetson, a GPU).

TensorRT 10 and 11 have opposite defaults for copies, CUDA graphs and waiting; all are set, so that
both measure the same: copies to and from the GPU included, CUDA graph, no sleep while waiting. The
program's path is `trtexec` in the profile's tools; NVIDIA's place for it is tried otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING

from edgeres.devices import Device
from edgeres.errors import DeviceError
from edgeres.measurement import _trtexec
from edgeres.measurement.runners import STARTUP_S, Preset, Session, Work, _engine
from edgeres.measurement.runners._engine import LARGEST_JSON, SHORT_S, Engine

if TYPE_CHECKING:
    import numpy as np

SUFFIXES = (".trt.onnx", ".onnx")
_WARM_UP = 0.25  # of the longest that is allowed: trtexec doesn't watch whether it settles
_AT_ONCE, _OUTPUT_S = 64, 10.0  # samples that one command on the device computes, seconds for each
# What is a flag of one generation is the other's default.
_MEASURE = {10: ("--useCudaGraph", "--useSpinWait"), 11: ("--includeDataTransfers",)}
_EACH = """
data=$1 bytes=$2 count=$3 name=$4; shift 4
rm -rf "$data.work"; mkdir "$data.work" || exit 1
i=0
while [ "$i" -lt "$count" ]; do
  dd if="$data" of="$data.work/in" bs="$bytes" skip="$i" count=1 2>/dev/null
  "$@" "--loadInputs='$name':$data.work/in" "--exportOutput=$data.work/out" \
    >"$data.work/log" 2>&1 || { cat "$data.work/log"; exit 1; }
  cat "$data.work/out" && rm "$data.work/out" || exit 1
  i=$((i + 1))
done
rm -rf "$data.work"
"""


def missing(device: Device, state: Mapping[str, object]) -> list[str]:
    """trtexec, if it isn't there."""
    try:
        _engine.version(device)
    except DeviceError as error:
        return [str(error)]
    return []


def load(device: Device, work: Work) -> _Loaded:
    """Find the file's engine on the device, or build it there.

    Raises:
        DeviceError: trtexec isn't there, or TensorRT builds no engine of the file.
    """
    engine = _engine.prepare(device, work)
    newer = _engine.major(engine.version) >= 11
    return _Loaded(device, work, engine, _MEASURE[11 if newer else 10])


@dataclass(frozen=True)
class _Loaded:
    device: Device
    work: Work
    engine: Engine
    pinned: tuple[str, ...]

    def session(self, preset: Preset) -> Session:
        warm_up_ms = int(preset.max_warmup_seconds * 1000 * _WARM_UP)
        there = self._pushed(self.work.inputs[:1])
        log = self.engine.run(
            STARTUP_S + preset.max_seconds, f"--loadInputs='{self.work.input.name}':{there}",
            f"--warmUp={warm_up_ms}", f"--duration={math.ceil(preset.min_seconds)}",
            f"--iterations={preset.min_queries}", "--percentile=90,95,99",
            f"--exportTimes={there}.times.json", *self.pinned,
        )  # fmt: skip
        times = self._times(f"{there}.times.json", warm_up_ms)
        summary = _trtexec.summary(log)
        computes = [compute for _, compute in times if compute is not None]
        compute = median(computes) if computes else summary and summary.compute_median_ns
        seconds = _trtexec.load_seconds(log)
        found = Session(
            runtime={
                "name": "TensorRT", "version": self.engine.version, "tool": "trtexec",
                "accelerator": _trtexec.gpu(log) or "gpu", "gpu_compute_median_ns": compute,
            },
            samples_ns=tuple(latency for latency, _ in times),
            load_ns=None if seconds is None else round(seconds * 1e9),
            notes=self.engine.notes() + [f"trtexec: {said}" for said in _trtexec.warnings(log)],
            unsteady=self.engine.doubts(), build=self.engine.build,
        )  # fmt: skip
        if times:
            return found
        if summary is None:
            raise DeviceError(f"device '{self.device.name}': trtexec gave no times")
        return replace(found, n=summary.n, median_ns=summary.median_ns, p90_ns=summary.p90_ns,
                       p95_ns=summary.p95_ns, p99_ns=summary.p99_ns, min_ns=summary.min_ns,
                       max_ns=summary.max_ns)  # fmt: skip

    def memory(self) -> None:
        """On a Jetson the GPU shares the board's memory: no process has a peak of its own."""

    def outputs(self, inputs: np.ndarray) -> np.ndarray:
        """A process per sample: trtexec loads one input, and answers with six digits."""
        import numpy as np

        parts = (inputs[i : i + _AT_ONCE] for i in range(0, len(inputs), _AT_ONCE))
        rows = [row for part in parts for row in self._computed(part)]
        try:
            return np.asarray(rows).astype(self.work.output.dtype)
        except (ValueError, OverflowError) as error:
            raise DeviceError(f"device '{self.device.name}': trtexec's outputs differ in size") \
                from error  # fmt: skip

    def _computed(self, inputs: np.ndarray) -> list[list[float]]:
        once = ("--warmUp=0", "--duration=0", "--iterations=1", *self.pinned)
        argv = [
            "sh", "-c", _EACH, "sh", self._pushed(inputs), str(inputs[:1].nbytes), str(len(inputs)),
            self.work.input.name, self.engine.tool, f"--loadEngine={self.engine.path}",
            *self.engine.shapes, *once,
        ]  # fmt: skip
        timeout_s = STARTUP_S + _OUTPUT_S * len(inputs)
        done = self.device.run(argv, _engine.patience(self.device, timeout_s))
        try:
            rows = _trtexec.outputs(done.stdout, self.work.output.name)
        except (ValueError, RecursionError):
            rows = []
        if done.returncode != 0 or len(rows) != len(inputs):
            raise self.engine.failed(done)
        return rows

    def _times(self, there: str, warm_up_ms: int) -> list[tuple[int, int | None]]:
        """The queries that trtexec wrote down; none if it didn't."""
        here = self.work.folder / "times.json"
        try:
            self.device.pull(there, here)
        except DeviceError:
            return []
        self.device.run(["rm", "-f", there], SHORT_S)  # or it may pass for the next session's
        with here.open("rb") as file:
            text = file.read(LARGEST_JSON).decode("utf-8", "replace")
        listed = _engine.major(self.engine.version) < 10  # the warm-up is among them
        return _trtexec.times(text, warm_up_ms if listed else 0)

    def _pushed(self, inputs: np.ndarray) -> str:
        local = self.work.folder / "inputs.bin"
        local.write_bytes(inputs.tobytes())
        return self.device.push(local)

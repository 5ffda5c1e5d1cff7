"""Runs .tflite files with a native `benchmark_model`, TFLite's or LiteRT's, on a phone or a board.

The profile's `tools` name the program: `benchmark_model: PATH` is a file here that is pushed,
`benchmark_model: device:PATH` one that is there. Latency is measured on random inputs, which the
program makes itself. Only TFLite's program gives outputs: one process per sample, in a loop there.
"""

from __future__ import annotations

import itertools
import math
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from edgeres.devices import Completed, Device
from edgeres.disk import file_sha256
from edgeres.errors import DeviceError
from edgeres.measurement.runners import STARTUP_S, Preset, Session, Work
from edgeres.measurement.runners import _benchmark_model_output as output

if TYPE_CHECKING:
    import numpy as np

    from edgeres.records import Memory

SUFFIXES = (".tflite",)
TOOL = "benchmark_model"
_WHERE = "docs/devices.md says where to get it"
_WARM_UP = ("--warmup_runs=30", "--warmup_min_secs=0.25")  # androidx.benchmark's
_MEMORY_RUNS = 10
_AT_ONCE = 32  # samples per call, so that a hung one is noticed
_SAMPLE_S = 5.0
# XNNPACK is asked for by name: a build without it by default would measure other kernels.
_FLAGS = {
    output.CLASSIC: {
        "cpu": ("--use_xnnpack=true",),
        "gpu": ("--use_gpu=true",),
        "nnapi": ("--use_nnapi=true", "--disable_nnapi_cpu=true"),
    },
    output.LITERT: {
        "cpu": ("--use_cpu=true",),
        "gpu": ("--use_cpu=false", "--use_gpu=true"),
        "npu": ("--use_cpu=false", "--use_npu=true"),
    },
}
# $1 tool, $2 model, $3 samples, $4 bytes each, $5 the first, $6 behind the last, then flags
_LOOP = """\
tool=$1 model=$2 all=$3 size=$4 i=$5 end=$6
shift 6
[ "$i" = 0 ] && : >"$all.outputs"
while [ "$i" -lt "$end" ]; do
  rm -f "$all.out"
  dd if="$all" of="$all.in" bs="$size" skip="$i" count=1 2>"$all.log" || break
  "$tool" --graph="$model" --input_layer=x --input_layer_value_files="x:$all.in" \
    --output_filepath="$all.out" --num_runs=1 --warmup_runs=0 --warmup_min_secs=0 --min_secs=0 \
    "$@" >"$all.log" 2>&1 && cat "$all.out" >>"$all.outputs" 2>>"$all.log" || break
  i=$((i + 1))
done
[ "$i" = "$end" ] || { tail -n 20 "$all.log" >&2; exit 1; }
"""


def load(device: Device, work: Work) -> _Loaded:
    """Bring the program and the file to the device.

    Raises:
        DeviceError: the program is missing, or is another one; or it can't use the accelerator.
    """
    tool, digest = _tool(device)
    done = device.run([tool, "--help"], STARTUP_S * _slowness(device))
    text = f"{done.stdout}\n{done.stderr}"
    kind = output.kind(text)
    if kind is None:
        raise DeviceError(
            f"device '{device.name}': {device.profile.tools[TOOL]} can't be used as {TOOL} there: "
            f"{_last_words(done)}; it must be built for the device's processor, {_WHERE}"
        )
    asked = device.profile.accelerator
    if asked not in _FLAGS[kind]:
        raise DeviceError(f"device '{device.name}': the {TOOL} of {kind} knows no accelerator "
                          f"'{asked}', only {', '.join(_FLAGS[kind])}")  # fmt: skip
    gives = all(f"--{flag}=" in text for flag in ("output_filepath", "input_layer_value_files"))
    return _Loaded(device, work, tool, digest, device.push(work.path), kind, gives)


def missing(device: Device, state: Mapping[str, object]) -> list[str]:
    """The program itself, if it isn't there."""
    try:
        _tool(device)
    except DeviceError as error:
        return [str(error)]
    return []


def _tool(device: Device) -> tuple[str, str]:
    """The program's path on the device, and what identifies it."""
    path = device.profile.tools.get(TOOL)
    if not path:
        raise DeviceError(f"device '{device.name}': its profile names no {TOOL}; add "
                          f"'tools: {{{TOOL}: PATH}}' to it, {_WHERE}")  # fmt: skip
    if path.startswith("device:"):
        there = path.removeprefix("device:")
        said = device.run(["sha256sum", there], STARTUP_S).stdout.split()
        return there, said[0] if said else "unknown"
    found = path if Path(path).is_file() else shutil.which(path)
    if found is None:
        raise DeviceError(f"device '{device.name}': there is no {TOOL} at '{path}'; {_WHERE}")
    return device.push(Path(found)), file_sha256(Path(found))


@dataclass(frozen=True)
class _Loaded:
    device: Device
    work: Work
    tool: str
    digest: str
    model: str
    kind: str
    gives_outputs: bool
    _count: Iterator[int] = field(default_factory=itertools.count)

    def session(self, preset: Preset) -> Session:
        text, found = self._measured(
            2 * preset.max_seconds,  # the warm-up has the same cap
            f"--num_runs={preset.min_queries}", f"--min_secs={preset.min_seconds:g}",
            f"--max_secs={preset.max_seconds:g}", *_WARM_UP,
        )  # fmt: skip
        doubts = []
        if "median_ns" not in found:
            doubts.append(f"this build of {TOOL} tells no median: its mean stands in for it")
        asked = self.device.profile.accelerator
        actual, doubt = output.computed_by(text, asked)
        doubts += [doubt] if doubt else []
        return Session(
            runtime={
                "name": f"{self.kind} {TOOL}", "version": self.digest[:12], "tool": TOOL,
                "accelerator": actual, "requested": asked,
            },
            n=found["n"], median_ns=found.get("median_ns", found.get("avg_ns")),
            min_ns=found.get("min_ns"), max_ns=found.get("max_ns"),
            load_ns=found.get("load_ns"), first_ns=found.get("first_ns"),
            notes=["random inputs, run from a shell"], unsteady=doubts,
        )  # fmt: skip

    def memory(self) -> Memory | None:
        _, found = self._measured(
            0.0, f"--num_runs={_MEMORY_RUNS}", "--warmup_runs=1", "--warmup_min_secs=0",
            "--min_secs=0", "--report_peak_memory_footprint=true",
            "--memory_footprint_check_interval_ms=5",
        )  # fmt: skip
        peak, overall = found.get("peak_bytes"), found.get("overall_bytes")
        if peak is None or overall is None:
            return None
        return {
            "peak_rss_bytes": peak,
            "baseline_rss_bytes": max(peak - overall, 0),
            "definition": f"{TOOL}'s peak by periodic checks; baseline: the peak less the growth "
            "since its start",
        }

    def outputs(self, inputs: np.ndarray) -> np.ndarray | None:
        import numpy as np

        if not self.gives_outputs:
            return None
        here = self.work.folder / "samples.bin"
        np.ascontiguousarray(inputs).tofile(here)
        there, shape = self.device.push(here), ",".join(map(str, (1, *inputs.shape[1:])))
        for first in range(0, len(inputs), _AT_ONCE):
            last = min(first + _AT_ONCE, len(inputs))
            self._run(
                _SAMPLE_S * _AT_ONCE, "sh", "-c", _LOOP, "sh", self.tool, self.model, there,
                str(inputs[0].nbytes), str(first), str(last), f"--input_layer_shape={shape}",
                *self._flags(),
            )  # fmt: skip
        self.device.pull(f"{there}.outputs", here)
        dtype, sizes = np.dtype(self.work.output.dtype), self.work.output.shape[1:]
        expected, got = len(inputs) * math.prod(sizes) * dtype.itemsize, here.stat().st_size
        if got != expected:
            raise DeviceError(f"device '{self.device.name}': {TOOL} gave {got} bytes of outputs "
                              f"where the file's shape makes {expected}")  # fmt: skip
        return np.fromfile(here, dtype).reshape(len(inputs), *sizes)

    def _measured(self, seconds: float, *flags: str) -> tuple[str, dict[str, int]]:
        """One fresh process: its text and its figures.

        Raises:
            DeviceError: it failed, or said nothing that can be used.
        """
        result = f"{self.model}.{next(self._count)}.pb"
        done = self._run(
            seconds, self.tool, f"--graph={self.model}", f"--result_file_path={result}",
            *self._flags(), *flags,
        )  # fmt: skip
        here = self.work.folder / "result.pb"
        try:
            self.device.pull(result, here)
            proto = here.read_bytes()
        except DeviceError:  # an older build has no such file, only its text
            proto = b""
        text = f"{done.stdout}\n{done.stderr}"
        found = output.figures(text, proto)
        if not found.get("n") or not ({"avg_ns", "median_ns"} & set(found)):
            raise DeviceError(f"device '{self.device.name}': {TOOL} gave no result: "
                              f"{_last_words(done)}")  # fmt: skip
        return text, found

    def _flags(self) -> tuple[str, ...]:
        accelerator = _FLAGS[self.kind][self.device.profile.accelerator]
        return f"--num_threads={self.work.threads}", *accelerator

    def _run(self, seconds: float, *argv: str) -> Completed:
        done = self.device.run(argv, (STARTUP_S + seconds) * _slowness(self.device))
        if done.returncode != 0:
            raise DeviceError(f"device '{self.device.name}': {TOOL} failed: {_last_words(done)}")
        return done


def _slowness(device: Device) -> int:
    return 20 if device.profile.emulated else 1


def _last_words(done: Completed) -> str:
    """How a program ended, and the tail of its log."""
    how = f"exit status {done.returncode}"
    if done.returncode < 0:
        how = f"signal {-done.returncode}"
    lines = [" ".join(line.split()) for line in (done.stderr.strip() or done.stdout).splitlines()]
    said = "; ".join(line for line in lines[-3:] if line)[-300:]
    return f"{how}, it last said: {said}" if said else f"{how}, it said nothing"

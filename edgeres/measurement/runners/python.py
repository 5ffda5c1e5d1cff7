"""Runs .tflite and .onnx files with the Python of a device (`edgeres/devices/_runner.py`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from edgeres.devices import Device, run_runner
from edgeres.measurement.runners import STARTUP_S, Preset, Session, Work

if TYPE_CHECKING:
    import numpy as np

    from edgeres.records import Memory

SUFFIXES = (".tflite", ".onnx")
_PROVIDERS = {"cpu": "CPUExecutionProvider"}


_PACKAGES = {".tflite": ("ai-edge-litert", "tflite-runtime", "tensorflow"),
             ".onnx": ("onnxruntime", "onnxruntime-gpu")}  # fmt: skip
_CUT = (
    "its CPU has no VNNI, and onnxruntime refuses the kernels that add up exactly there for this "
    "file, as weights of it share a zero point: large sums are cut, and answers may be others than "
    "elsewhere; exported anew by edgeres, each weight has its own"
)


def missing(device: Device, state: Mapping[str, object]) -> list[str]:
    """Runtimes that its Python lacks, with the command that installs them."""
    there = state.get("runtimes")
    names = set(there) if isinstance(there, Iterable) else set()
    return [
        f"no runtime for {suffix} files: {' '.join(device.python())} -m pip install {packages[0]}"
        for suffix, packages in _PACKAGES.items() if not set(packages) & names
    ]  # fmt: skip


def load(device: Device, work: Work) -> _Loaded:
    """Push the file and its inputs.

    Raises:
        DeviceError: they don't get there.
    """
    return _Loaded(device, work, device.push(work.path), _pushed(device, work, work.inputs))


@dataclass(frozen=True)
class _Loaded:
    device: Device
    work: Work
    model: str
    inputs: str

    def session(self, preset: Preset) -> Session:
        events = self._run(
            "latency", STARTUP_S + preset.max_seconds,
            "--min-queries", str(preset.min_queries), "--min-seconds", str(preset.min_seconds),
            "--max-seconds", str(preset.max_seconds),
            "--warmup-max-seconds", str(preset.max_warmup_seconds),
        )  # fmt: skip
        runtime = events["loaded"]["runtime"]
        return Session(
            runtime=runtime, notes=[_CUT] if runtime.get("cuts_sums") else [],
            samples_ns=events["samples"]["ns"],
            load_ns=events["loaded"]["load_ns"], first_ns=events["first"]["first_ns"],
            settled=events["warm"]["stable"],
        )  # fmt: skip

    def memory(self) -> Memory:
        loaded = self._run("memory", STARTUP_S)["memory"]
        baseline = self._run("memory", STARTUP_S, "--null")["memory"]
        return {
            "peak_rss_bytes": loaded["peak_rss_bytes"],
            "baseline_rss_bytes": baseline["peak_rss_bytes"],
            "definition": f"{loaded['definition']}; baseline: the same with the runtime, no model",
        }

    def outputs(self, inputs: np.ndarray) -> np.ndarray:
        import numpy as np

        remote = _pushed(self.device, self.work, inputs)
        there, here = f"{remote}.outputs.npy", self.work.folder / "outputs.npy"
        other = replace(self, inputs=remote)
        other._run("accuracy", STARTUP_S + len(inputs), "--outputs", there)
        self.device.pull(there, here)
        return np.asarray(np.load(here, allow_pickle=False))

    def _run(self, mode: str, timeout_s: float, *more: str) -> dict[str, dict[str, Any]]:
        asked = self.device.profile.accelerator
        return run_runner(
            self.device,
            ["--mode", mode, "--model", self.model, "--inputs", self.inputs,
             "--threads", str(self.work.threads), "--provider", _PROVIDERS.get(asked, asked),
             *more],
            timeout_s * (20 if self.device.profile.emulated else 1),
        )  # fmt: skip


def _pushed(device: Device, work: Work, inputs: np.ndarray) -> str:
    import numpy as np

    local = work.folder / "inputs.npy"
    np.save(local, inputs, allow_pickle=False)
    return device.push(local)

"""Runs .mlpackage files on a Mac, or on an iPhone attached to it, by coremltools' benchmarker.

A session loads the model anew, in this process on a Mac and in coremltools' own app on a phone.
Times are taken beside the model; the figures aren't comparable with an app in the foreground.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgeres.devices import Device
from edgeres.errors import DeviceError
from edgeres.measurement.runners import Preset, Session, Work
from edgeres.quiet import quiet

if TYPE_CHECKING:
    import numpy as np

SUFFIXES = (".mlpackage",)
_UNITS = {"cpu": "CPU_ONLY", "gpu": "CPU_AND_GPU", "ane": "CPU_AND_NE", "all": "ALL"}


def missing(device: Device, state: Mapping[str, object]) -> list[str]:
    """Nothing that isn't said on connecting: Xcode and coremltools come before a device."""
    return []


def load(device: Device, work: Work) -> _Loaded:
    """Load the package with the compute units that the profile's accelerator names.

    Raises:
        DeviceError: the device isn't one of Apple's, or its accelerator is unknown.
    """
    asked = device.profile.accelerator
    if not hasattr(device, "remote") or asked not in _UNITS:
        raise DeviceError(f"device '{device.name}': the coreml runner needs a device of kind apple "
                          f"with an accelerator out of {', '.join(_UNITS)}")  # fmt: skip
    return _Loaded(device, work)


class _Loaded:
    def __init__(self, device: Any, work: Work):
        self.device, self.work = device, work
        self.accelerator = device.profile.accelerator

    def session(self, preset: Preset) -> Session:
        import coremltools as ct
        from coremltools.models.ml_program.experimental.perf_utils import MLModelBenchmarker

        with quiet(f"measuring {self.work.path.name} with coremltools"):
            bench = MLModelBenchmarker(self._model(), self.device.remote)
            load_ms, samples_ms = asyncio.run(measured(bench, self._sample(), preset))
        return Session(
            runtime={"name": "Core ML", "version": ct.__version__, "tool": "coremltools",
                     "accelerator": self.accelerator},
            load_ns=_ns(load_ms), first_ns=_ns(samples_ms[0]),
            samples_ns=[_ns(ms) for ms in samples_ms[1:]],
        )  # fmt: skip

    def memory(self) -> None:
        """Core ML's memory isn't that of a process which can be read."""

    def outputs(self, inputs: np.ndarray) -> np.ndarray:
        import numpy as np
        from coremltools.models.ml_program.experimental.async_wrapper import MLModelAsyncWrapper

        async def all_of_them() -> list[np.ndarray]:
            model = self._model()
            wrapper = MLModelAsyncWrapper.from_spec_or_path(
                model.get_spec(), model.weights_dir, model.compute_unit, device=self.device.remote
            )
            await wrapper.load()
            named = self.work.input.name
            answers = [await wrapper.predict({named: x[None]}, None) for x in inputs]
            return [answer[self.work.output.name] for answer in answers]

        with quiet(f"running {self.work.path.name} with coremltools"):
            return np.concatenate(asyncio.run(all_of_them()))

    def _model(self) -> Any:
        import coremltools as ct

        units = getattr(ct.ComputeUnit, _UNITS[self.accelerator])
        return ct.models.MLModel(str(self.work.path), compute_units=units)

    def _sample(self) -> dict[str, np.ndarray]:
        return {self.work.input.name: self.work.inputs[:1]}


async def measured(
    bench: Any, sample: Mapping[str, np.ndarray], preset: Preset
) -> tuple[float, list[float]]:
    """Milliseconds of a load, and of the first and all following predictions.

    Each call of the benchmarker is slow on a phone: a few, each for many predictions.
    """
    load_ms = (await bench.benchmark_load(iterations=1)).samples[0]
    first = (await bench.benchmark_predict(inputs=dict(sample), iterations=1)).samples
    few = (await bench.benchmark_predict(inputs=dict(sample), iterations=20, warmup=True)).samples
    typical_s = max(sorted(few)[len(few) // 2], 1e-3) / 1e3
    wanted = max(preset.min_queries, math.ceil(preset.min_seconds / typical_s))
    count = max(1, min(wanted, math.ceil(preset.max_seconds / typical_s)))
    rest = (await bench.benchmark_predict(inputs=dict(sample), iterations=count)).samples
    return float(load_ms), [float(ms) for ms in (*first, *rest)]


def _ns(milliseconds: float) -> int:
    return round(milliseconds * 1e6)

"""Core ML's runner: coremltools still offers what it calls, and the figures are its samples.

Nothing here runs Core ML: that takes a Mac. The API's signatures are the real ones.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from types import SimpleNamespace

import pytest
from conftest import needs

from edgeres import devices
from edgeres.devices import apple
from edgeres.errors import BadInput, DeviceError
from edgeres.measurement.runners import Preset, coreml
from edgeres.targets.coreml import _coremltools

needs("coremltools")


def test_coremltools_offers_what_is_called() -> None:
    _coremltools()
    from coremltools.models.ml_program.experimental import (
        async_wrapper,
        perf_utils,
        remote_device,
    )  # fmt: skip

    def bind(function: object, *given: object, **named: object) -> None:
        inspect.signature(function).bind(*given, **named)  # type: ignore[arg-type]

    bench = perf_utils.MLModelBenchmarker
    bind(bench.__init__, None, "model", None)
    bind(bench.benchmark_load, None, iterations=1)
    bind(bench.benchmark_predict, None, inputs={}, iterations=1, warmup=True)
    wrapper = async_wrapper.MLModelAsyncWrapper
    bind(wrapper.from_spec_or_path, "spec", "folder", None, device=None)
    bind(wrapper.predict, None, {}, None)
    device = remote_device.Device
    bind(device.get_connected_devices, remote_device.DeviceType("iphone"))
    bind(device.prepare_for_model_debugging, None,
         remote_device.AppSigningCredentials(development_team="TEAM"))  # fmt: skip
    assert {"name", "udid", "identifier", "type", "os_version"} <= set(device.__annotations__)


class _Bench:
    """Answers like MLModelBenchmarker: each prediction takes 2 ms."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    async def benchmark_load(self, iterations: int = 1) -> SimpleNamespace:
        return SimpleNamespace(samples=[30.0] * iterations)

    async def benchmark_predict(
        self, inputs: object = None, iterations: int = 1, warmup: bool = False
    ) -> SimpleNamespace:
        self.asked.append(iterations)
        return SimpleNamespace(samples=[9.0 if len(self.asked) == 1 else 2.0] * iterations)


@pytest.mark.parametrize(
    ("preset", "count"), [(Preset(64, 0.5, 10.0), 250), (Preset(1024, 0.5, 1.0), 500)]
)
def test_as_many_predictions_as_the_preset_asks_for(preset: Preset, count: int) -> None:
    bench = _Bench()
    load_ms, samples = asyncio.run(coreml.measured(bench, {"x": 0}, preset))
    assert load_ms == 30.0
    assert samples == [9.0] + [2.0] * count
    assert bench.asked == [1, 20, count]


@pytest.mark.skipif(sys.platform == "darwin", reason="a Mac can be opened here")
@pytest.mark.parametrize("name", ["mac", "iphone-15-pro"])
def test_elsewhere_a_sentence_says_where(name: str) -> None:
    with pytest.raises(DeviceError, match="from a Mac with Xcode only"):
        devices.open_device(devices.load(name))


def test_a_wrong_type_is_named() -> None:
    profile = devices.DeviceProfile("x", "apple", "", settings={"type": "toaster"})
    with pytest.raises(BadInput, match="mac, iphone, ipad"):
        apple.connect(profile)

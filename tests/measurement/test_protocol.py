"""Measuring two real files on this machine: every session a process, and doubts said aloud."""

from __future__ import annotations

from pathlib import Path

import pytest
from measuring import candidate, linear

from edgeres import devices
from edgeres.errors import BadInput, DeviceError
from edgeres.measurement import protocol, verdict
from edgeres.measurement.runners import Preset, Session


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(protocol.PRESETS, "quick", Preset(64, 0.01, 1.0, sessions=2))


@pytest.mark.usefixtures("short")
def test_two_files_are_measured_in_turn(tmp_path: Path) -> None:
    files = [candidate("a", linear(tmp_path / "a.onnx", 1.0)),
             candidate("b", linear(tmp_path / "b.onnx", 2.0), accuracy=False)]  # fmt: skip
    said: list[str] = []
    with devices.open_device(devices.load("host")) as device:
        found = protocol.measure(files, device, "quick", on_event=said.append)
    reports, raw = found.reports, found.samples
    assert found.failures == []
    assert [r["target"] for r in reports] == ["a", "b"]
    for report in reports:
        latency = report["latency"]
        assert latency["sessions"] == 2
        assert latency["n"] == sum(map(len, raw[report["target"]])) >= 128
        low, high = latency["median_ci_ns"]
        assert 0 < latency["min_ns"] <= low <= high <= latency["max_ns"]
        assert latency["p90_ns"] >= latency["median_ns"] * 0.5
        assert report["memory"]["peak_rss_bytes"] > report["memory"]["baseline_rss_bytes"] * 0.8
        assert report["runtime"]["name"] == "onnxruntime"
        assert len(report["cold"]["load_ns"]) == 2
        assert report["valid"] == (not report["reasons"])
    assert reports[0]["accuracy"] == {"correct": 11, "n": 12}
    assert reports[1]["accuracy"] is None
    sessions = [s for s in said if "session" in s]
    assert len(sessions) == 4
    assert {s.split()[0] for s in sessions[:2]} == {"a", "b"}


def test_a_file_that_doesnt_load_is_a_device_error(tmp_path: Path) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(b"not a model")
    with (
        devices.open_device(devices.load("host")) as device,
        pytest.raises(DeviceError, match="device 'host'"),
    ):
        protocol.measure([candidate("bad", path)], device, "quick")


def test_unknown_presets_and_devices_are_named(tmp_path: Path) -> None:
    with (
        devices.open_device(devices.load("host")) as device,
        pytest.raises(BadInput, match="did you mean 'quick'"),
    ):
        protocol.measure([], device, "quik")
    with pytest.raises(BadInput, match="unknown device"):
        devices.load("hots")


def test_one_file_that_fails_leaves_the_others_their_figures(tmp_path: Path, short: None) -> None:
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"not a model")
    files = [candidate("bad", bad), candidate("good", linear(tmp_path / "good.onnx", 1.0))]
    with devices.open_device(devices.load("host")) as device:
        found = protocol.measure(files, device, "quick")
    assert [r["target"] for r in found.reports] == ["good"]
    assert [f["target"] for f in found.failures] == ["bad"]
    assert "device 'host'" in found.failures[0]["message"]


def session(samples: list[int], stable: bool = True) -> Session:
    return Session({}, samples, settled=stable)


STEADY = [100] * 90
STATE = {"emulated": False, "cores": 2, "busy_cores": 0.1, "throttle_count": 0}


@pytest.mark.parametrize(
    ("samples", "stable", "before", "after", "says"),
    [
        ([STEADY, STEADY], True, {}, {}, None),
        ([STEADY[:10], STEADY], True, {}, {}, "64 are needed"),
        ([STEADY, STEADY], False, {}, {}, "didn't settle"),
        ([list(range(100, 190))] * 2, True, {}, {}, "drifted"),
        ([STEADY, STEADY, [200] * 90, [50] * 90], True, {}, {}, "session medians lie"),
        ([STEADY, STEADY], True, {"busy_cores": 1.9}, {}, "busy before"),
        ([STEADY, STEADY], True, {}, {"throttle_count": 3}, "throttled"),
        ([STEADY, STEADY], True, {}, {"throttled_bits": 0x40000}, "throttled"),
        ([STEADY, STEADY], True, {"throttled_bits": 0x50000}, {"throttled_bits": 0x50000}, None),
        ([STEADY, STEADY], True, {"throttled_now": True}, {}, "throttled"),
        ([STEADY, STEADY], True, {"emulated": True}, {}, "emulated"),
    ],
)
def test_doubts(samples: list, stable: bool, before: dict, after: dict, says: str | None) -> None:
    sessions = [session(s, stable) for s in samples]
    found = verdict._doubts(sessions, protocol.PRESETS["quick"],
                            {**STATE, **before}, {**STATE, **after})  # fmt: skip
    assert (found == []) if says is None else any(says in reason for reason in found)

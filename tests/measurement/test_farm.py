"""Several devices at once, and one device that two want."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from measuring import candidate, linear

from edgeres import devices
from edgeres.errors import DeviceError
from edgeres.measurement import farm, protocol
from edgeres.measurement.runners import Preset

HOLD = """
import sys
from edgeres.measurement import farm
with farm.reserved(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(protocol.PRESETS, "quick", Preset(64, 0.01, 1.0, sessions=2))


def test_a_device_that_fails_doesnt_spoil_the_others(tmp_path: Path) -> None:
    host = devices.load("host")
    broken = replace(host, name="broken", settings={"python": "/no/such/python"})
    files = [candidate("a", linear(tmp_path / "a.onnx", 1.0))]
    found = farm.measure(files, [replace(host, name="one"), broken, replace(host, name="two")],
                         "quick")  # fmt: skip
    assert [[r["device"] for r in m.reports] for m in found] == [["one"], [], ["two"]]
    assert [len(m.failures) for m in found] == [0, 1, 0]
    assert "/no/such/python" in found[1].failures[0]["message"]


def test_a_device_belongs_to_one_measurement_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(farm, "_PATIENCE_S", 0.2)
    address = "adb:a serial; with $(odd) 'characters'"
    said: list[str] = []
    with subprocess.Popen([sys.executable, "-c", HOLD, address], text=True,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:  # fmt: skip
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with (
            pytest.raises(DeviceError, match="measured by another process"),
            farm.reserved(address, said.append),
        ):
            pass
        other.kill()  # a lock doesn't outlive its process
        other.wait()
        with farm.reserved(address):
            pass
    assert said == [f"waiting for {address}: another measurement has it"]
    with farm.reserved(address):
        pass

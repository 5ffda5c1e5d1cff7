"""A Jetson at the end of a real ssh: an ARM board with stand-ins of NVIDIA's programs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from beds.arm_board import ArmBoard
from beds.jetson_board import MODEL, RELEASE, JetsonBoard, install
from linear_model import INPUTS, write_onnx

from edgeres import devices
from edgeres.devices import DeviceProfile, _jetson
from edgeres.measurement.runners import Preset, Work, trtexec
from edgeres.types import TensorSpec

THERE = "/usr/local/bin"


@pytest.fixture
def orin(arm_board: ArmBoard, monkeypatch: pytest.MonkeyPatch) -> JetsonBoard:
    """The stand-ins on the board's PATH; whatever its user does, they may keep it."""
    folder = arm_board.root / THERE[1:]
    arm_board.sh(f"rm -rf {THERE}/state; ln -sf /bin/busybox /bin/setsid")
    board = install(folder, python="/usr/bin/python3")
    board.set(model=MODEL, release=RELEASE)
    arm_board.sh(f"chmod -R a+rwX {THERE}")
    monkeypatch.setattr(_jetson, "_MODEL", f"{THERE}/state/model")
    monkeypatch.setattr(_jetson, "_RELEASE", f"{THERE}/state/release")
    return board


def profile(arm_board: ArmBoard) -> DeviceProfile:
    return DeviceProfile(
        "orin", "jetson", "", emulated=True, runners=("trtexec",),
        tools={"trtexec": f"{THERE}/trtexec"},
        settings={"host": "cortex-a76", "config": str(arm_board.config), "power_mode": 2,
                  "clocks": "max"},
    )  # fmt: skip


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it never came")


def test_power_clocks_rails_and_engines_through_ssh(
    arm_board: ArmBoard, orin: JetsonBoard, tmp_path: Path
) -> None:
    path = write_onnx(tmp_path / "linear.onnx")
    spec = TensorSpec("x", tuple(INPUTS.shape), "float32", "NC")
    work = Work(path, INPUTS, spec, TensorSpec("y", (1, 3), "float32", "NC"), 1, tmp_path)
    with devices.open_device(profile(arm_board)) as device:
        with device.steady() as settings:
            assert settings == {"power_mode": "MAXN_SUPER", "clocks": "max"}
            assert (orin.get("mode"), orin.get("clocks")) == ("2", "max")
            loaded = trtexec.load(device, work)
            meter = device.meter()
            assert meter is not None
            with meter:
                session = loaded.session(Preset(64, 0.5, 10.0))
                wait_for(lambda: len(meter.watts()) >= 3)
            outputs = loaded.outputs(INPUTS[:1])
        assert (orin.get("mode"), orin.get("clocks")) == ("0", "mode-0")
        assert session.build == {"seconds": None, "cached": False}
    assert min(session.samples_ns) == 1_250_000
    assert [w["total"] for w in meter.watts()[:3]] == [4.0, 5.0, 9.0]
    assert not [line for line in arm_board.processes().values() if "tegrastats" in line]
    assert np.isfinite(outputs).all() and len(outputs) == 1


def test_kill_9_of_this_process_reaches_the_board(arm_board: ArmBoard, orin: JetsonBoard) -> None:
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from edgeres import devices\n"
        "devices.allow_programs(True)\n"
        "with devices.open_device(devices.load(sys.argv[1])) as device:\n"
        "    with device.steady(), device.meter():\n"
        "        print('ready', flush=True)\n"
        "        time.sleep(300)\n"
    )
    file = arm_board.work / "orin.yaml"
    file.write_text(
        "name: orin\nkind: jetson\ndescription: a board\nemulated: true\nsettings:\n"
        f"  {{host: cortex-a76, config: {arm_board.config}, power_mode: 7W, clocks: max}}\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(file)], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": "."}, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    assert (orin.get("mode"), orin.get("clocks")) == ("1", "max")
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_for(lambda: (orin.get("mode"), orin.get("clocks")) == ("0", "mode-0"))
    wait_for(lambda: not any("tegrastats" in line for line in arm_board.processes().values()))

"""Every shipped device does what Device promises; this machine in particular leaves nothing."""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from pathlib import Path

import pytest

from edgeres import devices
from edgeres.devices import Device, DeviceProfile, local
from edgeres.errors import BadInput, DeviceError


def ended(pid: int) -> bool:
    """Whether a process is gone (or is a zombie that nobody has collected)."""
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        status = Path(f"/proc/{pid}/stat")
        if status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("name", [p.name for p in devices.profiles() if p.kind == "local"])
def test_a_device_takes_runs_gives_and_describes(name: str, tmp_path: Path) -> None:
    source = tmp_path / "data.txt"
    source.write_text("grüße", "utf-8")
    with devices.open_device(devices.load(name)) as device:
        there = device.push(source)
        copy = "import shutil, sys; shutil.copy(sys.argv[1], 'copy.txt'); print('ok'); sys.exit(7)"
        done = device.run([*device.python(), "-c", copy, there], 60)
        assert (done.returncode, done.stdout.strip()) == (7, "ok")
        device.pull("copy.txt", tmp_path / "back.txt")
        assert device.name == name
        assert device.identity() == device.identity() != ""
    assert (tmp_path / "back.txt").read_text("utf-8") == "grüße"


def test_push_names_content_and_copies_it_once(host: Device, tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(b"one")
    first = Path(host.push(file))
    written = first.stat().st_mtime_ns
    assert Path(host.push(file)) == first and first.stat().st_mtime_ns == written
    file.write_bytes(b"two")
    second = Path(host.push(file))
    assert second != first and first.read_bytes() == b"one" and second.read_bytes() == b"two"
    assert second.suffix == ".onnx"  # the runner goes by it


def test_closing_removes_what_was_pushed(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    device = devices.open_device(devices.load("host"))
    there = Path(device.push(tmp_path / "a"))
    assert there.exists()
    device.close()
    device.close()
    assert not there.parent.exists()


def test_a_hung_program_is_killed_with_its_children(host: Device) -> None:
    script = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)'])\n"
        "print('waiting for', child.pid, flush=True)\n"
        "time.sleep(300)\n"
    )
    with pytest.raises(DeviceError, match=r"did not finish in 2 s; it last said") as caught:
        host.run([sys.executable, "-c", script], 2)
    pid = int(str(caught.value).rsplit(" ", 1)[1])
    assert ended(pid)


def test_a_silent_hung_program_is_reported_too(host: Device) -> None:
    with pytest.raises(DeviceError, match=r"sleep did not finish in 0.2 s and said nothing"):
        host.run(["sleep", "300"], 0.2)


def test_an_interruption_leaves_nothing_running(
    host: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []
    read = local.Process.read

    def interrupted(process: local.Process, timeout_s: float) -> None:
        if not started:
            started.append(process._process.pid)
            raise KeyboardInterrupt
        read(process, timeout_s)

    monkeypatch.setattr(local.Process, "read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        host.run(["sleep", "300"], 300)
    assert ended(started[0])


def test_a_program_that_prints_without_end_is_stopped(
    host: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgeres.devices import _process

    monkeypatch.setattr(_process, "_MOST_BYTES", 1 << 20)
    endless = "import os\nwhile True: os.write({}, b'x' * 65536)"
    for stream in (1, 2):
        begin = time.monotonic()
        with pytest.raises(DeviceError, match="prints without end, and was stopped"):
            host.run([*host.python(), "-c", endless.format(stream)], 300)
        assert time.monotonic() - begin < 60


def test_a_program_that_closes_its_streams_is_waited_for(host: Device) -> None:
    quiet = "import os, time; os.close(1); os.close(2); time.sleep(0.5); os._exit(3)"
    assert host.run([*host.python(), "-c", quiet], 60).returncode == 3
    with pytest.raises(DeviceError, match="did not finish in 1 s and said nothing"):
        host.run([*host.python(), "-c", quiet.replace("0.5", "300")], 1)


def test_arguments_never_meet_a_shell(host: Device, tmp_path: Path) -> None:
    hostile = f"; touch {tmp_path / 'hit'} $(touch {tmp_path / 'hit'})"
    done = host.run([*host.python(), "-c", "import sys; print(sys.argv[1])", hostile], 60)
    assert done.stdout.rstrip("\n") == hostile and not (tmp_path / "hit").exists()


def test_the_telemetry_of_onnxruntime_is_off(host: Device) -> None:
    show = "import os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    assert host.run([*host.python(), "-c", show], 60).stdout.strip() == "1"


def test_output_that_is_no_text_is_survived(host: Device) -> None:
    done = host.run([*host.python(), "-c", "import os; os.write(1, b'\\xff\\xfe ok')"], 60)
    assert done.stdout.endswith(" ok")


def test_files_that_are_not_there(host: Device, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"can't take .*missing.onnx"):
        host.push(tmp_path / "missing.onnx")
    with pytest.raises(DeviceError, match=r"can't give outputs.npy"):
        host.pull("outputs.npy", tmp_path / "back.npy")
    with pytest.raises(DeviceError, match="can't start /no/such/program"):
        host.run(["/no/such/program"], 1)


def test_settings_are_checked_and_used() -> None:
    profile = DeviceProfile("other", "local", "", settings={"python": "/no/such/python"})
    with devices.open_device(profile) as device:
        assert device.python() == ("/no/such/python",)
        with pytest.raises(DeviceError, match="device 'other': can't start /no/such/python"):
            device.probe()
    for settings, message in [({"pyhton": "x"}, "did you mean 'python'"), ({"python": 3}, "text")]:
        with pytest.raises(BadInput, match=message):
            devices.open_device(dataclasses.replace(profile, settings=settings))


def test_an_emulated_profile_marks_the_state() -> None:
    profile = dataclasses.replace(devices.load("host"), emulated=True)
    with devices.open_device(profile) as device:
        assert device.probe()["emulated"] is True


def test_an_unknown_kind_names_the_known_ones() -> None:
    with pytest.raises(BadInput, match=r"unknown device kind 'locla' \(did you mean 'local'\?\)"):
        devices.open_device(DeviceProfile("x", "locla", ""))
    for private in ("_runner", "_events", "os", "../local"):  # only what the folder lists
        with pytest.raises(BadInput, match="unknown device kind"):
            devices.open_device(DeviceProfile("x", private, ""))

"""Phones through the genuine adb: what a device promises, and every way in which a phone fails."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from beds import phone as bed
from beds.arm_board import ArmBoard
from beds.phone import Phone

from edgeres import devices
from edgeres.devices import DeviceProfile, _adb_link, adb
from edgeres.devices._android import properties
from edgeres.errors import BadInput, DeviceError, MissingComponent
from edgeres.measurement import verdict

# {1} gets the id of a process that outlives its shell
LINGER = "export at={1}; setsid sh -c 'echo $$ >\"$at\"; exec sleep {0}.5' >&- 2>&- & sleep 0.5"
PIDS = "for p in /proc/[0-9]*; do echo ${p#/proc/}:$(tr '\\0' ' ' <$p/cmdline); done 2>/dev/null"
SLEEP = "sleep 3{0}.5 & echo waiting; sleep 3{0}.5"  # a text of its own per test


def gone(phone: Phone, text: str) -> bool:
    """Whether a program has ended, or does so within a moment."""
    for _ in range(40):
        if not phone.left_running(text):
            return True
        time.sleep(0.05)
    return False


def test_a_phone_takes_runs_gives_and_describes(phone: Phone, tmp_path: Path) -> None:
    source = tmp_path / "data.txt"
    source.write_text("grüße", "utf-8")
    with phone.open() as device:
        there = device.push(source)
        copy = 'cat "$1" >copy.txt; id -u; uname -m >&2; exit 7'
        done = device.run(["sh", "-c", copy, "sh", there], 30)
        assert (done.returncode, done.stdout, done.stderr) == (7, "2000\n", "aarch64\n")
        device.pull("copy.txt", tmp_path / "back.txt")
        assert device.address == "37181FDJH002AB"
        assert device.identity() == device.identity() != ""
        state = device.probe()
        with pytest.raises(DeviceError, match=r"a phone has no Python"):
            device.python()
        with pytest.raises(DeviceError, match=r"can't give .*missing: No such file"):
            device.pull("missing", tmp_path / "missing")
        assert device.run(["sh", "-c", "kill -9 $$"], 30).returncode == -9
    assert (tmp_path / "back.txt").read_text("utf-8") == "grüße"
    assert not (tmp_path / "missing").exists()
    assert phone.left_behind() == []
    assert (state["cpu_model"], state["release"], state["model"]) == (
        "Google Tensor G3", "14", "Pixel 8",
    )  # fmt: skip
    assert state["thermal_status"] == 0 and not verdict.throttled(state)
    assert state["temperatures_c"]["cpu:BIG"] == 31.2
    assert state["power_source"] == "mains" and state["battery"]["charging"] == "charging"
    assert state["cores"] == os.cpu_count() and 0 <= state["busy_cores"] <= state["cores"]
    assert state["memory_available_bytes"] > 0 and len(state["loadavg"]) == 3


def test_push_copies_content_once_and_mends_it(phone: Phone, tmp_path: Path) -> None:
    device, file = phone.open(), tmp_path / "model.tflite"
    file.write_bytes(b"one")
    first = device.push(file)
    assert device.push(file) == first
    assert phone.daemon.services.count("sync:") == 1
    there = phone.board.root / first.lstrip("/")
    assert there.stat().st_mode & 0o777 == 0o755
    there.write_bytes(b"two")
    assert device.push(file) == first and there.read_bytes() == b"one"
    with pytest.raises(DeviceError, match=r"can't take .*nothing.tflite"):
        device.push(tmp_path / "nothing.tflite")


def test_no_name_is_ever_executed(phone: Phone, tmp_path: Path) -> None:
    canary = "/data/local/tmp/canary"
    hostile = f"a'\"$(touch {canary})`touch {canary}`;touch {canary}\n-rf &.tflite"
    file = tmp_path / hostile.replace("/", ":")
    file.write_bytes(b"x")
    workdir = f"/data/local/tmp/w'\"$(touch {canary})`touch {canary}`; touch {canary}"
    device = phone.open(settings={"workdir": workdir})
    there = device.push(file)
    assert there.startswith(workdir)
    for argument in (f"$(touch {canary})", f"; touch {canary}", f"' `touch {canary}`", "\n", "-n"):
        assert device.run(["printf", "%s", argument], 30).stdout == argument
    device.pull(there, tmp_path / "back")
    device.close()
    assert (tmp_path / "back").read_bytes() == b"x"
    assert [path for path in phone.left_behind() if path.endswith("/canary")] == []
    for serial in (f"$(touch {canary})", f"{phone.serial}; touch {canary}", "x:kill", "-s", "\n"):
        with pytest.raises(DeviceError, match=r"no phone has the serial"):
            phone.open(settings={"serial": serial})


def test_programs_are_pinned(phone: Phone) -> None:
    device = phone.open(settings={"cpu_mask": "1"})
    assert device.run(["nproc"], 30).stdout == "1\n"


def test_an_old_phone_tells_its_exit_status_too(old_phone: Phone, tmp_path: Path) -> None:
    device = old_phone.open()
    done = device.run(["sh", "-c", "printf out; echo err >&2; exit 7"], 30)
    assert (done.returncode, done.stdout) == (7, "outerr\n")
    file = tmp_path / "a"
    file.write_bytes(b"a")
    assert device.run(["cat", device.push(file)], 30).stdout.strip() == "a"
    with pytest.raises(DeviceError, match=r"did not finish in 1 s; it last said: waiting"):
        device.run(["sh", "-c", SLEEP.format(0)], 1)
    assert gone(old_phone, SLEEP.format(0)[:10])


def test_a_hung_program_is_ended_with_its_children(phone: Phone) -> None:
    device = phone.open()
    with pytest.raises(DeviceError, match=r"sh did not finish in 1 s; it last said: waiting"):
        device.run(["sh", "-c", SLEEP.format(1)], 1)
    assert gone(phone, "sleep 31.5")
    assert device.run(["echo", "on"], 30).stdout == "on\n"


def test_an_interruption_leaves_nothing_running(
    phone: Phone, monkeypatch: pytest.MonkeyPatch
) -> None:
    device, receive = phone.open(), _adb_link._receive

    def interrupted(*arguments: Any) -> bytes:
        data = receive(*arguments)
        if b"waiting" in data:
            monkeypatch.undo()
            raise KeyboardInterrupt
        return data

    monkeypatch.setattr(_adb_link, "_receive", interrupted)
    with pytest.raises(KeyboardInterrupt):
        device.run(["sh", "-c", SLEEP.format(2)], 60)
    assert gone(phone, "sleep 32.5")


def test_a_phone_that_comes_back_has_nothing_running(phone: Phone) -> None:
    device = phone.open()
    phone.daemon.cut_during = "sleep 33.5"
    threading.Timer(2.0, phone.plug).start()
    with pytest.raises(DeviceError, match=r"device 'phone': .*(cut|offline|no phone)"):
        device.run(["sh", "-c", SLEEP.format(3)], 60)
    assert gone(phone, "sleep 33.5")


def test_a_phone_that_comes_back_late_is_cleaned_then(
    phone: Phone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adb, "_BACK_S", 0.5)
    device = phone.open()
    phone.daemon.cut_during, phone.daemon.mute = "sleep 34.5", True
    with pytest.raises(DeviceError):
        device.run(["sh", "-c", SLEEP.format(4)], 60)
    assert phone.left_running("sleep 34.5")
    with pytest.raises(DeviceError, match=r"device 'phone': "):
        device.run(["true"], 10)
    phone.daemon.mute = False
    phone.plug()
    device.close()
    assert gone(phone, "sleep 34.5") and phone.left_behind() == []


def test_what_a_phone_kept_that_was_away_at_the_end_is_removed(
    phone: Phone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adb, "_BACK_S", 0.2)
    device = phone.open()
    phone.daemon.cut_during, phone.daemon.mute = "sleep 37.5", True
    with pytest.raises(DeviceError):
        device.run(["sh", "-c", SLEEP.format(7)], 60)
    device.close()
    assert phone.left_running("sleep 37.5")
    phone.daemon.mute = False
    phone.plug()
    with phone.open(), phone.open():  # neither takes the other's folder for abandoned
        assert gone(phone, "sleep 37.5")
        assert len([p for p in phone.left_behind() if Path(p).name.count("-") == 2]) == 2
    assert phone.left_behind() == []


def test_what_a_killed_process_left_is_removed(phone: Phone) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    host = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
    folder = f"{adb.WORKDIR}/{host}-{dead.pid}-0123abcd"
    device = phone.open()
    device.run(["sh", "-c", f"mkdir {folder}; cd {folder}; {LINGER.format(35, 'pid-0')}"], 30)
    assert phone.left_running("sleep 35.5")
    device.close()
    phone.open().close()
    assert gone(phone, "sleep 35.5") and phone.left_behind() == []


def test_a_stale_id_kills_no_other_program(phone: Phone) -> None:
    device = phone.open()
    ours = "at=$(pwd)/pid-77; cd /; " + LINGER.format(36, '"$at"')
    device.run(["sh", "-c", ours], 30)
    device.close()
    assert phone.left_behind() == [] and phone.left_running("sleep 36.5")
    phone.open().run(["sh", "-c", f"kill -9 $({PIDS} | grep 'sleep 36.5' | cut -d: -f1)"], 30)
    assert gone(phone, "sleep 36.5")


def unauthorized(phone: Phone) -> None:
    phone.daemon.authorized = False
    phone.plug()


def offline(phone: Phone) -> None:
    phone.daemon.mute = True
    phone.daemon.cut()
    time.sleep(0.2)


@pytest.mark.parametrize(
    ("mishap", "settings", "says"),
    [
        (None, {"serial": "XYZ"}, "no phone has the serial 'XYZ' .*attached: 127"),
        (unauthorized, {}, "has not authorized this computer: unlock it"),
        (offline, {}, "is offline|no phone has the serial"),
        (None, {"workdir": "/system/x"}, "can't make /system/x/.*Permission denied.*set `workdir`"),
    ],
)
def test_a_phone_that_cant_be_used(
    phone: Phone, mishap: Callable[[Phone], None] | None, settings: dict[str, str], says: str
) -> None:
    if mishap:
        mishap(phone)
    with pytest.raises(DeviceError, match=f"device 'phone': .*({says})"):
        phone.open(settings=settings)


def test_a_full_phone(phone: Phone, tmp_path: Path) -> None:
    file = tmp_path / "big.tflite"
    file.write_bytes(bytes(256 * 1024))
    device = phone.open(settings={"workdir": "/small/edgeres"})
    with pytest.raises(DeviceError, match=r"can't take big.tflite.*No space left.*free some"):
        device.push(file)
    device.close()
    assert phone.left_behind("small") == []


def test_a_folder_that_became_forbidden(phone: Phone, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    device = phone.open()
    device.run(["sh", "-c", "chmod 500 ."], 30)
    with pytest.raises(DeviceError, match=r"can't take a: .*Permission denied"):
        device.push(tmp_path / "a")
    device.run(["sh", "-c", "chmod 700 ."], 30)


def test_a_phone_that_answers_nothing(phone: Phone, monkeypatch: pytest.MonkeyPatch) -> None:
    device = phone.open()
    monkeypatch.setattr(adb, "_ANSWER_S", 0.5)
    monkeypatch.setattr(adb, "_END_S", 0.5)
    monkeypatch.setattr(adb, "_PROBE_S", 0.5)
    phone.daemon.silent = True
    with pytest.raises(DeviceError, match=r"the phone did not answer in 0.5 s"):
        device.probe()
    with pytest.raises(DeviceError, match=r"true did not finish in 0.5 s and said nothing"):
        device.run(["true"], 0.5)


def test_a_phone_that_talks_garbage(phone: Phone, monkeypatch: pytest.MonkeyPatch) -> None:
    device = phone.open()
    phone.daemon.garbage = True
    with pytest.raises(DeviceError, match=r"no answer of adb|was cut"):
        device.run(["true"], 5)
    phone.daemon.garbage = False
    monkeypatch.setattr(_adb_link, "_MAX_OUTPUT", 100_000)
    with pytest.raises(DeviceError, match=r"printed over"):
        device.run(["sh", "-c", "while true; do echo 'a flood'; done"], 30)
    assert gone(phone, "a flood")


def test_one_phone_needs_no_serial_several_do(
    phone: Phone, arm_board: ArmBoard, adb_server: int
) -> None:
    settings = {"server_port": adb_server}
    profile = DeviceProfile("any", "adb", "", settings=settings)
    with devices.open_device(profile) as device:
        assert device.address == "37181FDJH002AB"
    assert adb.discover(adb_server) == [
        {"device": f"phone@{phone.serial}", "state": "device", "about": "ARM Phone"}
    ]
    for second in bed.attached(arm_board, adb_server):
        with pytest.raises(
            BadInput, match=r"several phones are attached.*setting serial"
        ) as caught:
            devices.open_device(profile)
        assert phone.serial in str(caught.value) and second.serial in str(caught.value)


def test_no_phone_no_server_no_package(adb_server: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def profile(port: int) -> DeviceProfile:
        return DeviceProfile("none", "adb", "", settings={"server_port": port})

    with pytest.raises(DeviceError, match=r"no phone is attached; connect one by USB"):
        devices.open_device(profile(adb_server))
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("ADBUTILS_ADB_PATH", "/bin/false")
        with pytest.raises(DeviceError, match=r"no adb server answers .*platform tools"):
            devices.open_device(profile(unused.getsockname()[1]))
    monkeypatch.setitem(sys.modules, "adbutils", None)
    with pytest.raises(MissingComponent, match=r"pip install 'edgeres\[android\]'"):
        devices.open_device(profile(adb_server))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"serail": "x"}, "did you mean 'serial'"), ({"serial": 3}, "must be text"),
        ({"server_port": 70000}, "1 to 65535"), ({"workdir": "tmp"}, "absolute path"),
        ({"cpu_mask": "$(x)"}, "hex mask"), ({"cpu_mask": ""}, "hex mask"),
    ],
)  # fmt: skip
def test_settings_are_checked(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        devices.open_device(DeviceProfile("x", "adb", "", settings=settings))


def test_heat_and_an_emulator_are_noticed(phone: Phone) -> None:
    phone.says("thermalservice", bed.THERMAL.format(status=2))
    props = (phone.board.root / "system/etc/props").read_text()
    phone.says("props", props + "[ro.boot.qemu]: [1]\n")
    assert properties(props) == bed.PROPERTIES
    state = phone.open(emulated=False).probe()
    assert verdict.throttled(state) and state["emulated"] is True


@pytest.mark.parametrize("name", ["pixel-8", "galaxy-s24"])
def test_shipped_phones_measure_with_benchmark_model(name: str) -> None:
    profile = devices.load(name)
    assert (profile.kind, profile.runners) == ("adb", ("benchmark_model",))
    assert profile.tools == {"benchmark_model": "benchmark_model"} and profile.threads == 4


@pytest.fixture(autouse=True)
def _no_canary_here() -> Iterator[None]:
    yield
    assert not Path("/data/local/tmp/canary").exists()

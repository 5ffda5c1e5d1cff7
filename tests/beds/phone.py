"""A phone: the genuine adb client and server, a daemon of our own, and ARM programs behind it.

In: `arm_board`, whose files are the phone's. Out: the fixture `phone`, attached to an adb server on
a private port. Its shell runs as Android's user "shell" and leads a process group, as adbd's does.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from beds.adbd import SHELL_USER, Adbd
from beds.arm_board import ArmBoard

from edgeres import devices
from edgeres.devices import Device, DeviceProfile

CPU = "cortex-a76"
PROPERTIES = {
    "ro.serialno": "37181FDJH002AB",
    "ro.product.manufacturer": "Google",
    "ro.product.model": "Pixel 8",
    "ro.product.cpu.abi": "arm64-v8a",
    "ro.soc.manufacturer": "Google",
    "ro.soc.model": "Tensor G3",
    "ro.build.version.release": "14",
    "ro.build.version.sdk": "34",
    "ro.build.fingerprint": "google/shiba/shiba:14/UD1A.230803.041/10808477:user/release-keys",
    "ro.hardware": "shiba",
}
THERMAL = """\
IsStatusOverride: false
ThermalEventListeners:
\tcallbacks: 3
\tkilled: false
\tbroadcasts count: -1
ThermalStatusListeners:
\tcallbacks: 2
\tkilled: false
\tbroadcasts count: -1
Thermal Status: {status}
Cached temperatures:
\tTemperature{{mValue=24.1, mType=3, mName=VIRTUAL-SKIN, mStatus=0}}
HAL Ready: true
HAL connection:
\tThermalHAL AIDL 1  connected: yes
Current temperatures from HAL:
\tTemperature{{mValue=31.2, mType=0, mName=BIG, mStatus=0}}
\tTemperature{{mValue=30.5, mType=1, mName=G3D, mStatus=0}}
\tTemperature{{mValue=25.6, mType=2, mName=battery, mStatus=0}}
\tTemperature{{mValue=25.25, mType=3, mName=VIRTUAL-SKIN, mStatus=0}}
\tTemperature{{mValue=0.0, mType=5, mName=absent, mStatus=0}}
Current cooling devices from HAL:
\tCoolingDevice{{mValue=0, mType=2, mName=thermal-cpufreq-0}}
Temperature static thresholds from HAL:
\tTemperatureThreshold{{mType=3, mName=VIRTUAL-SKIN, mHotThrottlingThresholds=[NaN, 39.0]}}
"""
BATTERY = """\
Current Battery Service state:
  AC powered: false
  USB powered: true
  Wireless powered: false
  Max charging current: 500000
  status: 2
  health: 2
  present: true
  level: 87
  scale: 100
  voltage: 4210
  temperature: 268
  technology: Li-ion
"""
_GETPROP = """\
#!/bin/sh
[ $# = 0 ] && exec cat /system/etc/props
exec sed -n "s/^\\[$1\\]: \\[\\(.*\\)\\]$/\\1/p" /system/etc/props
"""
_DUMPSYS = """\
#!/bin/sh
for service; do :; done
exec cat "/system/etc/$service"
"""


@dataclass
class Phone:
    """A phone that is attached.

    Attributes:
        serial: what the adb server calls it.
        server_port: the adb server's.
        daemon: its adbd, with the switches.
    """

    board: ArmBoard
    daemon: Adbd
    server_port: int
    serial: str = ""
    _open: list[Device] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.serial = f"127.0.0.1:{self.daemon.port}"

    def profile(self, **more: Any) -> DeviceProfile:
        """How to reach it; `settings` are added to those that name it."""
        settings = {"serial": self.serial, "server_port": self.server_port}
        settings |= more.pop("settings", {})
        known: dict[str, Any] = {"runners": ("benchmark_model",), "emulated": True}
        return DeviceProfile("phone", "adb", "", settings=settings, **(known | more))

    def open(self, **more: Any) -> Device:
        """It, opened; closed at the end of the test."""
        self._open.append(devices.open_device(self.profile(**more)))
        return self._open[-1]

    def plug(self) -> None:
        """Attach it (again), as a USB cable would."""
        import adbutils

        client = adbutils.AdbClient(port=self.server_port)
        client.disconnect(self.serial)
        client.connect(self.serial, timeout=10)
        for _ in range(100):
            states = {info.serial: info.state for info in client.list()}
            if states.get(self.serial) not in (None, "offline", "connecting", "authorizing"):
                return
            time.sleep(0.02)

    def says(self, service: str, text: str) -> None:
        """What `dumpsys service` answers; `props` are getprop's."""
        (self.board.root / "system/etc" / service).write_text(text)

    def left_running(self, text: str) -> list[str]:
        """Programs on it with this in their command line."""
        return [line for line in self.board.processes().values() if text in line]

    def left_behind(self, workdir: str = "data/local/tmp") -> list[str]:
        """Files on it."""
        return [str(path) for path in (self.board.root / workdir).rglob("*")]


@pytest.fixture(scope="session")
def adb_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A genuine adb server on a port of its own; no phone of this machine's user is touched."""
    adbutils = pytest.importorskip("adbutils")
    home = tmp_path_factory.mktemp("adb")
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    with (home / "log").open("w") as log:
        server = subprocess.Popen(
            [adbutils.adb_path(), "-P", str(port), "nodaemon", "server"],
            env={"HOME": str(home), "PATH": os.environ["PATH"], "ADB_MDNS": "0",
                 "ADB_MDNS_OPENSCREEN": "0", "ADB_USB": "0"},
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield port
    finally:
        server.kill()
        server.wait(10)


@pytest.fixture
def phone(arm_board: ArmBoard, adb_server: int) -> Iterator[Phone]:
    """A phone that is attached, with nothing on it."""
    yield from attached(arm_board, adb_server)


@pytest.fixture
def old_phone(arm_board: ArmBoard, adb_server: int) -> Iterator[Phone]:
    """One before Android 7: its shell tells neither stderr nor the exit status apart."""
    yield from attached(arm_board, adb_server, features="cmd")


def attached(board: ArmBoard, port: int, features: str = "shell_v2,cmd") -> Iterator[Phone]:
    """A phone until the generator is closed."""
    _install(board.root)
    daemon = Adbd(board.root, _shell(board), features)
    phone = Phone(board, daemon, port)
    try:
        phone.plug()
        yield phone
        daemon.silent = daemon.garbage = False
        for device in phone._open:
            device.close()
    finally:
        daemon.stop()
        import adbutils

        adbutils.AdbClient(port=port).disconnect(phone.serial)


def _shell(board: ArmBoard) -> list[str]:
    """The start of a command line that ends in the phone's shell: user, group and PATH as there.

    What can be done by this machine's programs isn't left to emulated ones.
    """
    argv = board.chroot_argv(CPU)
    at = argv.index("chroot")
    variables = [a if not a.startswith("PATH=") else "PATH=/system/bin:/bin:/usr/bin"
                 for a in argv[at + 3 : -2]]  # fmt: skip
    user = f"--userspec={SHELL_USER}:{SHELL_USER}"
    chroot = shutil.which("chroot", path="/usr/sbin:/usr/bin:/sbin:/bin") or "chroot"
    return [*argv[:at], "setsid", "env", *variables, chroot, user, argv[at + 1], *argv[-2:]]


def _install(root: Path) -> None:
    for name in ("system/bin", "system/etc"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for path in (root / "data/local/tmp").iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name, text in (("getprop", _GETPROP), ("dumpsys", _DUMPSYS)):
        (root / "system/bin" / name).write_text(text)
        (root / "system/bin" / name).chmod(0o755)
    lines = "".join(f"[{key}]: [{value}]\n" for key, value in PROPERTIES.items())
    (root / "system/etc/props").write_text(lines)
    (root / "system/etc/thermalservice").write_text(THERMAL.format(status=0))
    (root / "system/etc/battery").write_text(BATTERY)

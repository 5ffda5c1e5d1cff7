"""An Android phone. In: a profile of kind adb. Out: a Device behind the adb server.

Files live in a private folder under `workdir`, named after this process: what a killed process left
there, or a phone that was away at the end, is removed by the next one. A program writes its process
group's id beside them while it runs, so that it can be ended after a timeout, an interruption, or a
cut connection.

Settings: `serial` (the only phone attached if left out), `server_port`, `workdir`, and `cpu_mask`,
the hex mask of the cores that programs may use.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import secrets
import shlex
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeres.devices import Completed, DeviceProfile, Setting, _android
from edgeres.devices._adb_link import Link
from edgeres.devices._adb_server import Cut, TimedOut, attached
from edgeres.devices._base import Base, settings
from edgeres.devices._events import last_line
from edgeres.disk import file_sha256
from edgeres.errors import BadInput, DeviceError

WHERE = "serial"
SETTINGS = {
    "serial": Setting(str, starts_programs=False),
    "server_port": Setting(int, starts_programs=False),
    "workdir": Setting(str, starts_programs=False),
    "cpu_mask": Setting(str, starts_programs=False),
}
WORKDIR = "/data/local/tmp/edgeres"
_ANSWER_S = 30.0
_PROBE_S = 60.0
_END_S = 5.0  # for one attempt at ending a program
_BACK_S = 5.0  # what a phone that was cut off gets to come back
_SLOWEST = 1 << 20  # bytes/s that a file is moved with at least
_open_folders: set[str] = set()  # of this process
# The shell that adbd starts leads a process group of its own.
# Its id may belong to another program by now; then that one works elsewhere.
_END = (
    'for f in {files}; do p=$(cat "$f" 2>/dev/null); case $p in ""|*[!0-9]*) continue;; esac; '
    'at=$(readlink "/proc/$p/cwd") && [ "$at" != "$(pwd -P)" ] && continue; '
    'kill -9 -"$p" 2>/dev/null || {{ pkill -9 -P "$p"; kill -9 "$p"; }} 2>/dev/null; '
    'rm -f "$f"; done'
)


def discover(server_port: int | None = None) -> list[dict[str, str]]:
    """The phones attached to this machine, with their state ("device" if usable) and model.

    Raises:
        DeviceError: there is no adb server and none can be started.
        MissingComponent: adbutils isn't installed.
    """
    return [{"device": f"phone@{p['serial']}", "state": p["state"], "about": p["model"]}
            for p in attached(server_port)]  # fmt: skip


def connect(profile: DeviceProfile) -> AdbDevice:
    """Open a phone.

    Raises:
        BadInput: a setting is wrong, or several phones are attached and none is named.
        DeviceError: the phone can't be used; says why.
        MissingComponent: adbutils isn't installed.
    """
    return AdbDevice(profile, **_checked(profile.name, settings(profile, SETTINGS)))


def _checked(name: str, found: dict[str, Any]) -> dict[str, Any]:
    if not 0 < found.get("server_port", 5037) < 65536:
        raise BadInput(f"device '{name}': the setting server_port must be a port, 1 to 65535")
    workdir = found.get("workdir", WORKDIR)
    if not workdir.startswith("/") or not workdir.isprintable():
        raise BadInput(f"device '{name}': the setting workdir must be an absolute path")
    if not re.fullmatch("[0-9a-fA-F]{1,32}", found.get("cpu_mask", "f")):
        raise BadInput(f"device '{name}': the setting cpu_mask must be a hex mask such as \"f0\"")
    return found


class AdbDevice(Base):
    """Implements Device with an adb server."""

    def __init__(
        self,
        profile: DeviceProfile,
        serial: str | None = None,
        server_port: int | None = None,
        workdir: str = WORKDIR,
        cpu_mask: str | None = None,
    ) -> None:
        super().__init__(profile)
        self._who = f"device '{self.name}'"
        self._link = Link(self._who, serial or _only_one(self._who, server_port), server_port)
        self._link.check()
        self._pin = ["taskset", cpu_mask] if cpu_mask else []
        self._count = itertools.count()
        self._unended: list[str] = []
        host = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
        self._workdir, own = workdir, f"{host}-{os.getpid()}-{secrets.token_hex(4)}"
        self._folder: str | None = f"{workdir}/{own}"
        _open_folders.add(own)
        done = self._must(f"make {self._folder}",
                          f"umask 077; mkdir -p {self._quoted()} || exit; "
                          f"{{ getprop ro.serialno || echo; }} 2>/dev/null; "
                          f"ls {shlex.quote(workdir)}")  # fmt: skip
        self.address, *names = [*done.stdout.splitlines(), ""]
        self.address = self.address.strip() or self._link.serial
        self._remove_abandoned(host, names)

    def push(self, local: Path) -> str:
        """Copy a file over unless its content is already there; it may be executed there."""
        try:
            seconds = _ANSWER_S + local.stat().st_size / _SLOWEST
            return self._push(local, file_sha256(local), seconds)
        except OSError as error:
            raise DeviceError(f"{self._who}: can't take {local}: {error.strerror}") from error

    def _push(self, local: Path, digest: str, seconds: float) -> str:
        name = re.sub(r"[^A-Za-z0-9._-]", "_", local.name)[-80:]
        remote = f"{self._there()}/{digest[:16]}-{name}"
        if self._digest(remote, seconds) == digest:
            return remote
        partial = f"{remote}.partial"
        self._link.send(local, partial, seconds)
        arrived = self._digest(partial, seconds)
        if arrived != digest:
            why = "arrived damaged; check the cable"
            if arrived is None:
                why = "can't be checked: the phone has no sha256sum (Android 8 and later have)"
            raise DeviceError(f"{self._who}: {local.name} {why}")
        partial, quoted = shlex.quote(partial), shlex.quote(remote)
        self._must(f"take {local.name}", f"chmod 755 {partial} && mv {partial} {quoted}")
        return remote

    def pull(self, remote: str, local: Path) -> None:
        """Copy a file from the phone; a relative path starts at the private folder."""
        path = remote if remote.startswith("/") else f"{self._there()}/{remote}"
        size = self._link.shell(f"wc -c <{shlex.quote(path)}", _ANSWER_S).stdout.strip()
        seconds = _ANSWER_S + (int(size) if size.isdigit() else 0) / _SLOWEST
        try:
            self._link.receive(path, local, seconds)
        except OSError as error:
            raise DeviceError(f"{self._who}: can't write {local}: {error.strerror}") from error
        except DeviceError:
            local.unlink(missing_ok=True)  # half a file
            raise

    def run(self, argv: Sequence[str], timeout_s: float) -> Completed:
        """Run a program in the private folder; at the timeout its process group is killed."""
        unended, self._unended = self._unended, []
        for old in unended:
            self._end(old, 0)
        pid = f"pid-{next(self._count)}"
        command = " ".join(map(shlex.quote, [*self._pin, *argv]))
        self._there()
        script = (f"cd {self._quoted()} || exit 97; echo $$ >{pid}; {command} </dev/null; "
                  f"status=$?; rm -f {pid}; exit $status")  # fmt: skip
        try:
            return self._link.shell(script, timeout_s)
        except BaseException as error:  # whatever ended the waiting must end the program too
            self._end(pid, _BACK_S if isinstance(error, Cut) else 0)
            if not isinstance(error, TimedOut):
                raise
            said = last_line(error.said)
            ending = f"; it last said: {said}" if said else " and said nothing"
            raise DeviceError(f"{self._who}: {Path(argv[0]).name} did not finish in "
                              f"{timeout_s:g} s{ending}") from error  # fmt: skip

    def python(self) -> tuple[str, ...]:
        """A phone has none."""
        raise DeviceError(f"{self._who}: a phone has no Python; give its profile the runner "
                          f"benchmark_model, for .tflite files")  # fmt: skip

    def probe(self) -> dict[str, object]:
        """What the phone says about itself, and which tools measure on it."""
        mark = secrets.token_hex(8)
        said = self._link.shell(_android.script(mark), _PROBE_S)
        state = _android.state(_android.sections(said.stdout, mark), self.profile.emulated)
        for name, path in self.profile.tools.items():
            if Path(path).is_file():
                state["runtimes"][name] = f"sha256 {file_sha256(Path(path))[:12]}"
        return state

    def close(self) -> None:
        """End what still runs there and remove the private folder."""
        if self._folder is None:
            return
        script = self._removal(self._folder)
        self._patiently(script, _BACK_S if self._unended else 0)
        _open_folders.discard(self._folder.rpartition("/")[2])
        self._folder = None

    def _there(self) -> str:
        if self._folder is None:
            raise DeviceError(f"{self._who}: it was closed")
        return self._folder

    def _quoted(self) -> str:
        return shlex.quote(self._folder or "")

    def _must(self, doing: str, script: str) -> Completed:
        """What a short script printed; DeviceError with the phone's words if it failed."""
        done = self._link.shell(script, _ANSWER_S)
        if done.returncode != 0:
            words = last_line(done.stderr) or last_line(done.stdout) or f"status {done.returncode}"
            raise DeviceError(self._link.refusal(f"can't {doing}", words))
        return done

    def _digest(self, remote: str, timeout_s: float) -> str | None:
        said = self._link.shell(f"sha256sum {shlex.quote(remote)} 2>/dev/null", timeout_s).stdout
        return said.split()[0] if said.strip() else None

    def _end(self, pid: str, patience_s: float) -> None:
        """Kill the process group that a file names; later if the phone can't be reached now."""
        script = f"cd {self._quoted()} && {_END.format(files=pid)}"
        if not self._patiently(script, patience_s):
            self._unended.append(pid)

    def _patiently(self, script: str, patience_s: float) -> bool:
        """Run a short script, again and again until the phone answers or patience ends."""
        deadline = time.monotonic() + patience_s
        while True:
            try:
                self._link.shell(script, _END_S)
                return True
            except DeviceError:
                if time.monotonic() >= deadline:
                    return False
            time.sleep(0.25)

    def _removal(self, folder: str) -> str:
        quoted = shlex.quote(folder)
        return (f"cd {quoted} && {_END.format(files='pid-*')}; cd / && rm -rf {quoted}; "
                f"rmdir {shlex.quote(self._workdir)} 2>/dev/null")  # fmt: skip

    def _remove_abandoned(self, host: str, names: Sequence[str]) -> None:
        """What an earlier process of this computer left, or this one on a phone that was away."""
        for name in map(str.strip, names):
            found = re.fullmatch(rf"{host}-(\d{{1,10}})-[0-9a-f]{{8}}", name)
            if found and name not in _open_folders:
                pid = int(found[1])
                if pid == os.getpid() or not _alive(pid):
                    self._patiently(self._removal(f"{self._workdir}/{name}"), 0)


def _only_one(who: str, port: int | None) -> str:
    """The serial of the phone that is attached, if that is one."""
    found = [phone["serial"] for phone in attached(port)]
    if not found:
        raise DeviceError(f"{who}: no phone is attached; connect one by USB, switch USB debugging "
                          f"on, and see 'adb devices'")  # fmt: skip
    if len(found) > 1:
        raise BadInput(f"{who}: several phones are attached; name one by the setting serial: "
                       f"{', '.join(sorted(found))}")  # fmt: skip
    return found[0]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True

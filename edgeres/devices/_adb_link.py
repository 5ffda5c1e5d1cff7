"""One phone behind the adb server. In: shell commands and files. Out: what came back, or the reason
in one sentence why not.

adbutils opens the connections. What flows through them is read here, because a command needs one
deadline for all of its output, and a refused file needs the phone's own words.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edgeres.devices import Completed
from edgeres.devices._adb_server import (
    ANSWER_S,
    CUT,
    NO_ADB,
    Cut,
    TimedOut,
    attached,
    client,
    explained,
)
from edgeres.errors import DeviceError

if TYPE_CHECKING:
    from adbutils import AdbConnection

_BLOCK = 64 * 1024  # the most that one DATA packet may hold
_MAX_OUTPUT = 16 << 20
_STATES = {
    "unauthorized": "has not authorized this computer: unlock it and accept its question about "
    "USB debugging",
    "authorizing": "has not authorized this computer yet: unlock it and accept its question about "
    "USB debugging",
    "offline": "is offline: unplug it and plug it in again, or run 'adb reconnect'",
    "no permissions": "may not be opened by this user: add a udev rule for it, see "
    "https://developer.android.com/studio/run/device",
}
_MENDS = {
    "No space left on device": "no space is left on the phone; free some",
    "Permission denied": "the phone doesn't permit it; set `workdir` to a folder that its shell "
    "may write, such as /data/local/tmp/edgeres",
    "Read-only file system": "that is read-only; set `workdir` to a folder that its shell may "
    "write, such as /data/local/tmp/edgeres",
}


class Link:
    """One phone, named by its serial in every request."""

    def __init__(self, who: str, serial: str, port: int | None = None) -> None:
        """`who` begins every message."""
        self._who, self.serial, self._port = who, serial, port
        self._known_features: set[str] | None = None

    def check(self) -> None:
        """Raise DeviceError unless the phone is there and lets itself be used."""
        known = {phone["serial"]: phone["state"] for phone in attached(self._port)}
        shown = " ".join(self.serial.split())[:80]
        if self.serial not in known:
            others = f"attached: {', '.join(sorted(known))}" if known else "none is attached"
            raise DeviceError(f"{self._who}: no phone has the serial '{shown}' ({others}); "
                              f"see 'adb devices'")  # fmt: skip
        state = known[self.serial]
        if state != "device":
            why = _STATES.get(state, f"is in the state '{state}': start Android on it")
            raise DeviceError(f"{self._who}: the phone '{shown}' {why}")

    def shell(self, script: str, timeout_s: float) -> Completed:
        """Run a script by the phone's shell; its true exit status comes back.

        A phone before Android 7 gives all of its output as stdout.
        """
        deadline = time.monotonic() + timeout_s
        if "shell_v2" in self._features():
            return self._shell_v2(script, timeout_s, deadline)
        mark = secrets.token_hex(8)  # an old phone's shell tells only what it printed
        script = f"exec 2>&1; trap 'status=$?; echo; echo {mark}$status' EXIT; {script}"
        raw = bytearray()
        with self._opened(f"shell:{script}", timeout_s) as stream:
            try:
                while block := _receive(stream, _BLOCK, deadline):
                    self._add(raw, block)
            except TimeoutError as error:
                raise self._timed_out(timeout_s, raw) from error
        text = raw.decode("utf-8", "replace").replace("\r\n", "\n")
        output, found, status = text.rpartition(f"\n{mark}")
        if not found or not status.strip().isdigit():
            raise Cut(f"{self._who}: {CUT}")
        return Completed(_signed(int(status)), output, "")

    def send(self, local: Path, remote: str, timeout_s: float) -> None:
        """Copy a file to the phone."""
        deadline = time.monotonic() + timeout_s
        with self._opened("sync:", timeout_s) as stream:
            try:
                _send(stream, _packet(b"SEND", f"{remote},{0o100644}".encode()), deadline)
                with local.open("rb") as file, contextlib.suppress(ConnectionError):
                    while block := file.read(_BLOCK):
                        _send(stream, _packet(b"DATA", block), deadline)
                    _send(stream, struct.pack("<4sI", b"DONE", int(time.time())), deadline)
                self._accepted(stream, f"can't take {local.name}", deadline)
            except TimeoutError as error:
                raise self._timed_out(timeout_s) from error

    def receive(self, remote: str, local: Path, timeout_s: float) -> None:
        """Copy a file from the phone."""
        deadline = time.monotonic() + timeout_s
        with local.open("wb") as file, self._opened("sync:", timeout_s) as stream:
            try:
                _send(stream, _packet(b"RECV", remote.encode()), deadline)
                doing = f"can't give {remote}"
                while (size := self._accepted(stream, doing, deadline)) is not None:
                    file.write(self._exactly(stream, size, deadline))
            except TimeoutError as error:
                raise self._timed_out(timeout_s) from error

    def _features(self) -> set[str]:
        if self._known_features is None:
            with self._server(ANSWER_S) as server:
                server.send_command(f"host-serial:{self.serial}:features")
                server.check_okay()
                self._known_features = set(server.read_string_block().split(","))
        return self._known_features

    def _shell_v2(self, script: str, timeout_s: float, deadline: float) -> Completed:
        streams = {1: bytearray(), 2: bytearray()}
        with self._opened(f"shell,v2,raw:{script}", timeout_s) as stream:
            try:
                while True:
                    kind, size = struct.unpack("<BI", self._exactly(stream, 5, deadline))
                    if size > _MAX_OUTPUT:
                        raise DeviceError(f"{self._who}: {NO_ADB}")
                    data = self._exactly(stream, size, deadline)
                    if kind == 3:
                        break
                    if kind in streams:
                        self._add(streams[kind], data)
            except TimeoutError as error:
                raise self._timed_out(timeout_s, streams[2] or streams[1]) from error
        out, err = (streams[i].decode("utf-8", "replace") for i in (1, 2))
        return Completed(_signed(data[0] if data else 255), out, err)

    def _accepted(self, stream: socket.socket, doing: str, deadline: float) -> int | None:
        """The size of the DATA packet that follows; None at the end of a transfer."""
        word, size = struct.unpack("<4sI", self._exactly(stream, 8, deadline))
        if word in (b"OKAY", b"DONE"):
            return None
        if word == b"DATA" and size <= _BLOCK:
            return int(size)
        if word == b"FAIL" and size <= _BLOCK:
            said = self._exactly(stream, size, deadline).decode("utf-8", "replace")
            raise DeviceError(self.refusal(doing, said))
        raise DeviceError(f"{self._who}: {NO_ADB}")

    def refusal(self, doing: str, said: str) -> str:
        """The sentence for something that the phone declined with these words."""
        said = " ".join(said.split())[-300:]
        mend = next((mend for words, mend in _MENDS.items() if words in said), None)
        return f"{self._who}: {doing}: {said}" + (f": {mend}" if mend else "")

    def _exactly(self, stream: socket.socket, size: int, deadline: float) -> bytes:
        data = bytearray()
        while len(data) < size:
            block = _receive(stream, size - len(data), deadline)
            if not block:
                raise Cut(f"{self._who}: {CUT}")
            data += block
        return bytes(data)

    def _add(self, data: bytearray, block: bytes) -> None:
        data += block
        if len(data) > _MAX_OUTPUT:
            raise DeviceError(f"{self._who}: a program there printed over {_MAX_OUTPUT >> 20} MiB")

    def _timed_out(self, timeout_s: float, said: bytes | bytearray = b"") -> TimedOut:
        error = TimedOut(f"{self._who}: the phone did not answer in {timeout_s:g} s")
        error.said = said.decode("utf-8", "replace")
        return error

    @contextlib.contextmanager
    def _opened(self, service: str, timeout_s: float) -> Iterator[socket.socket]:
        """A connection to one service of the phone."""
        with self._server(timeout_s) as server:
            for command in (f"host:transport:{self.serial}", service):
                server.send_command(command)
                server.check_okay()
            yield server.conn

    @contextlib.contextmanager
    def _server(self, timeout_s: float) -> Iterator[AdbConnection]:
        patience_s = max(timeout_s, 1.0)
        with (
            explained(self._who, timeout_s, check=self.check),
            client(self._port).make_connection(patience_s) as server,
        ):
            yield server


def _packet(word: bytes, data: bytes) -> bytes:
    return struct.pack("<4sI", word, len(data)) + data


def _send(stream: socket.socket, data: bytes, deadline: float) -> None:
    stream.settimeout(max(deadline - time.monotonic(), 0.001))
    stream.sendall(data)


def _receive(stream: socket.socket, size: int, deadline: float) -> bytes:
    stream.settimeout(max(deadline - time.monotonic(), 0.001))
    return stream.recv(min(size, _BLOCK))


def _signed(status: int) -> int:
    """A shell says 128 + the signal; here a signal is negative."""
    return 128 - status if 128 < status < 193 else status

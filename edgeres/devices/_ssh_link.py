"""A connection through the system's OpenSSH. In: an address and scripts. Out: what they did there.

The user's configuration, agent, jump hosts and host key checks apply. The first session opens the
connection and stays; the others run over it. On this side there are argument lists only; over there
is a shell, so each argument is quoted. Scripts are for dash, busybox and bash alike.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import shlex
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from edgeres import scratch
from edgeres.devices._events import last_line
from edgeres.devices._process import Process
from edgeres.errors import DeviceError

_OPTIONS = (
    "-T", "-a", "-x",  # no terminal; a board gets neither the agent nor the screen
    "-o", "BatchMode=yes", "-o", "LogLevel=ERROR", "-o", "ConnectTimeout=10",
    "-o", "ServerAliveInterval=10", "-o", "ServerAliveCountMax=3",
    "-o", "ControlPersist=no", "-o", "ClearAllForwardings=yes",
    "-o", "PermitLocalCommand=no", "-o", "RemoteCommand=none",
)  # fmt: skip
_CLIENT = ("-o", "ControlMaster=no")
_CONNECT_S = 60.0
# What ssh says -> what is wrong and how to mend it; {ssh}, {where} and {said} are filled in.
_FAULTS = (
    ("REMOTE HOST IDENTIFICATION HAS CHANGED",
     "the host key of {where} is not the one known; if the board was set up anew, remove the old "
     "key by `ssh-keygen -R`, else another machine may be answering in its place"),
    ("Host key verification failed",
     "the host key of {where} is not known; run `{ssh}` once and check it there"),
    ("Could not resolve hostname",
     "ssh can't find {where} ({said}); check the name, or give it an address in ~/.ssh/config"),
    (r"Permission denied \(", "ssh can't log in to {where} ({said}); check that `{ssh}` works"),
    ("Connection refused",
     "{where} refuses the connection ({said}); check the port, and that its ssh server is on"),
    ("timed out|No route to host|unreachable",
     "{where} can't be reached ({said}); check that it is on and connected"),
    ("No space left", "{where} has no space left ({said}); free some, or set `workdir` to a folder "
     "that has room"),
    ("Read-only file system|ermission denied|cannot create|can't create",
     "{where} can't be written to ({said}); set `workdir` to a folder that can"),
)  # fmt: skip


@dataclass(frozen=True)
class Address:
    """Where ssh goes: a host or an alias, and what overrides the user's configuration."""

    host: str
    user: str = ""
    port: int = 0
    identity: str = ""
    config: str = ""

    def argv(self) -> list[str]:
        """ssh's arguments for it."""
        options = [
            ("-F", str(Path(self.config).expanduser()) if self.config else ""),
            ("-i", str(Path(self.identity).expanduser()) if self.identity else ""),
            ("-p", str(self.port) if self.port else ""),
            ("-l", self.user),
        ]
        return [x for flag, value in options if value for x in (flag, value)] + ["--", self.host]

    def __str__(self) -> str:
        port = f":{self.port}" if self.port else ""
        return f"{self.user}@{self.host}{port}" if self.user else f"{self.host}{port}"


@dataclass(frozen=True)
class Said:
    """How a script ended: the status it noted, and what its program printed."""

    status: int
    stdout: bytes
    stderr: bytes


class Link:
    """An open connection."""

    def __init__(self, name: str, address: Address, keeper: str, *arguments: str) -> None:
        """Connect, and start the script `keeper`, which runs until the connection ends.

        Raises:
            DeviceError: no connection; says why and the mend.
        """
        self.name, self.address = name, address
        # A socket's path may have 104 characters at most, and ssh adds some while it makes one.
        short = len(tempfile.gettempdir()) <= 50
        try:
            self._folder = scratch.Folder("ssh", None if short else Path("/tmp"))
        except OSError as error:
            raise DeviceError(f"device '{name}': no folder for ssh: {error}") from error
        self._control = ["-S", f"{self._folder.path}/s"]
        try:
            self._keeper, self.greeting = self.guard(keeper, *arguments, options=["-M"])
        except BaseException:
            self._folder.remove()
            raise

    def close(self) -> None:
        """End the keeper, and with it the connection. Safe to call twice."""
        self._keeper.end()
        self._folder.remove()

    def guard(
        self, script: str, *arguments: str, options: Sequence[str] = _CLIENT
    ) -> tuple[Process, list[str]]:
        """Start a script that prints lines and $0, then waits for its stdin to end.

        Returns it with the lines.

        Raises:
            DeviceError: it ended before it printed $0.
        """
        marker = secrets.token_hex(16)
        process = self._start([*_OPTIONS, *self._control, *options], marker, script, arguments)
        end = f"{marker}\n".encode()
        try:
            process.read(_CONNECT_S, lambda: process.stdout.count(end) >= 2)
        except (TimeoutError, OverflowError) as error:
            process.end()
            raise self.fault("it did not answer: connection timed out") from error
        except BaseException:
            process.end()
            raise
        parts = process.stdout.split(end)
        if len(parts) < 3:
            process.end()
            raise self.fault(_text(process.stderr))
        del process.stdout[:]
        return process, _text(parts[1]).splitlines()

    def perform(
        self, script: str, *arguments: str, timeout_s: float, stdin: IO[bytes] | None = None
    ) -> Said:
        """Run a script that prints $0 on both streams first, and "$0 STATUS" on stderr last.

        What comes before is the login shell's. Without the last line ssh failed, not the script.

        Raises:
            DeviceError: the connection failed, or the script prints without end.
            TimeoutError: it did not end in time; the argument is what it had said.
        """
        marker = secrets.token_hex(16)
        options = [*_OPTIONS, *self._control, *_CLIENT]
        process = self._start(options, marker, script, arguments, stdin)
        begin = f"{marker}\n".encode()
        try:
            process.read(timeout_s)
        except TimeoutError as error:
            process.end()
            streams = (process.stderr, process.stdout)
            words = [last_line(_text(stream.partition(begin)[2])) for stream in streams]
            raise TimeoutError(words[0] or words[1]) from error
        except OverflowError as error:
            raise DeviceError(f"device '{self.name}': a program prints without end") from error
        finally:
            process.end()
        said, started, stderr = process.stderr.partition(begin)
        if not started:
            raise self.fault(self._last_words() or _text(said))
        stdout = process.stdout.partition(begin)[2]
        stderr, _, status = stderr.rpartition(f"{marker} ".encode())
        if not re.match(rb"\d{1,3}\n", status):
            raise self._lost(self._last_words() or _text(status).replace(marker, ""))
        stderr = stderr.replace(f"{marker}: ".encode(), b"")  # a shell says $0 before its words
        return Said(int(status.partition(b"\n")[0]), bytes(stdout), bytes(stderr))

    def fault(self, said: str) -> DeviceError:
        """The error for what ssh, or a shell over there, said last."""
        how = shlex.join(["ssh", *(a for a in self.address.argv() if a != "--")])
        for pattern, sentence in _FAULTS:
            for line in said.splitlines():
                if re.search(pattern, line):
                    text = sentence.format(where=self.address, ssh=how, said=last_line(line))
                    return DeviceError(f"device '{self.name}': {text}")
        return self._lost(said)

    def _lost(self, said: str) -> DeviceError:
        words = last_line(said) or "it ended without a word"
        return DeviceError(
            f"device '{self.name}': the connection to {self.address} was lost: {words}"
        )

    def _last_words(self) -> str:
        """What the first ssh said, if it has ended."""
        with contextlib.suppress(TimeoutError, OverflowError):
            self._keeper.read(1)
        return _text(self._keeper.stderr)

    def _start(
        self,
        options: Sequence[str],
        marker: str,
        script: str,
        arguments: Sequence[str],
        stdin: IO[bytes] | None = None,
    ) -> Process:
        # exec: sh itself then leads the session that sshd made, so its process group is all of it
        command = "exec /bin/sh -c " + shlex.join([script, marker, *arguments])
        try:
            return Process(["ssh", *options, *self.address.argv(), command], stdin)
        except OSError as error:
            raise DeviceError(f"device '{self.name}': can't start ssh: {error.strerror}; "
                              "install OpenSSH's client") from error  # fmt: skip


def resolved(name: str, address: Address) -> str:
    """The machine that ssh's configuration makes of an address, as "ssh:HOST:PORT".

    Raises:
        DeviceError: there is no ssh, or its configuration is wrong.
    """
    try:
        process = Process(["ssh", "-G", *address.argv()])
    except OSError as error:
        raise DeviceError(f"device '{name}': can't start ssh: {error.strerror}; "
                          "install OpenSSH's client") from error  # fmt: skip
    with contextlib.suppress(TimeoutError, OverflowError):
        process.read(10)
    process.end()
    settings = dict(line.partition(" ")[::2] for line in _text(process.stdout).splitlines())
    if "hostname" not in settings:
        said = last_line(_text(process.stderr))
        raise DeviceError(f"device '{name}': ssh can't use its configuration: {said}")
    return f"ssh:{settings['hostname']}:{settings.get('port', 22)}"


def _text(said: bytes | bytearray) -> str:
    return said.decode("utf-8", "replace")

"""This machine as a device. In: a profile of kind local. Out: a Device that runs subprocesses.

Files are staged in a temporary folder under names made of their content's hash. The setting
`python` names another interpreter, for a runtime that lives in an environment of its own.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from edgeres import scratch
from edgeres.devices import Completed, DeviceProfile, Setting
from edgeres.devices._base import Base, settings
from edgeres.devices._events import last_line
from edgeres.devices._process import Process
from edgeres.errors import DeviceError

SETTINGS = {"python": Setting(str, starts_programs=True)}


def connect(profile: DeviceProfile) -> LocalDevice:
    """Open this machine.

    Raises:
        BadInput: a setting is unknown or not text.
        DeviceError: the temporary folder can't be made.
    """
    return LocalDevice(profile, **settings(profile, SETTINGS))


class LocalDevice(Base):
    """Implements Device with subprocesses, each in a session of its own."""

    address = "local"

    def __init__(self, profile: DeviceProfile, python: str = sys.executable) -> None:
        super().__init__(profile)
        self._python = python
        try:
            self._scratch = scratch.Folder("device")
        except OSError as error:
            raise DeviceError(f"device '{self.name}': no staging folder: {error}") from error
        self._staging = self._scratch.path

    def push(self, local: Path) -> str:
        """Copy a file into the staging folder unless its content is already there."""
        try:
            digest = hashlib.sha256()
            with local.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
            remote = self._staging / f"{digest.hexdigest()[:16]}-{local.name}"
            if not remote.exists():
                partial = remote.with_name(remote.name + ".partial")
                shutil.copyfile(local, partial)
                partial.replace(remote)  # a name is there whole or not at all
        except OSError as error:
            raise DeviceError(f"device '{self.name}': can't take {local}: {error}") from error
        return str(remote)

    def pull(self, remote: str, local: Path) -> None:
        """Copy a file out; a relative path starts at the staging folder."""
        try:
            shutil.copyfile(self._staging / remote, local)
        except OSError as error:
            raise DeviceError(f"device '{self.name}': can't give {remote}: {error}") from error

    def run(self, argv: Sequence[str], timeout_s: float) -> Completed:
        """Run a program in the staging folder; at the timeout its whole process group is killed."""
        end = time.monotonic() + timeout_s
        try:
            with Path(os.devnull).open("rb") as nothing:
                environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "1"}
                process = Process(argv, nothing, self._staging, environment)
        except (OSError, ValueError) as error:  # ValueError: a NUL in an argument
            raise DeviceError(f"device '{self.name}': can't start {argv[0]}: {error}") from error
        name = f"device '{self.name}': {Path(argv[0]).name}"
        try:
            process.read(timeout_s)
            code = process.wait(end - time.monotonic())
        except TimeoutError as error:
            said = last_line(_text(_killed(process)))
            ending = f"; it last said: {said}" if said else " and said nothing"
            raise DeviceError(f"{name} did not finish in {timeout_s:g} s{ending}") from error
        except OverflowError as error:
            _killed(process)
            raise DeviceError(f"{name} prints without end, and was stopped") from error
        except BaseException:  # an interrupted benchmark must leave nothing running
            _killed(process)
            raise
        return Completed(code, _text(process.stdout), _text(process.stderr))

    def python(self) -> tuple[str, ...]:
        """This interpreter, or the one of the profile."""
        return (self._python,)

    def close(self) -> None:
        """Remove the staging folder."""
        self._scratch.remove()


def _killed(process: Process) -> bytearray:
    """Kill the process with everything it started; returns what it had printed."""
    process.kill()
    process.end()
    return process.stdout + b"\n" + process.stderr if process.stderr.strip() else process.stdout


def _text(said: bytearray) -> str:
    return said.decode("utf-8", "replace")

"""This machine as a device. In: a profile of kind local. Out: a Device that runs subprocesses.

Files are staged in a temporary folder under names made of their content's hash. The setting
`python` names another interpreter, for a runtime that lives in an environment of its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from edgeres.devices import Completed, DeviceProfile
from edgeres.devices._base import Base, settings
from edgeres.devices._events import last_line
from edgeres.errors import DeviceError

_AFTER_KILL_S = 5.0


def connect(profile: DeviceProfile) -> LocalDevice:
    """Open this machine.

    Raises:
        BadInput: a setting is unknown or not text.
        DeviceError: the temporary folder can't be made.
    """
    return LocalDevice(profile, **settings(profile, {"python": str}))


class LocalDevice(Base):
    """Implements Device with subprocesses, each in a session of its own."""

    address = "local"

    def __init__(self, profile: DeviceProfile, python: str = sys.executable) -> None:
        super().__init__(profile)
        self._python = python
        try:
            self._staging = Path(tempfile.mkdtemp(prefix="edgeres-device-"))
        except OSError as error:
            raise DeviceError(f"device '{self.name}': no staging folder: {error}") from error

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
        try:
            process = subprocess.Popen(
                list(argv),
                cwd=self._staging,
                env={**os.environ, "ORT_DISABLE_TELEMETRY": "1"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
        except OSError as error:
            raise DeviceError(f"device '{self.name}': can't start {argv[0]}: {error}") from error
        try:
            stdout, stderr = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            said = last_line(_kill(process))
            ending = f"; it last said: {said}" if said else " and said nothing"
            raise DeviceError(
                f"device '{self.name}': {Path(argv[0]).name} did not finish "
                f"in {timeout_s:g} s{ending}"
            ) from error
        except BaseException:  # an interrupted benchmark must leave nothing running
            _kill(process)
            raise
        return Completed(process.returncode, stdout, stderr)

    def python(self) -> tuple[str, ...]:
        """This interpreter, or the one of the profile."""
        return (self._python,)

    def close(self) -> None:
        """Remove the staging folder."""
        shutil.rmtree(self._staging, ignore_errors=True)


def _kill(process: subprocess.Popen[str]) -> str:
    """Kill the process with everything it started; returns what it had printed."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    try:
        stdout, stderr = process.communicate(timeout=_AFTER_KILL_S)
    except subprocess.TimeoutExpired:  # a child that left the group still holds the pipes
        return ""
    return f"{stdout}\n{stderr}" if stderr.strip() else stdout

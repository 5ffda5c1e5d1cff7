"""The adb server of this machine. In: its port. Out: connections to it, and what goes wrong with
them in one sentence.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import TYPE_CHECKING

from edgeres.errors import DeviceError, MissingComponent

if TYPE_CHECKING:
    from adbutils import AdbClient

ANSWER_S = 20.0
CUT = "the connection to the phone was cut; plug it in again and repeat"
NO_ADB = "what came back is no answer of adb; run 'adb kill-server' and repeat"


class Cut(DeviceError):
    """The connection ended before the answer did."""


class TimedOut(DeviceError):
    """The phone did not answer in time; `said` is what had come until then."""

    said = ""


def adbutils() -> ModuleType:
    """The package, imported when it is needed.

    Raises:
        MissingComponent: it isn't installed.
    """
    try:
        import adbutils as package
    except ImportError as error:
        raise MissingComponent("phones need adbutils: pip install 'edgeres[android]'") from error
    return package


def attached(port: int | None = None) -> list[dict[str, str]]:
    """The phones that the adb server knows: serial, state, model.

    Raises:
        DeviceError: there is no adb server and none can be started.
        MissingComponent: adbutils isn't installed.
    """
    with explained("adb server", ANSWER_S, NO_ADB):
        return [
            {"serial": info.serial, "state": {"no": "no permissions"}.get(info.state, info.state),
             "model": info.tags.get("model", "").replace("_", " ")}
            for info in client(port).list(extended=True)
        ]  # fmt: skip


def client(port: int | None) -> AdbClient:
    """A client of the adb server, which is started if there is none."""
    package = adbutils()
    found = package.AdbClient(port=port, socket_timeout=ANSWER_S)
    if not _listening(found.host, found.port):
        _start(found.host, found.port)
    return found


@contextlib.contextmanager
def explained(
    who: str, timeout_s: float, otherwise: str = CUT, check: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Errors of the connection as ours; `check` raises a better one if it knows it."""
    package = adbutils()
    try:
        yield
    except (package.AdbTimeout, TimeoutError) as error:
        raise TimedOut(f"{who}: the phone did not answer in {timeout_s:g} s") from error
    except (package.AdbError, ConnectionError, EOFError, ValueError) as error:
        check()
        said = " ".join(str(error).split())[:300]
        own_words = said and isinstance(error, package.AdbError) and "closed" not in said
        raise Cut(f"{who}: {otherwise}" + (f" (adb said: {said})" if own_words else "")) from error


def _listening(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=3):
            return True
    except OSError:
        return False


def _start(host: str, port: int) -> None:
    """What `adb devices` does too; adbutils itself would forget the port."""
    with contextlib.suppress(OSError, subprocess.SubprocessError, adbutils().AdbError):
        subprocess.run(
            [adbutils().adb_path(), "-P", str(port), "start-server"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            timeout=ANSWER_S, check=False, env={**os.environ, "ADB_SERVER_SOCKET": ""},
        )  # fmt: skip
    if not _listening(host, port):
        raise DeviceError(f"no adb server answers on {host}:{port}, and none could be started: "
                          f"install Android's platform tools and run 'adb devices'")  # fmt: skip

"""Several devices at once: profiles and files flow in, everything that could be measured comes out.

Devices that are reached over a wire are measured in parallel; this machine is measured before
them, alone, since it would feel their traffic. A device belongs to one measurement at a time, also
across processes.
"""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from filelock import FileLock, Timeout

from edgeres import devices
from edgeres.devices import DeviceProfile
from edgeres.errors import DeviceError
from edgeres.measurement import protocol
from edgeres.measurement.protocol import Candidate, Measured

_PATIENCE_S = 600.0  # another measurement of a few files takes no longer
_AT_ONCE = 8


def measure(
    candidates: Sequence[Candidate],
    profiles: Sequence[DeviceProfile],
    preset: str,
    *,
    threads: int | None = None,
    on_event: Callable[[str], None] = lambda note: None,
) -> list[Measured]:
    """Measure files on each device, in the order of `profiles`; one that fails has only failures.

    Args:
        threads: of the runtimes; what each profile says if None.

    Raises:
        BadInput: an unknown preset, or a wrong setting in a profile.
    """

    def one(profile: DeviceProfile) -> Measured:
        try:
            with devices.open_device(profile) as device, reserved(device.address, on_event):
                return protocol.measure(
                    candidates, device, preset, threads=threads or profile.threads,
                    on_event=on_event,
                )  # fmt: skip
        except DeviceError as error:
            return Measured(
                failures=[{"device": profile.name, "target": "", "message": str(error)}]
            )

    here = [p for p in profiles if p.kind == "local"]
    there = [p for p in profiles if p.kind != "local"]
    found = {id(p): one(p) for p in here}
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        futures = {id(p): pool.submit(one, p) for p in there}
        found |= {key: future.result() for key, future in futures.items()}
    return [found[id(p)] for p in profiles]


@contextlib.contextmanager
def reserved(address: str, on_event: Callable[[str], None] = lambda note: None) -> Iterator[None]:
    """Keep a device for this measurement while the block lasts.

    Raises:
        DeviceError: another measurement still has it after ten minutes.
    """
    name = hashlib.sha256(address.encode()).hexdigest()[:16]
    path = Path(tempfile.gettempdir(), f"edgeres-device-{name}.lock")
    lock = FileLock(path, mode=0o666)
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            on_event(f"waiting for {address}: another measurement has it")
            lock.acquire(timeout=_PATIENCE_S)
    except Timeout as error:
        raise DeviceError(f"{address} is being measured by another process; try again later "
                          f"(its lock is {path})") from error  # fmt: skip
    except OSError as error:
        raise DeviceError(f"{path}: can't lock the device: {error.strerror}") from error
    try:
        yield
    finally:
        lock.release()

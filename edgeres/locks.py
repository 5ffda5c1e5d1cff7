"""Locks in a folder that several processes share, maybe of several machines.

The system's own (flock) are free at once when their owner dies. A file system of a cluster may lack
them, or have them within each machine only. There, locks are leases: files that their owner touches
now and then, and that another process may take once it has seen no touch for two minutes by its own
clock. Which of the two it is, the folder says, so that all who share it do the same: where it has
a file `leases`, which may hold another number of seconds. That file is made where flock is not to
be had; a person makes it where flock is known to stop at the machine.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edgeres import door
from edgeres.errors import StorageError

MARKER = "leases"
_LEASE_S = 120
_TOUCHES = 12  # within a lease: native code may hold up the thread that touches
_PATIENCE_S = 0.5
_UNSUPPORTED = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)


class Taken(Exception):
    """Somebody else has the lock."""


def _lease_s(folder: Path) -> float | None:
    """Seconds that a lease lasts; None where locks are the system's."""
    if not door.is_there(folder / MARKER):
        return None
    try:
        seconds = int(door.read(folder / MARKER, 100) or _LEASE_S)
    except ValueError:
        seconds = 0
    if not 0 < seconds < 10**6:
        raise StorageError(f"{folder / MARKER}: holds no number of seconds; empty it")
    return float(seconds)


def prepare(folder: Path) -> None:
    """Find out which locks there are; OSError if the folder can't be written."""
    if _lease_s(folder) is not None:
        return
    descriptor = _opened(folder / "probe.lock")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        (folder / MARKER).touch()
    finally:
        os.close(descriptor)


@contextmanager
def exclusive(folder: Path, name: str, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Have a lock for oneself.

    Args:
        waiting: called every half second while another has it; may raise to give up. None: not
            waited for.

    Raises:
        Taken: another has it, and it isn't waited for. OSError: the folder can't be written.
    """
    from filelock import FileLock, SoftFileLease, Timeout

    path = folder / f"{name}.lock"
    lock: FileLock | SoftFileLease = FileLock(path)
    if lasts := _lease_s(folder):
        lock = SoftFileLease(path, lease_duration=lasts, heartbeat_interval=lasts / _TOUCHES)
    while True:  # always the same object, which remembers since when a lease wasn't touched
        try:
            lock.acquire(timeout=0 if waiting is None else _PATIENCE_S)
            break
        except Timeout:
            if waiting is None:
                raise Taken from None
            waiting()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def shared(folder: Path, name: str, alone: bool) -> Iterator[None]:
    """Be one of those who share a lock, or the only one; leases are waited for until they end.

    Raises:
        Taken: `alone`, and another has it; or another has it alone. OSError: as `one`.
    """
    if lasts := _lease_s(folder):
        from filelock import SoftReadWriteLock, Timeout

        both = SoftReadWriteLock(
            folder / f"{name}.rw", is_singleton=False, heartbeat_interval=lasts / _TOUCHES,
            stale_threshold=lasts,
        )  # fmt: skip
        taking = both.acquire_write if alone else both.acquire_read
        try:
            taking(2 * lasts if alone else -1)  # so long, it may be of somebody dead
        except Timeout:
            raise Taken from None
        try:
            yield
        finally:
            both.release()
        return
    with os.fdopen(_opened(folder / f"{name}.lock"), "rb+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB if alone else fcntl.LOCK_SH)
        except BlockingIOError:
            raise Taken from None
        yield


def _opened(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)

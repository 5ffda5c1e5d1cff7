"""Scratch folders that don't outlive their process, not even one that is killed.

Each holds a lock file that its process keeps locked. What a killed process left is removed by the
next one that makes a folder: its lock can be had.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

_PREFIX = "edgeres-scratch-"
_LOCK = ".lock"
_STALE_S = 24 * 3600.0


class Folder:
    """A private folder below the system's temporary one, until `remove`.

    Attributes:
        path: where it is.
    """

    def __init__(self, purpose: str, below: Path | None = None) -> None:
        """Make it, and remove what killed processes of this user left there.

        Args:
            purpose: a word for whoever looks into the temporary folder.
            below: another folder than the system's temporary one.

        Raises:
            OSError: there is no room, or no permission.
        """
        _sweep(below or Path(tempfile.gettempdir()))
        self.path = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{purpose}-", dir=below))
        self._lock = _locked(self.path)

    def remove(self) -> None:
        """Remove it with all that is in it. Safe to call twice."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


@contextlib.contextmanager
def folder(purpose: str) -> Iterator[Path]:
    """A private folder for the length of a `with` block; raises like `Folder`."""
    made = Folder(purpose)
    try:
        yield made.path
    finally:
        made.remove()


def _locked(path: Path) -> int | None:
    """Lock a new folder; None where the file system has no locks, so that nobody ever sweeps it."""
    import fcntl

    unnamed = path / f"{_LOCK}.new"
    descriptor = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        unnamed.rename(path / _LOCK)  # a lock with this name was held from the first moment on
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _sweep(place: Path) -> None:
    """Remove the folders of this user whose process is gone."""
    with contextlib.suppress(OSError):
        for old in place.glob(f"{_PREFIX}*"):
            known = old.lstat()
            if stat.S_ISDIR(known.st_mode) and known.st_uid == os.getuid() and _abandoned(old):
                shutil.rmtree(old, ignore_errors=True)


def _abandoned(path: Path) -> bool:
    import fcntl

    try:
        descriptor = os.open(path / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:  # just made, or killed while it was being removed
        unlockable = (path / f"{_LOCK}.new").exists()
        return not unlockable and time.time() - path.stat().st_mtime > _STALE_S
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)

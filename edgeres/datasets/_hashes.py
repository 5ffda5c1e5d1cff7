"""What files hash to, remembered for as long as nobody wrote to them.

In a file of rows: a key, which is a hash of the path and of what the system says of the file (size,
times, inode); the SHA-256 of its contents; and a check of the two, so that a damaged row is none. A
file that was written to within two seconds before it was hashed isn't remembered: another change
could leave the same times (git's rule for "racily clean" files).
"""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import suppress
from pathlib import Path

from edgeres.disk import open_regular, write_whole

_KEY, _SHA256, _CHECK = 16, 32, 8
_ROW = _KEY + _SHA256 + _CHECK
_SETTLED_NS = 2_000_000_000
_MOST_BYTES = 1 << 30  # 19 million files
_AT_ONCE = 1 << 12  # rows that are kept in memory until they are written
_CHUNK = 1 << 20


class Hashes:
    """Hashes of the files of one data set.

    Args:
        file: where they are remembered; None: nowhere.

    Attributes:
        read: how many files were read for it.
    """

    def __init__(self, file: Path | None):
        import numpy as np

        self.read = 0
        self._file, self._new = file, list[bytes]()
        self._rows = np.frombuffer(_content(file), np.uint8).reshape(-1, _ROW)
        firsts = np.ascontiguousarray(self._rows[:, :8]).view("<u8").ravel()
        self._order = np.argsort(firsts, kind="stable")
        self._firsts = firsts[self._order]
        self._used = np.zeros(len(firsts), bool)

    def sha256(self, path: Path) -> bytes:
        """A regular file's, 32 bytes.

        Raises:
            BadInput: it isn't one, or can't be read.
        """
        with suppress(OSError):  # opening it says what is wrong
            if (known := self._find(_key(path, path.stat()))) is not None:
                return known
        with open_regular(path) as stream:
            key = _key(path, os.fstat(stream.fileno()))
            begin, digest = time.time_ns(), hashlib.sha256()
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
            after = os.fstat(stream.fileno())
        self.read += 1
        settled = max(after.st_mtime_ns, after.st_ctime_ns) < begin - _SETTLED_NS
        if self._file is not None and settled and _key(path, after) == key:
            found = key + digest.digest()
            self._new.append(found + _check(found))
            if len(self._new) == _AT_ONCE:
                self._append()
        return digest.digest()

    def save(self) -> None:
        """Keep what was hashed, for when the same data set is looked at again, whole."""
        kept = int(self._used.sum())
        if self._file is not None and len(self._rows) - kept > kept + len(self._new):
            rows = [self._rows[self._used].tobytes(), *self._new]  # most were of files as they were
            with suppress(OSError):
                write_whole(self._file, b"".join(rows), 0o600)
        elif self._new:
            self._append()
        self._new = []

    def _find(self, key: bytes) -> bytes | None:
        import numpy as np

        first = np.frombuffer(key[:8], "<u8")[0]
        at = int(np.searchsorted(self._firsts, first))
        while at < len(self._firsts) and self._firsts[at] == first:
            row = self._rows[self._order[at]].tobytes()
            if row[:_KEY] == key and _check(row[:-_CHECK]) == row[-_CHECK:]:
                self._used[self._order[at]] = True
                return row[_KEY:-_CHECK]
            at += 1
        return None

    def _append(self) -> None:
        """Add the new rows; where they can't be kept, files are read again."""
        assert self._file is not None
        with suppress(OSError):
            self._file.parent.mkdir(exist_ok=True)
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
            with os.fdopen(os.open(self._file, flags, 0o600), "ab") as file:
                if cut := os.fstat(file.fileno()).st_size % _ROW:  # a killed process's last one
                    file.truncate(os.fstat(file.fileno()).st_size - cut)
                file.write(b"".join(self._new))
        self._new = []


def _content(file: Path | None) -> bytes:
    """The whole rows of a file; none where it can't be read."""
    if file is None or file.is_symlink() or not file.is_file():
        return b""
    with suppress(OSError), file.open("rb") as stream:
        content = stream.read(_MOST_BYTES)
        return content[: len(content) // _ROW * _ROW]
    return b""


def _key(path: Path, status: os.stat_result) -> bytes:
    known = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
    told = os.fsencode(path.absolute()) + f"\0{known}".encode()
    return hashlib.blake2b(told, digest_size=_KEY).digest()


def _check(row: bytes) -> bytes:
    return hashlib.blake2b(row, digest_size=_CHECK).digest()

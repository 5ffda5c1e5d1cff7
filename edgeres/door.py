"""Files that edgeres wrote and somebody may have touched since: no links, bounds, right hashes.

A file below a folder is named by a plain relative name, is regular, and is reached without a link.
A file whose hash was once computed isn't read again as long as the system says that nobody wrote to
it: same device, inode, size and times, of which no call sets the last (ctime). What must be sure is
hashed again.
What was seen so is kept in the user's own cache folder, never beside the files, as marks that only
a hash of all this can produce; without the folder, files are read again.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import math
import os
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgeres.disk import at_most, cache_folder
from edgeres.errors import StorageError

MOST_DOCUMENT = 16 << 20
"""Bytes of a JSON document, where nothing else is said."""

MOST_DATA = 256 << 20
"""Bytes of one that holds raw data: samples, a report."""

_MOST_ENTRIES, _MOST_DEPTH, _LONGEST_NAME = 100_000, 64, 240
_MOST_MARKS = 1 << 15  # 1 MiB
_SETTLED_NS = 200_000_000  # a later change within the clock's step would have the same times
_MARK = 32
_DIGITS = 18
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)  # a pipe without a writer isn't waited for
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)


def is_plain(name: object) -> bool:
    """Whether it is the name of a file in a folder: a text, no path, nothing hidden, printable."""
    return (
        isinstance(name, str)
        and 0 < len(name.encode("utf-8", "replace")) <= _LONGEST_NAME
        and name[0] != "."
        and name.isprintable()
        and not set(name) & set('/\\:*?"<>|')
    )


def is_inside(name: str) -> bool:
    """Whether a text is the relative name of a file below a folder: `a`, `a/b`, never `../a`."""
    parts = name.split("/")
    return len(parts) <= _MOST_DEPTH and all(
        part not in ("", ".", "..") and part.isprintable() and "\\" not in part
        and len(part.encode("utf-8", "replace")) <= _LONGEST_NAME
        for part in parts
    )  # fmt: skip


def entries(folder: Path) -> set[str]:
    """The names of all files below a folder, each regular and reached without a link.

    Raises:
        StorageError: there is a link, a pipe or the like, or there is far too much.
    """
    found: set[str] = set()
    waiting = [""]
    while waiting:
        below = waiting.pop()
        with _said(folder / below), os.scandir(folder / below) as listed:
            for entry in listed:
                name = f"{below}{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(f"{name}/")
                elif entry.is_file(follow_symlinks=False):
                    found.add(name)
                else:
                    raise _no_file(folder / name)
        if len(found) + len(waiting) > _MOST_ENTRIES or below.count("/") > _MOST_DEPTH:
            raise StorageError(f"{folder}: holds too many or too deep files; remove the folder")
    return found


def reached(folder: Path, name: str) -> Path:
    """The path of a file below a folder, if no folder on the way is a link.

    Raises:
        StorageError: one is, or the name leads elsewhere.
    """
    if not is_inside(name):
        raise StorageError(f"{folder}: {name[:80]!r} is no name of a file in it")
    path = folder
    for part in name.split("/")[:-1]:
        path = path / part
        with _said(path):
            if not stat.S_ISDIR(path.lstat().st_mode):
                raise StorageError(f"{path}: is a link or a file, not a folder; remove it")
    return folder / name


def is_there(path: Path) -> bool:
    """Whether there is a regular file; raises StorageError where there is a link or a device."""
    if not os.path.lexists(path) or stat.S_ISREG(path.lstat().st_mode):
        return os.path.lexists(path)
    raise _no_file(path)


def read(path: Path, most_bytes: int = MOST_DOCUMENT) -> bytes:
    """The contents of a regular file; a link isn't followed.

    Raises:
        StorageError: it isn't there, is no regular file, or is larger.
    """
    descriptor = _opened(path)
    with os.fdopen(descriptor, "rb") as file, _said(path):
        content = at_most(most_bytes, file)
    if len(content) > most_bytes:
        raise StorageError(f"{path}: is larger than {most_bytes:,} bytes; remove it")
    return content


def read_json(path: Path, most_bytes: int = MOST_DOCUMENT) -> Any:
    """The value in a JSON file; raises like `read` and `parsed`."""
    return parsed(read(path, most_bytes), path)


def parsed(content: bytes, where: Path) -> Any:
    """The value of a JSON document. A number that is none, or none that fits, is read as null.

    Raises:
        StorageError: not JSON, not UTF-8, nested too deep, or a key stands in it twice.
    """
    try:
        value = json.loads(
            content.decode("utf-8"), parse_constant=lambda _: None, parse_float=_finite,
            parse_int=_integer, object_pairs_hook=unique,
        )  # fmt: skip
        if _SURROGATE.search(content):  # half a character, which nothing can print
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise StorageError(
            f"{where}: is damaged (no JSON document); remove it and repeat"
        ) from error
    level = [value]
    for _ in range(_MOST_DEPTH):
        level = [inner for outer in level if isinstance(outer, (dict, list))
                 for inner in (outer.values() if isinstance(outer, dict) else outer)
                 if isinstance(inner, (dict, list))]  # fmt: skip
        if not level:
            return value
    raise StorageError(f"{where}: is damaged (nested too deep); remove it and repeat")


def has(path: Path, sha256: str, size_bytes: int, again: bool = False) -> bool:
    """Whether a path is a regular file of these contents; hashed once, as long as it is untouched.

    Args:
        again: hash it whatever is remembered: a page written through a mapping changes no time.

    Raises:
        StorageError: it is a link or no file, or can't be read.
    """
    with _said(path):
        status = path.lstat()
    if not stat.S_ISREG(status.st_mode):
        raise _no_file(path)
    if status.st_size != size_bytes:
        return False
    if not again and _mark(status, sha256) in _marks():
        return True
    begin = time.time_ns()
    digest = hashlib.sha256()
    with os.fdopen(_opened(path), "rb") as file, _said(path):
        before = os.fstat(file.fileno())
        while block := file.read(1 << 20):
            digest.update(block)
        after = os.fstat(file.fileno())
    if digest.hexdigest() != sha256:
        return False
    mark = _mark(after, sha256)
    if mark == _mark(before, sha256) and after.st_ctime_ns + _SETTLED_NS < begin:
        _note(mark)
    return True


def _mark(status: os.stat_result, sha256: str) -> bytes:
    known = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return hashlib.sha256(f"{known} {sha256}".encode()).digest()


@functools.cache
def _marks() -> set[bytes]:
    """What earlier processes have hashed."""
    try:
        content = read(_file(), _MARK * _MOST_MARKS * 2)
    except StorageError:
        return set()
    return {content[at : at + _MARK] for at in range(0, len(content), _MARK)}


def _note(mark: bytes) -> None:
    """Remember a mark, here and for later processes; where it can't be kept, files are reread."""
    _marks().add(mark)
    with contextlib.suppress(OSError, StorageError):
        path = _file()
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | (_FLAGS & ~os.O_RDONLY)
        with os.fdopen(os.open(path, flags, 0o600), "ab") as file:
            size = os.fstat(file.fileno()).st_size
            if size % _MARK or size >= _MARK * _MOST_MARKS:  # cut off, or full: begin anew
                file.truncate(0)
            file.write(mark)


def _file() -> Path:
    return cache_folder() / "checked"


def _opened(path: Path) -> int:
    """A descriptor of a regular file."""
    with _said(path):
        descriptor = os.open(path, _FLAGS)
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return descriptor
        os.close(descriptor)
    raise _no_file(path)


def _finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


def _integer(text: str) -> int | None:
    return int(text) if len(text) <= _DIGITS else None


def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object's hook: ValueError where it says two things under one key."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands there twice")
    return found


@contextlib.contextmanager
def _said(path: Path) -> Iterator[None]:
    """The system's refusals as a sentence."""
    try:
        yield
    except FileNotFoundError:
        raise StorageError(f"{path}: isn't there; it was removed or never made") from None
    except (OSError, ValueError) as error:
        if path.is_symlink():
            raise _no_file(path) from error
        reason = getattr(error, "strerror", None) or error
        raise StorageError(f"{path}: can't be read ({reason})") from error


def _no_file(path: Path) -> StorageError:
    return StorageError(f"{path}: is a link, a folder or a device where edgeres writes a file; "
                        "remove it")  # fmt: skip

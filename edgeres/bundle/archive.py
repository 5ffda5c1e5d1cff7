"""A bundle's files: an archive or a folder from anywhere in, checked names and regular files out.

An archive is read as `write` lays it out, and no other: entries one behind the other from the first
byte on, the directory behind them, nothing else. Whatever unpacks it finds the same files in it.
"""

from __future__ import annotations

import os
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from edgeres import scratch
from edgeres.disk import open_regular, read_bounded, storage_errors, writing_whole
from edgeres.errors import BadInput

MOST_FILES, MOST_BYTES = 500, 4 * 1024**3
_DEEPEST, _LONGEST = 10, 240  # folders in a name, bytes of a name
_DATE = (1980, 1, 1, 0, 0, 0)  # the same files give the same bytes
_LOCAL, _CENTRAL, _END = (struct.Struct(f"<4s{rest}") for rest in ("5H3L2H", "6H3L5H2L", "4H2LH"))
_UTF8 = 0x800
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Contents:
    """The files of a bundle: `model/net.tflite` -> where it lies, a regular file."""

    files: Mapping[str, Path]
    folder: Path

    def read(self, name: str, limit: int) -> bytes:
        """A file of at most so many bytes.

        Raises:
            BadInput: it is larger, or can't be read.
        """
        return read_bounded(self.files[name], limit, "part of a bundle")


@contextmanager
def opened(path: Path) -> Iterator[Contents]:
    """The files of an archive or an unpacked one; an archive's are gone afterwards.

    Raises:
        BadInput: it can't be read, isn't laid out as `write` does, holds links or anything else
            that is no regular file, or is too large, too deep or too many.
    """
    if path.is_dir():
        yield Contents(walked(path), path)
        return
    with scratch.folder("bundle") as place:
        (folder := place / "files").mkdir()
        with open_regular(path) as file:
            entries = _entries(file, path)
            with storage_errors(folder):
                for entry in entries:
                    _unpack(file, entry, folder / entry.name, path)
        yield Contents({e.name: folder / e.name for e in entries}, folder)


def walked(folder: Path) -> dict[str, Path]:
    """The regular files below a folder, by name.

    Raises:
        BadInput: see `opened`.
    """
    found: dict[str, Path] = {}
    waiting, seen, size = [""], 0, 0
    while waiting:
        here = waiting.pop()
        try:
            with os.scandir(folder / here) as entries:
                for entry in entries:
                    name, seen = here + entry.name, seen + 1
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(status.st_mode):
                        waiting.append(f"{name}/")
                    else:
                        _require_regular(status.st_mode, name, folder)
                        found[name], size = Path(entry.path), size + status.st_size
                    if seen > 2 * MOST_FILES or here.count("/") >= _DEEPEST:
                        raise _too_much(folder)
        except OSError as error:
            raise BadInput(f"{folder / here}: can't be read: {error.strerror}") from error
    if len(found) > MOST_FILES or size > MOST_BYTES:
        raise _too_much(folder)
    _require_names(found, folder)
    return dict(sorted(found.items()))


def write(folder: Path, out: Path) -> None:
    """Put every file below a folder into an archive; the same files give the same bytes."""
    with writing_whole(out) as file, zipfile.ZipFile(file, "w") as archive:
        for name, path in walked(folder).items():
            entry = zipfile.ZipInfo(name, _DATE)
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED)


@dataclass(frozen=True)
class _Entry:
    """A file in an archive: where its bytes start, how they are packed, what they must come to."""

    name: str
    starts: int
    deflated: bool
    packed_bytes: int
    size_bytes: int
    crc: int


def _entries(file: IO[bytes], path: Path) -> list[_Entry]:
    """What an archive holds, by its directory and by what stands before each file, which agree."""
    length = os.fstat(file.fileno()).st_size
    end = _read(file, max(length - _END.size, 0), _END.size)
    if len(end) < _END.size or end[:4] != b"PK\5\6":
        raise BadInput(f"{path}: not a .zip, or one with data behind its end; get the bundle anew")
    _, disk, other, here, count, size, start, comment = _END.unpack(end)
    if disk or other or here != count or comment or start + size != length - _END.size:
        raise _strange(path, "its directory isn't right before its end")
    if count > MOST_FILES or size > count * (_CENTRAL.size + _LONGEST):
        raise _too_much(path)
    directory, at, entries = _read(file, start, size), 0, []
    for _ in range(count):
        entry, directory = _entry(file, directory, at, path)
        entries.append(entry)
        at = entry.starts + entry.packed_bytes
    if at != start or directory:
        raise _strange(path, "there is data between or behind its entries")
    _require_names([e.name for e in entries], path)
    if sum(e.size_bytes for e in entries) > MOST_BYTES:
        raise _too_much(path)
    return entries


def _entry(file: IO[bytes], directory: bytes, at: int, path: Path) -> tuple[_Entry, bytes]:
    """The directory's first entry, whose file must start at this offset, and the other entries."""
    if len(directory) < _CENTRAL.size:
        raise _strange(path, "its directory is too short")
    mark, _, *told, extra, note, disk, _, attributes, offset = _CENTRAL.unpack_from(directory)
    _, flags, method, _, _, crc, packed, size, letters = told
    name = directory[_CENTRAL.size : _CENTRAL.size + letters]
    shown = repr(name.decode("utf-8", "replace")[:80])
    kind = stat.S_IFMT(attributes >> 16)
    if kind == stat.S_IFLNK:
        raise BadInput(f"{path}: the entry {shown} is a link; get the bundle anew")
    if kind not in (0, stat.S_IFREG) or attributes & 0x10 or name.endswith(b"/"):
        raise BadInput(f"{path}: the entry {shown} is no regular file; get the bundle anew")
    before = _read(file, at, _LOCAL.size + letters)
    if len(before) < _LOCAL.size + letters or offset != at or before[:4] != b"PK\3\4":
        raise _strange(path, f"the entry {shown} doesn't begin where the one before it ends")
    _, *repeated, more = _LOCAL.unpack_from(before)
    if repeated != told or before[_LOCAL.size :] != name:
        raise _strange(path, f"the directory says something else of the entry {shown} than the "
                             "entry itself")  # fmt: skip
    odd = mark != b"PK\1\2" or extra or more or note or disk or flags & ~_UTF8
    if odd or method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise _strange(path, f"the entry {shown} has more than a name and deflated bytes")
    try:
        text = name.decode("utf-8" if flags & _UTF8 else "ascii")
    except UnicodeDecodeError as error:
        raise _strange(path, f"the name {shown} is no UTF-8") from error
    starts = at + _LOCAL.size + letters
    entry = _Entry(text, starts, method == zipfile.ZIP_DEFLATED, packed, size, crc)
    return entry, directory[_CENTRAL.size + letters :]


def _unpack(file: IO[bytes], entry: _Entry, target: Path, path: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    found, crc = 0, 0
    damaged = BadInput(f"{path}: {entry.name} is damaged; get the bundle anew")
    try:
        with target.open("xb") as copy:
            for block in _inflated(file, entry):
                found, crc = found + len(block), zlib.crc32(block, crc)
                if found > entry.size_bytes:
                    raise damaged
                copy.write(block)
    except zlib.error as error:
        raise damaged from error
    if found != entry.size_bytes or crc != entry.crc:
        raise damaged


def _inflated(file: IO[bytes], entry: _Entry) -> Iterator[bytes]:
    """An entry's bytes in blocks of at most 1 MiB; nothing may be left behind them."""
    file.seek(entry.starts)
    left, inflate = entry.packed_bytes, zlib.decompressobj(-zlib.MAX_WBITS)
    while left:
        block = file.read(min(left, _BLOCK))
        if not block:
            raise zlib.error("cut short")
        left -= len(block)
        if not entry.deflated:
            yield block
            continue
        while block:
            yield inflate.decompress(block, _BLOCK)
            block = inflate.unconsumed_tail
        if inflate.unused_data or (inflate.eof and left):
            raise zlib.error("data behind its end")
    if entry.deflated:
        yield inflate.flush()
        if not inflate.eof:
            raise zlib.error("cut short")


def _require_names(names: Iterable[str], path: Path) -> None:
    """Refuse what a file system may take for another place, another name, or the same one twice."""
    spelled: dict[str, tuple[str, bool]] = {}  # as any file system compares -> (name, is a file)
    for name in names:
        shown, parts = repr(name[:80]), name.split("/")
        if name.startswith("/") or ".." in parts or "\\" in name or ":" in name:
            raise BadInput(f"{path}: the entry {shown} points outside the bundle")
        if len(parts) > _DEEPEST or len(os.fsencode(name)) > _LONGEST:
            raise BadInput(f"{path}: the name {shown} is too long or in too many folders "
                           f"(at most {_LONGEST} bytes and {_DEEPEST} parts)")  # fmt: skip
        if not name.isprintable() or any(part in ("", ".") or part[-1] in ". " for part in parts):
            raise BadInput(f"{path}: {shown} is no name that every system can have")
        for depth in range(1, len(parts) + 1):
            part, is_file = "/".join(parts[:depth]), depth == len(parts)
            key = unicodedata.normalize("NFC", unicodedata.normalize("NFC", part).casefold())
            known = spelled.get(key)
            if known is not None and (is_file or known != (part, False)):
                raise BadInput(f"{path}: {shown} is there twice, or {known[0][:80]!r} is the same "
                               "name on some systems")  # fmt: skip
            spelled[key] = part, is_file


def _require_regular(mode: int, name: str, path: Path) -> None:
    if stat.S_ISLNK(mode):
        raise BadInput(f"{path}: {name[:80]!r} is a link; get the bundle anew")
    if not stat.S_ISREG(mode):
        raise BadInput(f"{path}: {name[:80]!r} is no regular file; get the bundle anew")


def _read(file: IO[bytes], at: int, count: int) -> bytes:
    file.seek(at)
    return file.read(count)


def _strange(path: Path, what: str) -> BadInput:
    return BadInput(f"{path}: {what}: no archive as edgeres bundle writes it; get the bundle anew")


def _too_much(path: Path) -> BadInput:
    return BadInput(f"{path}: unpacks to more than a bundle may hold ({MOST_FILES} files, "
                    f"{MOST_BYTES >> 30} GiB, {_DEEPEST} folders deep)")  # fmt: skip

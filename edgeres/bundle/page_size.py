"""Native libraries in an Android package: are they laid out for memory pages of 16 KiB?

Android 15 and later may run with such pages; a library whose segments are aligned to less isn't
loaded there. Source: developer.android.com/guide/practices/page-sizes (each LOAD segment of a
64-bit library aligned to 2**14 or more; in an .apk, libraries that aren't compressed begin at a
multiple of 16 KiB).
"""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from edgeres.disk import open_regular
from edgeres.errors import BadInput

PAGE = 16 * 1024
_LIBRARY = re.compile(r"(?:jni|(?:[^/]+/)?lib)/(arm64-v8a|x86_64)/[^/]+\.so")
_MOST_LIBRARIES, _MOST_HEADERS, _HEADER_BYTES = 500, 100, 1 << 20
_LOAD = 1


@dataclass(frozen=True)
class Library:
    """A library of 64 bits: its least segment alignment in bytes, and what is wrong with it."""

    name: str
    alignment: int
    problem: str


def check(path: Path) -> list[Library]:
    """The libraries of an .aar, .apk or .aab that run on 64-bit devices.

    Raises:
        BadInput: it is none of these, has no such library, or one that is no ELF file.
    """
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            entries = [e for e in archive.infolist() if _LIBRARY.fullmatch(e.filename)]
            if len(entries) > _MOST_LIBRARIES:
                raise BadInput(f"{path}: has more than {_MOST_LIBRARIES} libraries")
            found = [_library(archive, e, file, path) for e in entries]
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError,
            struct.error, ValueError) as error:  # fmt: skip
        raise BadInput(f"{path}: is no whole .aar, .apk or .aab ({error!s:.80})") from error
    if not found:
        raise BadInput(f"{path}: has no library for 64-bit devices (jni/arm64-v8a/NAME.so)")
    return found


def _library(
    archive: zipfile.ZipFile, entry: zipfile.ZipInfo, file: IO[bytes], path: Path
) -> Library:
    with archive.open(entry) as stream:
        segments = list(_segments(stream.read(_HEADER_BYTES), f"{path}: {entry.filename!r:.120}"))
    least = min(segments, default=0)
    problem = ""
    if least < PAGE:
        mend = f"build it with -Wl,-z,max-page-size={PAGE}"
        problem = f"its segments are aligned to {least:,} bytes; {mend}"
    elif path.suffix == ".apk" and entry.compress_type == zipfile.ZIP_STORED:
        here = file.tell()
        file.seek(entry.header_offset + 26)
        name, extra = struct.unpack("<2H", file.read(4))
        file.seek(here)
        if (entry.header_offset + 30 + name + extra) % PAGE:
            problem = "doesn't begin at a multiple of 16 KiB in the package; zipalign -P 16 4"
    return Library(entry.filename, least, problem)


def _segments(head: bytes, where: str) -> Iterator[int]:
    """The alignment of each segment that is loaded, of a little-endian 64-bit ELF file."""
    if head[:6] != b"\x7fELF\x02\x01" or len(head) < 64:
        raise BadInput(f"{where}: is no 64-bit ELF library")
    (table,) = struct.unpack_from("<Q", head, 32)
    size, count = struct.unpack_from("<2H", head, 54)
    if size != 56 or count > _MOST_HEADERS or table + size * count > len(head):
        raise BadInput(f"{where}: its program headers aren't where an ELF library has them")
    for at in range(table, table + size * count, size):
        (kind,) = struct.unpack_from("<L", head, at)
        if kind == _LOAD:
            yield struct.unpack_from("<Q", head, at + 48)[0]

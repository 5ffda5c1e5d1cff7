"""Files: their hashes and sizes, writing them whole, and what a disk refuses, in a sentence."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
import stat
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from edgeres.errors import BadInput, StorageError

if TYPE_CHECKING:
    from _typeshed import SupportsRead

_MOST_ENTRIES = 10_000

_PARTIAL = ".partial"
_BLOCK = 16 << 20


def contents_digest(hashes: Mapping[str, str]) -> str:
    """One hash over sorted (file name, sha256) pairs."""
    text = json.dumps(sorted(hashes.items()), separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Hash of a file, or of a directory package (`.mlpackage`) by its files' names and hashes."""
    if path.is_file():
        return _sha256(path)
    return contents_digest(
        {p.relative_to(path).as_posix(): _sha256(p) for p in sorted(path.rglob("*")) if p.is_file()}
    )


def folder_size(path: Path) -> int:
    """Bytes of a file, or of the files below a folder (links not followed)."""
    if path.is_file():
        return path.stat().st_size
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file() and not p.is_symlink())


def config_folder() -> Path | None:
    """Where the user's own settings are: `$XDG_CONFIG_HOME/edgeres`, or below ~/.config.

    None if the user has no home folder. A relative path in the variable is ignored, as the XDG
    specification says: what it names depends on where a command was started.
    """
    return _of_user("XDG_CONFIG_HOME", ".config")


def cache_folder() -> Path:
    """Where what can be made again is kept: `$XDG_CACHE_HOME/edgeres`, or below ~/.cache.

    Raises:
        StorageError: the user has no home folder.
    """
    folder = _of_user("XDG_CACHE_HOME", ".cache")
    if folder is None:
        raise StorageError("there is no home folder to keep a cache in; set XDG_CACHE_HOME to a "
                           "folder of yours")  # fmt: skip
    return folder


def _of_user(variable: str, below_home: str) -> Path | None:
    given = Path(os.environ.get(variable, ""))
    home = os.path.expanduser("~")  # noqa: PTH111  Path's own raises without a home
    folder = (given if given.is_absolute() else Path(home, below_home)) / "edgeres"
    return folder if folder.is_absolute() else None


def write_whole(path: Path, content: str | bytes, mode: int = 0o666) -> None:
    """Write a file such that a reader sees the old one or the new one, never a part.

    It is written under a name that nobody can foresee and then renamed, so that a link that stands
    at `path` is replaced, never written through. What a killed process left, `sweep` removes.

    Args:
        mode: who may read and write it, less the process's umask.
    """
    with writing_whole(path, mode) as file:
        file.write(content.encode("utf-8") if isinstance(content, str) else content)


@contextmanager
def writing_whole(path: Path, mode: int = 0o666) -> Iterator[BinaryIO]:
    """Like `write_whole`, for contents that come in parts."""
    partial = _fresh(path)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    with _renamed(partial, path), os.fdopen(os.open(partial, flags, mode), "w+b") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def copy_whole(source: Path, path: Path) -> None:
    """Copy a file or a folder, in place of what is there: nothing of it is kept or written through.

    A reader sees the old file or the new one; for a folder there is a moment without either.
    """
    if not source.is_dir():
        with source.open("rb") as from_, writing_whole(path) as to:
            shutil.copyfileobj(from_, to)
        return
    partial, old = _fresh(path), _fresh(path)
    try:
        shutil.copytree(source, partial)
        if os.path.lexists(path):
            path.rename(old)
        partial.rename(path)
    finally:
        for left in (partial, old):
            if left.is_symlink() or left.is_file():
                left.unlink()
            elif left.is_dir():
                shutil.rmtree(left)


def point(path: Path, target: str) -> None:
    """Make a symbolic link in one step, in place of one that is there."""
    partial = _fresh(path)
    with _renamed(partial, path):
        partial.symlink_to(target)


def sweep(folder: Path) -> None:
    """Remove what a killed `write_whole` or `point` left in a folder."""
    for leftover in folder.glob(f".*{_PARTIAL}"):
        leftover.unlink(missing_ok=True)


def append_line(path: Path, line: bytes) -> None:
    """Add a line to a file, whole, after what a killed process left of its last one.

    Raises:
        StorageError: the file is a link or none.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0), 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise StorageError(f"{path}: is a device or a pipe where edgeres writes a file; remove it")
    with os.fdopen(descriptor, "ab+") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(end - 1, 0))
        cut = b"" if file.read(1) in (b"", b"\n") else b"\n"
        file.write(cut + line + b"\n")


def _fresh(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}{_PARTIAL}")


@contextmanager
def _renamed(partial: Path, path: Path) -> Iterator[None]:
    """Give a file its name when it is whole; remove it if it didn't become so."""
    try:
        yield
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def storage_errors(where: Path) -> Iterator[None]:
    """Turn the system's storage failures into one sentence that names the place and the mend."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            message = (
                f"{where}: no space left on the device; free some (`edgeres clean`) and repeat"
            )
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            message = (f"{where}: can't be written (read-only or no permission); choose another "
                       "folder, or change its permissions")  # fmt: skip
        elif error.errno in (errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG):
            message = f"{where}: can't be a folder ({error.strerror}); choose another folder"
        elif error.errno in (errno.ELOOP, errno.EISDIR, errno.ENOTEMPTY, errno.ENXIO):
            message = (f"{where}: a link, a folder or a device stands where edgeres writes a file; "
                       "remove it and repeat")  # fmt: skip
        else:
            raise
        raise StorageError(message) from error


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# Reading what others wrote.


def open_regular(path: Path) -> BinaryIO:
    """A regular file, open for reading.

    Raises:
        BadInput: it isn't there or can't be read, or is a folder, a pipe, a socket or a device,
            none of which is opened or waited for.
    """
    try:
        _require(path, path.stat().st_mode)
        # Another process may have put a pipe in its place by now: don't wait for its writer.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL
        reason = getattr(error, "strerror", None) or error
        raise BadInput(f"{path}: can't be read ({reason})") from error
    try:
        _require(path, os.fstat(descriptor).st_mode)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def at_most(most_bytes: int, file: SupportsRead[bytes]) -> bytes:
    """The rest of a stream; of a longer one, `most_bytes` and a bit.

    `file.read(most_bytes)` would reserve that much memory, whatever there is to read.
    """
    blocks, left = [], most_bytes + 1
    while left > 0 and (block := file.read(_BLOCK)):
        blocks.append(block)
        left -= len(block)
    return b"".join(blocks)


def read_bounded(path: Path, most_bytes: int, what: str) -> bytes:
    """The contents of a regular file of somebody's; `what` is what it should be, for messages.

    Raises:
        BadInput: like `open_regular`, and where it has more than `most_bytes`.
    """
    with open_regular(path) as file:
        try:
            content = at_most(most_bytes, file)
        except OSError as error:
            raise BadInput(f"{path}: can't be read ({error.strerror})") from error
    if len(content) > most_bytes:
        raise BadInput(f"{path}: is larger than {_size(most_bytes)}; that is no {what}")
    return content


def require_regular(path: Path, most_bytes: int) -> None:
    """Make sure that a file, or each file of a directory package, is one, before others open it.

    Raises:
        BadInput: something is a pipe, a socket, a device or a link to nothing; or there are too
            many files or bytes.
    """
    total = 0
    try:
        if not path.is_dir():
            _require(path, path.stat().st_mode)
            total = path.stat().st_size
        else:
            for count, part in enumerate(path.rglob("*"), 1):
                if count > _MOST_ENTRIES:
                    raise BadInput(f"{path}: has more than {_MOST_ENTRIES:,} files")
                if not part.is_dir():
                    _require(part, part.stat().st_mode)
                    total += part.stat().st_size
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadInput(f"{path}: can't be read ({reason})") from error
    if total > most_bytes:
        raise BadInput(f"{path}: is larger than {_size(most_bytes)}")


def require_stored(path: Path, saver: str) -> None:
    """Refuse a zip file that grows when it is unpacked, where `saver` stores tensors as they are.

    Raises:
        BadInput: it would grow to more than twice its size.
    """
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return  # damaged: its reader says how
    packed = path.stat().st_size
    if unpacked > 2 * packed:
        raise BadInput(
            f"{path}: {packed:,} bytes would become {unpacked:,}; save it anew with {saver}"
        )


def _require(path: Path, mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise BadInput(f"{path}: is a folder, not a file")
    if not stat.S_ISREG(mode):
        raise BadInput(f"{path}: is a pipe, a socket or a device, not a file; copy it into a file")


def _size(size: int) -> str:
    """Bytes in the largest unit that divides them."""
    for shift, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if size >> shift << shift == size:
            return f"{size >> shift} {unit}"
    return f"{size:,} bytes"

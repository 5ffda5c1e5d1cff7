"""Files: their hashes and sizes, writing them whole, and what a disk refuses, in a sentence."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from edgeres.errors import StorageError

_PARTIAL = ".partial"


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


def config_folder() -> Path:
    """Where the user's own settings are: `$XDG_CONFIG_HOME/edgeres`, or below ~/.config."""
    user = os.environ.get("XDG_CONFIG_HOME")
    return (Path(user) if user else Path.home() / ".config") / "edgeres"


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file such that a reader sees the old one or the new one, never a part.

    It is written under a name that nobody can foresee and then renamed, so that a link that stands
    at `path` is replaced, never written through. What a killed process left, `sweep` removes.
    """
    partial = _fresh(path)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    with _renamed(partial, path), os.fdopen(os.open(partial, flags, 0o666), "wb") as file:
        file.write(content.encode("utf-8") if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())


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
    with os.fdopen(descriptor, "ab+") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise StorageError(
                f"{path}: is a device or a pipe where edgeres writes a file; remove it"
            )
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
            message = f"{where}: can't be written (read-only or no permission); choose --runs DIR"
        elif error.errno in (errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG):
            message = f"{where}: can't be a folder ({error.strerror}); choose another --runs DIR"
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

"""Files: their hashes and sizes, writing them whole, and what a disk refuses, in a sentence."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from edgeres.errors import StorageError


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


def write_whole(path: Path, text: str) -> None:
    """Write a text file such that a reader sees the old one or the new one, never a part.

    One process at a time: what a killed one left of the partial file is written over.
    """
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


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

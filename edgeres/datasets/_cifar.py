"""CIFAR-10's and CIFAR-100's files: npz, the official Python and binary versions, and their tar.gz.

Source: Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images".
"""

from __future__ import annotations

import io
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from edgeres.datasets import RawDataset, ReadOptions, Samples, _bounded, _cifar_pickle, _pixels
from edgeres.disk import at_most
from edgeres.errors import BadInput

if TYPE_CHECKING:
    import numpy as np

_NPZ = ("train.npz", "test.npz")
_PX = 32
_VALUES = 3 * _PX * _PX
_LIMIT = 1 << 28  # all images are 184 MB, the training images of CIFAR-100 in one file 154


@dataclass(frozen=True)
class Version:
    """How one of the two is laid out.

    Attributes:
        batches: files of the Python version, in reading order, the test split last; those of the
            binary version have the ending .bin.
        folders, archives: where people have them.
        labels: the field of the Python version's labels.
        label_bytes: in front of each image of the binary version; the last one is the class.
    """

    name: str
    classes: tuple[str, ...]
    batches: tuple[str, ...]
    folders: tuple[str, ...]
    archives: tuple[str, ...]
    labels: str
    label_bytes: int

    @property
    def binary(self) -> tuple[str, ...]:
        """Files of the binary version."""
        return tuple(f"{name}.bin" for name in self.batches)


def sources(version: Version, path: Path | None) -> tuple[Path, ...]:
    """The files of the first format found, in reading order."""
    assert path is not None  # NEEDS_PATH
    if path.is_file():
        return (path,)
    archives = ((archive,) for archive in version.archives)
    for names in (_NPZ, version.batches, version.binary, *archives):
        for folder in (".", *version.folders):
            files = tuple(path / folder / name for name in names)
            found = [file.is_file() for file in files]
            if all(found):
                return files
            if any(found):
                missing = names[found.index(False)]
                raise BadInput(f"{path / folder}: {names[found.index(True)]} but no {missing}")
    raise BadInput(
        f"{path}: no {version.name} in it; expected train.npz and test.npz, "
        f"{' and '.join((version.batches[0], version.batches[-1]))} (.bin or not), or "
        f"{version.archives[0]}"
    )


def read(version: Version, path: Path | None, options: ReadOptions) -> RawDataset:
    """The official splits at their size (32 keeps the pixels as they are)."""
    import numpy as np

    files = sources(version, path)
    if files[0].name in _NPZ and len(files) == 2:
        parts = [_npz(file) for file in files]
    elif len(files) == 1:
        unpacked = _unpacked(version, files[0])
        parts = [_batch(version, f"{files[0]}: {name}", data) for name, data in unpacked.items()]
    else:
        parts = [_batch(version, str(file), _bounded.read(file, _LIMIT)) for file in files]
    images = [_pixels.resized(part.images, options.resize.size_px) for part in parts]
    labels = [part.labels for part in parts]
    return RawDataset(
        version.classes,
        Samples(np.concatenate(images[:-1]), np.concatenate(labels[:-1])),
        None,
        Samples(images[-1], labels[-1]),
    )


def _batch(version: Version, where: str, contents: bytes) -> Samples:
    """A batch of the official versions; `where` ends with its name."""
    if where.endswith(".bin"):
        return _binary(version, where, contents)
    return _samples(where, *_cifar_pickle.read(where, contents, version.labels))


def _binary(version: Version, where: str, contents: bytes) -> Samples:
    import numpy as np

    front = version.label_bytes
    if len(contents) % (front + _VALUES):
        raise BadInput(f"{where}: {len(contents):,} bytes, not whole records of {front + _VALUES}")
    records = np.frombuffer(contents, np.uint8).reshape(-1, front + _VALUES)
    return _samples(where, records[:, front:], records[:, front - 1])


def _samples(where: str, rows: np.ndarray, labels: np.ndarray) -> Samples:
    """Rows of 3072 bytes (all red, all green, all blue) and their labels."""
    import numpy as np

    if rows.shape != (len(labels), _VALUES):
        raise BadInput(f"{where}: images {rows.shape} for {len(labels)} labels, not CIFAR's")
    images = rows.reshape(-1, 3, _PX, _PX).transpose(0, 2, 3, 1)
    return Samples(np.ascontiguousarray(images), labels.astype(np.int64))


def _npz(path: Path) -> Samples:
    import numpy as np

    try:
        with zipfile.ZipFile(path) as packed:
            for name in ("x.npy", "y.npy"):
                if packed.getinfo(name).file_size > _LIMIT:
                    raise BadInput(f"{path}: {name} is larger than all of CIFAR")
        with np.load(path, allow_pickle=False) as arrays:
            images, labels = arrays["x"], arrays["y"]
    except BadInput:
        raise
    except Exception as error:  # zip, LZMA and the npy header each have their own
        reason = f"{type(error).__name__}: {error}"
        raise BadInput(f"{path}: can't be read as an npz with arrays x and y ({reason})") from error
    if images.dtype != np.uint8 or images.shape != (len(images), _PX, _PX, 3):
        raise BadInput(f"{path}: x is {images.dtype} {images.shape}, expected uint8 (N, 32, 32, 3)")
    if labels.dtype.kind not in "iu" or labels.shape != (len(images),):
        raise BadInput(f"{path}: y is {labels.dtype} {labels.shape}, expected {len(images)} labels")
    return Samples(images, labels.astype(np.int64))


def _unpacked(version: Version, path: Path) -> dict[str, bytes]:
    """The batches in an official archive, in reading order, by base name; nothing else is read."""
    # Unpacked as a whole, in memory and within a limit, before tarfile sees any of it.
    contents = io.BytesIO(_bounded.read(path, _LIMIT))
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=contents, mode="r:") as tar:
            for member in tar:
                name = PurePosixPath(member.name).name
                stream = tar.extractfile(member) if member.isfile() else None
                if stream is not None and name in (*version.batches, *version.binary):
                    found[name] = at_most(_LIMIT, stream)
    except Exception as error:  # tarfile lets ValueError and others through
        raise BadInput(
            f"{path}: not {version.name}'s tar.gz ({error}); or give its folder"
        ) from error
    for names in (version.batches, version.binary):
        if all(name in found for name in names):
            return {name: found[name] for name in names}
    batches = f"{', '.join(version.batches[:-1])} and {version.batches[-1]}"
    raise BadInput(f"{path}: not all of {batches} (or .bin) are in it")

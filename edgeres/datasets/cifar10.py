"""CIFAR-10: 60,000 RGB 32x32 photographs.

In: a folder with `train.npz` and `test.npz` (x uint8 NHWC, y), or the official Python or binary
version, extracted or as its tar.gz. Out: the official splits in the official order.

Source: Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images".
"""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from edgeres.datasets import RawDataset, ReadOptions, Samples, _bounded, _cifar_pickle, _pixels
from edgeres.errors import BadInput

if TYPE_CHECKING:
    import numpy as np

SUMMARY = "CIFAR-10: 60,000 RGB 32x32 photographs, 10 classes (npz, official Python or binary)"
SIZE = 32
NEEDS_PATH = True

_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"
)  # fmt: skip
_NPZ = ("train.npz", "test.npz")
_PYTHON = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")  # the test split comes last
_BINARY = tuple(f"{name}.bin" for name in _PYTHON)
_ARCHIVES = ("cifar-10-python.tar.gz", "cifar-10-binary.tar.gz")
_FOLDERS = (".", "cifar-10-batches-py", "cifar-10-batches-bin")

_PX = 32
_VALUES = 3 * _PX * _PX
_LIMIT_BATCH = 1 << 26  # a batch is 31 MB
_LIMIT_ALL = 1 << 28  # all of them, or the training images of the npz, are 184 MB


def sources(path: Path | None) -> tuple[Path, ...]:
    """The files of the first format found, in reading order."""
    assert path is not None  # NEEDS_PATH
    if path.is_file():
        return (path,)
    for names in (_NPZ, _PYTHON, _BINARY, *((archive,) for archive in _ARCHIVES)):
        for folder in _FOLDERS:
            files = tuple(path / folder / name for name in names)
            found = [file.is_file() for file in files]
            if all(found):
                return files
            if any(found):
                missing = names[found.index(False)]
                raise BadInput(f"{path / folder}: {names[found.index(True)]} but no {missing}")
    raise BadInput(
        f"{path}: no CIFAR-10 in it; expected train.npz and test.npz, data_batch_1 to 5 and "
        "test_batch (.bin or not), or cifar-10-python.tar.gz"
    )


def read(path: Path | None, options: ReadOptions) -> RawDataset:
    """The official splits at their size (32 keeps the pixels as they are)."""
    import numpy as np

    files = sources(path)
    if files[0].name in _NPZ and len(files) == 2:
        parts = [_npz(file) for file in files]
    elif len(files) == 1:
        parts = [_batch(f"{files[0]}: {name}", data) for name, data in _unpacked(files[0]).items()]
    else:
        parts = [_batch(str(file), _bounded.read(file, _LIMIT_BATCH)) for file in files]
    images = [_pixels.resized(part.images, options.resize.size_px) for part in parts]
    labels = [part.labels for part in parts]
    return RawDataset(
        _CLASSES,
        Samples(np.concatenate(images[:-1]), np.concatenate(labels[:-1])),
        None,
        Samples(images[-1], labels[-1]),
    )


def _batch(where: str, contents: bytes) -> Samples:
    """A batch of the official versions; `where` ends with its name."""
    if where.endswith(".bin"):
        return _binary(where, contents)
    return _samples(where, *_cifar_pickle.read(where, contents))


def _binary(where: str, contents: bytes) -> Samples:
    import numpy as np

    if len(contents) % (1 + _VALUES):
        raise BadInput(f"{where}: {len(contents):,} bytes, not whole records of {1 + _VALUES}")
    records = np.frombuffer(contents, np.uint8).reshape(-1, 1 + _VALUES)
    return _samples(where, records[:, 1:], records[:, 0])


def _samples(where: str, rows: np.ndarray, labels: np.ndarray) -> Samples:
    """Rows of 3072 bytes (all red, all green, all blue) and their labels."""
    import numpy as np

    if rows.shape != (len(labels), _VALUES):
        raise BadInput(f"{where}: images {rows.shape} for {len(labels)} labels, not CIFAR-10's")
    images = rows.reshape(-1, 3, _PX, _PX).transpose(0, 2, 3, 1)
    return Samples(np.ascontiguousarray(images), labels.astype(np.int64))


def _npz(path: Path) -> Samples:
    import numpy as np

    try:
        with zipfile.ZipFile(path) as packed:
            for name in ("x.npy", "y.npy"):
                if packed.getinfo(name).file_size > _LIMIT_ALL:
                    raise BadInput(f"{path}: {name} is larger than all of CIFAR-10")
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


def _unpacked(path: Path) -> dict[str, bytes]:
    """The batches in an official archive, in reading order, by base name; nothing else is read."""
    # Unpacked as a whole, in memory and within a limit, before tarfile sees any of it.
    contents = io.BytesIO(_bounded.read(path, _LIMIT_ALL))
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=contents, mode="r:") as tar:
            for member in tar:
                name = PurePosixPath(member.name).name
                stream = tar.extractfile(member) if member.isfile() else None
                if stream is not None and name in (*_PYTHON, *_BINARY):
                    found[name] = stream.read(_LIMIT_BATCH)
    except Exception as error:  # tarfile lets ValueError and others through
        raise BadInput(f"{path}: not CIFAR-10's tar.gz ({error}); or give its folder") from error
    for names in (_PYTHON, _BINARY):
        if all(name in found for name in names):
            return {name: found[name] for name in names}
    raise BadInput(f"{path}: not all of data_batch_1 to 5 and test_batch (or .bin) are in it")

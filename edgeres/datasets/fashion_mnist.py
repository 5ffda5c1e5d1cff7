"""Fashion-MNIST: 70,000 grey 28x28 pictures of clothes.

In: a folder with the four IDX files, plain or gzipped. Out: RGB images, by default framed with two
black pixels to 32x32 so that none is resampled.

Source: Xiao, Rasul, Vollgraf 2017, arXiv:1708.07747; the IDX format is LeCun's for MNIST.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from edgeres.datasets import RawDataset, ReadOptions, Samples, _bounded, _pixels
from edgeres.errors import BadInput

if TYPE_CHECKING:
    import numpy as np

SUMMARY = "Fashion-MNIST: 70,000 grey 28x28 pictures of clothes, 10 classes (IDX files)"
SIZE = 32
NEEDS_PATH = True

_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
_PX, _FRAMED_PX = 28, 32
_LIMIT_BYTES = 1 << 26  # the largest, train-images, is 47,040,016


def sources(path: Path | None) -> tuple[Path, ...]:
    """The four IDX files, plain preferred to gzipped."""
    assert path is not None  # NEEDS_PATH
    return tuple(_file(path, name) for name in _FILES)


def read(path: Path | None, options: ReadOptions) -> RawDataset:
    """Both splits at their size: framed at 32, else resampled."""
    size_px = options.resize.size_px
    train_x, train_y, test_x, test_y = sources(path)
    train, test = (_split(*files, size_px) for files in ((train_x, train_y), (test_x, test_y)))
    return RawDataset(_CLASSES, train, None, test, by_rule=size_px != _FRAMED_PX)


def _file(folder: Path, name: str) -> Path:
    for candidate in (folder / name, folder / f"{name}.gz"):
        if candidate.is_file():
            return candidate
    raise BadInput(f"{folder}: no {name} or {name}.gz in it; give the folder that holds both")


def _split(images_file: Path, labels_file: Path, size_px: int) -> Samples:
    import numpy as np

    grey, labels = _idx(images_file, 3), _idx(labels_file, 1)
    if grey.shape[1:] != (_PX, _PX):
        height, width = grey.shape[1:]
        raise BadInput(f"{images_file}: images are {height}x{width}, expected {_PX}x{_PX}")
    if len(grey) != len(labels):
        raise BadInput(f"{labels_file}: {len(labels)} labels for {len(grey)} images")
    framed = size_px == _FRAMED_PX
    grey = np.pad(grey, ((0, 0), (2, 2), (2, 2))) if framed else _pixels.resized(grey, size_px)
    return Samples(_pixels.rgb(grey), labels.astype(np.int64))


def _idx(path: Path, dimensions: int) -> np.ndarray:
    """An IDX file of bytes: 0, 0, 8 (unsigned byte), dimensions; big-endian sizes; the values."""
    import numpy as np

    contents = _bounded.read(path, _LIMIT_BYTES)
    header = 4 + 4 * dimensions
    if contents[:4] != bytes((0, 0, 8, dimensions)) or len(contents) < header:
        raise BadInput(f"{path}: not an IDX file of {dimensions}-dimensional bytes")
    shape = [int(n) for n in np.frombuffer(contents, ">u4", dimensions, 4)]
    if len(contents) - header != math.prod(shape):
        raise BadInput(
            f"{path}: its header promises {math.prod(shape):,} values, "
            f"the file has {len(contents) - header:,}; fetch it again"
        )
    return np.frombuffer(contents, np.uint8, offset=header).reshape(shape)

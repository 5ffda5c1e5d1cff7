"""CIFAR-10: 60,000 RGB 32x32 photographs of 10 classes.

In: a folder with `train.npz` and `test.npz` (x uint8 NHWC, y), or the official Python or binary
version, extracted or as its tar.gz. Out: the official splits in the official order.

Source: Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images".
"""

from __future__ import annotations

from pathlib import Path

from edgeres.datasets import RawDataset, ReadOptions, _cifar

SUMMARY = "CIFAR-10: 60,000 RGB 32x32 photographs, 10 classes (npz, official Python or binary)"
SIZE = 32
NEEDS_PATH = True

_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"
)  # fmt: skip
_VERSION = _cifar.Version(
    "CIFAR-10", _CLASSES, (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"),
    ("cifar-10-batches-py", "cifar-10-batches-bin"),
    ("cifar-10-python.tar.gz", "cifar-10-binary.tar.gz"), "labels", 1,
)  # fmt: skip


def sources(path: Path | None) -> tuple[Path, ...]:
    """The files of the first format found, in reading order."""
    return _cifar.sources(_VERSION, path)


def read(path: Path | None, options: ReadOptions) -> RawDataset:
    """The official splits at their size (32 keeps the pixels as they are)."""
    return _cifar.read(_VERSION, path, options)

"""The handwritten digits that come with scikit-learn: 1,797 grey 8x8 images of 0 to 9.

In: a size. Out: the images enlarged to it; 600 of them, always the same, are the test split.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from edgeres.datasets import RawDataset, ReadOptions, Samples, _pixels, _splits
from edgeres.errors import MissingComponent

SUMMARY = "handwritten digits bundled with scikit-learn: 1,797 grey 8x8 images, 10 classes"
SIZE = 16
NEEDS_PATH = False

_CLASSES = tuple("0123456789")
_TEST_SHARE = 600 / 1797
_TEST_SEED = 20  # part of the data set's definition, not of a recipe


def sources(path: Path | None) -> tuple[Path, ...]:  # noqa: ARG001
    """The file in scikit-learn's package.

    Found without importing scikit-learn, which takes longer than all the rest of reading it.
    """
    spec = importlib.util.find_spec("sklearn")
    if spec is None or not spec.submodule_search_locations:
        raise MissingComponent("data 'digits' comes with scikit-learn: pip install scikit-learn")
    return (Path(spec.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz",)


def read(path: Path | None, options: ReadOptions) -> RawDataset:
    """The digits at their size, values 0..16 spread over 0..255."""
    import numpy as np

    rows = np.loadtxt(sources(path)[0], delimiter=",", dtype=np.uint8)
    labels = rows[:, 64].astype(np.int64)
    grey = np.rint(rows[:, :64].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    images = _pixels.rgb(_pixels.resized(grey, options.resize.size_px))
    train, test = _splits.cut(labels, _TEST_SHARE, _TEST_SEED)
    return RawDataset(
        _CLASSES,
        Samples(images[train], labels[train]),
        None,
        Samples(images[test], labels[test]),
    )

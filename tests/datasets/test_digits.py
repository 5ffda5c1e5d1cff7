"""scikit-learn's digits."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from sklearn.datasets import load_digits

from edgeres import datasets


def test_the_images_are_scikit_learns() -> None:
    data = datasets.load("digits", size_px=8)
    expected = load_digits()
    pixels = np.rint(expected.images * 255 / 16).astype(np.uint8)
    wanted = sorted((x.tobytes(), int(y)) for x, y in zip(pixels, expected.target, strict=True))
    parts = (data.train, data.validation, data.test)
    got = [(x[..., 0].tobytes(), int(y)) for part in parts
           for x, y in zip(part.images, part.labels, strict=True)]  # fmt: skip
    assert sorted(got) == wanted


@pytest.mark.parametrize(("size_px", "expected"), [(None, 16), (32, 32)])
def test_enlarged_to_rgb(size_px: int | None, expected: int) -> None:
    data = datasets.load("digits", size_px)
    assert data.classes == tuple("0123456789")
    assert data.test.images.shape == (600, expected, expected, 3)
    assert data.test.images.max() > 240
    assert (data.test.images == data.test.images[..., :1]).all()
    assert np.bincount(data.test.labels).min() >= 58  # a third of 174, the smallest class


def test_reading_loads_neither_scikit_learn_nor_torch() -> None:
    code = (
        "import sys; from edgeres import datasets; datasets.load('digits');"
        "datasets.fingerprint('digits');"
        "sys.exit(','.join({'sklearn', 'torch'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

"""IDX files, whole and damaged."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgeres import datasets
from edgeres.errors import BadInput

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 28, 28), dtype=np.uint8)
LABELS = np.arange(20, dtype=np.uint8) % 10


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Plain test files and gzipped training files."""
    for name, pixels in (("train", PIXELS), ("t10k", 255 - PIXELS)):
        files = {f"{name}-images-idx3-ubyte": pixels, f"{name}-labels-idx1-ubyte": LABELS}
        for file, array in files.items():
            if name == "train":
                (tmp_path / f"{file}.gz").write_bytes(gzip.compress(idx(array)))
            else:
                (tmp_path / file).write_bytes(idx(array))
    return tmp_path


def test_at_32_px_the_pixels_are_framed_not_resampled(folder: Path) -> None:
    data = datasets.load(f"fashion-mnist:{folder}")
    assert data.test.images.shape == (20, 32, 32, 3)
    for channel in range(3):
        np.testing.assert_array_equal(data.test.images[:, 2:-2, 2:-2, channel], 255 - PIXELS)
    frame = data.test.images.copy()
    frame[:, 2:-2, 2:-2] = 0
    assert not frame.any()
    np.testing.assert_array_equal(data.test.labels, LABELS)
    assert data.classes[9] == "Ankle boot"


@pytest.mark.parametrize("size_px", [28, 16, 40])
def test_at_other_sizes_they_are_resampled(folder: Path, size_px: int) -> None:
    images = datasets.load(f"fashion-mnist:{folder}", size_px).test.images
    assert images.shape == (20, size_px, size_px, 3)
    assert (images[..., 0] == 255 - PIXELS).all() if size_px == 28 else images.any()


def rewrite(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], Path]:
    def damage(folder: Path) -> Path:
        file = folder / name
        file.write_bytes(change(file.read_bytes()))
        return file

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (rewrite("t10k-images-idx3-ubyte", lambda b: b[:-1]), "its header promises 15,680"),
        (rewrite("t10k-images-idx3-ubyte", lambda b: b + b"\0"), "its header promises 15,680"),
        (rewrite("t10k-images-idx3-ubyte", lambda b: b[:6]), "not an IDX file"),
        (rewrite("t10k-images-idx3-ubyte", lambda b: b""), "not an IDX file"),
        (rewrite("t10k-images-idx3-ubyte", lambda b: b"\0\0\x0d\x03" + b[4:]), "not an IDX file"),
        (rewrite("t10k-images-idx3-ubyte", lambda b: b[:4] + b"\xff" * 12), "its header promises"),
        (rewrite("t10k-images-idx3-ubyte", lambda b: idx(np.zeros((20, 8, 8), np.uint8))), "8x8"),
        (rewrite("t10k-labels-idx1-ubyte", lambda b: idx(LABELS[:-1])), "19 labels for 20 images"),
        (rewrite("train-images-idx3-ubyte.gz", lambda b: b[:-20]), "damaged gzip"),
        (rewrite("train-images-idx3-ubyte.gz", lambda b: b[:30] + b"\xff" * 99), "damaged gzip"),
    ],
)
def test_a_damaged_file_is_named(
    folder: Path, damage: Callable[[Path], Path], message: str
) -> None:
    file = damage(folder)
    with pytest.raises(BadInput, match=message) as caught:
        datasets.load(f"fashion-mnist:{folder}")
    assert str(file) in str(caught.value)


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(BadInput, match="no t10k-labels-idx1-ubyte"):
        datasets.load(f"fashion-mnist:{folder}")


def test_a_label_out_of_range(folder: Path) -> None:
    (folder / "t10k-labels-idx1-ubyte").write_bytes(idx(LABELS + 1))
    with pytest.raises(BadInput, match="label 10 is out of range"):
        datasets.load(f"fashion-mnist:{folder}")


def test_a_gzip_bomb_is_cut_short(folder: Path) -> None:
    bomb = gzip.compress(bytes(80 << 20), 1)
    (folder / "train-images-idx3-ubyte.gz").write_bytes(bomb)
    with pytest.raises(BadInput, match="more than the 67,108,864 bytes"):
        datasets.load(f"fashion-mnist:{folder}")


@pytest.mark.realdata
def test_the_real_one(real_data: Path) -> None:
    folder = real_data / "fashion-mnist"
    if not folder.is_dir():
        pytest.skip("EDGERES_DATA has no fashion-mnist")
    data = datasets.load(f"fashion-mnist:{folder}", 28)
    assert [len(x.labels) for x in (data.train, data.validation, data.test)] == [54000, 6000, 10000]
    assert data.test.images.mean() / 255 == pytest.approx(0.2868, abs=2e-3)

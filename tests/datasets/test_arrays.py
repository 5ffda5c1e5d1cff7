"""One .npz as Keras and numpy write it, grey or RGB, and damaged or hostile ones."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeres import datasets
from edgeres.errors import BadInput

rng = np.random.default_rng(0)


def parts(**changes: Any) -> dict[str, np.ndarray]:
    """Ten images of two classes in each part."""
    x = rng.integers(0, 256, (10, 12, 12, 3), dtype=np.uint8)
    y = np.arange(10) % 2
    found = {"x_train": x, "y_train": y, "x_test": x[::-1].copy(), "y_test": y[::-1].copy()}
    return {key: value for key, value in (found | changes).items() if value is not None}


def written(path: Path, **changes: Any) -> str:
    np.savez_compressed(path, **parts(**changes))
    return f"arrays:{path}"


def test_the_arrays_are_the_splits_at_their_own_size(tmp_path: Path) -> None:
    source = written(tmp_path / "a.npz", classes=np.array(["cat", "dog"]))
    data = datasets.load(source, validation=0.2)
    own = parts()
    assert datasets.default_size(source) == 12 and data.classes == ("cat", "dog")
    assert data.test.images.shape == own["x_test"].shape and data.test.labels.tolist() == [1, 0] * 5
    assert len(data.train.labels) == 8 and len(data.validation.labels) == 2
    assert datasets.load(source, 8).test.images.shape == (10, 8, 8, 3)


def test_grey_images_column_labels_and_an_own_validation_split(tmp_path: Path) -> None:
    """As Keras's MNIST and CIFAR-10 are."""
    grey = rng.integers(0, 256, (10, 12, 12), dtype=np.uint8)
    column = (np.arange(10) % 2).astype(np.uint8)[:, None]
    source = written(tmp_path / "a.npz", x_train=grey[..., None], y_train=column, x_val=grey,
                     y_val=column[:, 0])  # fmt: skip
    data = datasets.load(source)
    assert data.classes == ("0", "1") and data.notes == (
        "no `classes` in it: they are called 0 to 1",
    )
    assert np.array_equal(data.validation.images, np.repeat(grey[..., None], 3, 3))
    assert np.array_equal(data.train.images, data.validation.images)


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"x_test": None}, "no array x_test in it"),
     ({"x_val": np.zeros((1, 12, 12), np.uint8)}, "no array y_val in it"),
     ({"x_train": np.zeros((10, 3, 12, 12), np.uint8)}, r"x_train is uint8 \(10, 3, 12, 12\)"),
     ({"x_train": np.zeros((10, 12, 12, 3))}, r"x_train is float64 .* 0 to 255, channels last"),
     ({"x_train": np.zeros((0, 9000, 9000, 3), np.uint8)}, "of at most 4,096 px"),
     ({"y_train": np.zeros(9, int)}, r"y_train is int64 \(9,\); whole numbers \(10,\)"),
     ({"y_test": np.full(10, -1)}, "y_test holds -1"),
     ({"y_test": np.full(10, 10**8)}, "a label is 100,000,000"),
     ({"classes": np.array(["one"])}, "names 1 classes, and a label is 1"),
     ({"y_train": np.array([{}] * 10, dtype=object)}, "can't be read as an .npz")],
)  # fmt: skip
def test_what_doesnt_fit_is_named(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        datasets.load(written(tmp_path / "a.npz", **changes))


def test_no_object_is_unpickled_and_no_pipe_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    evil = pickle.dumps(os.getcwd)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|O", "fortran_order": False, "shape": (10,)}
    )
    written(path)
    with zipfile.ZipFile(path, "a") as packed:
        packed.writestr("classes.npy", header.getvalue() + evil)
    with pytest.raises(BadInput, match="can't be read as an"):
        datasets.load(f"arrays:{path}")
    written(path, x_train=None)
    with zipfile.ZipFile(path, "a") as packed:
        packed.writestr("x_train", b"raw")  # without .npy it is no array
    with pytest.raises(BadInput, match="no array x_train in it"):
        datasets.load(f"arrays:{path}")
    os.mkfifo(tmp_path / "pipe.npz")
    for name, said in (("pipe.npz", "no such file"), ("none.npz", "no such file")):
        with pytest.raises(BadInput, match=said):
            datasets.load(f"arrays:{tmp_path / name}")
    (tmp_path / "text.npz").write_text("no zip")
    with pytest.raises(BadInput, match="can't be read as an"):
        datasets.load(f"arrays:{tmp_path / 'text.npz'}")


def test_scaled_images_and_labels_without_images_are_said(tmp_path: Path) -> None:
    source = written(tmp_path / "a.npz", x_test=np.zeros((10, 6, 6, 3), np.uint8),
                     y_test=np.array([0, 1] * 4 + [0, 3]))  # fmt: skip
    said = " ".join(datasets.load(source, validation=0.2).notes)
    assert "x_test: scaled from 6 to 12 px" in said and "x_train" not in said
    assert "no training image of 2, 3: is a label meant otherwise?" in said

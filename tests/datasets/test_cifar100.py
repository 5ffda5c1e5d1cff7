"""CIFAR-100 in its versions: the fine labels, not the coarse ones."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from datasets.test_cifar10 import write_files, write_tar

from edgeres import datasets
from edgeres.errors import BadInput

rng = np.random.default_rng(0)
PIXELS = {"train": rng.integers(0, 256, (300, 3072), np.uint8),
          "test": rng.integers(0, 256, (100, 3072), np.uint8)}  # fmt: skip
FINE = {name: np.arange(len(rows)) % 100 for name, rows in PIXELS.items()}


def pickled(name: str) -> bytes:
    fields = {b"data": PIXELS[name], b"fine_labels": FINE[name].tolist(),
              b"coarse_labels": (FINE[name] // 5).tolist(), b"filenames": [b"a"]}  # fmt: skip
    return pickle.dumps(fields, protocol=2)


def binary(name: str) -> bytes:
    coarse, fine = FINE[name] // 5, FINE[name]
    return np.hstack([np.stack([coarse, fine], 1).astype(np.uint8), PIXELS[name]]).tobytes()


@pytest.mark.parametrize("form", ["python", "binary", "npz", "python tar", "binary tar"])
def test_every_version_holds_the_same_images_and_fine_labels(form: str, tmp_path: Path) -> None:
    python = {name: pickled(name) for name in PIXELS}
    packed = {f"{name}.bin": binary(name) for name in PIXELS}
    if form == "npz":
        for name, rows in PIXELS.items():
            x = rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
            np.savez(tmp_path / f"{name}.npz", x=x, y=FINE[name])
    elif form == "python":
        write_files(tmp_path / "cifar-100-python", python)
    elif form == "binary":
        write_files(tmp_path / "cifar-100-binary", packed)
    else:
        kind = form.split()[0]
        files = python if kind == "python" else packed
        write_tar(tmp_path / f"cifar-100-{kind}.tar.gz", files, f"cifar-100-{kind}")
    data = datasets.load(f"cifar100:{tmp_path}", validation=1 / 3)
    assert len(data.classes) == len(set(data.classes)) == 100
    assert (data.classes[0], data.classes[42], data.classes[99]) == ("apple", "leopard", "worm")
    assert [len(p.labels) for p in (data.train, data.validation, data.test)] == [200, 100, 100]
    np.testing.assert_array_equal(data.test.labels, FINE["test"])
    rows = data.test.images.transpose(0, 3, 1, 2).reshape(-1, 3072)
    np.testing.assert_array_equal(rows, PIXELS["test"])


def test_a_folder_without_it_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no CIFAR-100 in it; .* train and test \(.bin or not\)"):
        datasets.load(f"cifar100:{tmp_path}")
    write_files(tmp_path, {"train": pickled("train")})
    with pytest.raises(BadInput, match="train but no test"):
        datasets.load(f"cifar100:{tmp_path}")

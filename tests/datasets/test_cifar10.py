"""The three versions of CIFAR-10, extracted and packed, and hostile ones."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeres import datasets
from edgeres.datasets import Samples, cifar10
from edgeres.errors import BadInput
from edgeres.types import Resize

PER_BATCH = 10
BATCHES = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
rng = np.random.default_rng(0)
PIXELS = rng.integers(0, 256, (6 * PER_BATCH, 32, 32, 3), dtype=np.uint8)
LABELS = np.array([rng.permutation(10) for _ in BATCHES], np.uint8).reshape(-1)

# How Python 2 and numpy 1 wrote the official batches (`str` opcodes, numpy.core), by hand.
_OFFICIAL = (
    b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\n"
    b"q\x04K\x00\x85U\x01b\x87Rq\x05(K\x01K\x0aM\x00\x0c\x86cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01"
    b"\x87Rq\x07(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T%btbU\x06labelsq\x08"
    b"]q\x09(%beu."
)


def rows(index: int) -> np.ndarray:
    part = PIXELS[index * PER_BATCH : (index + 1) * PER_BATCH]
    return part.transpose(0, 3, 1, 2).reshape(PER_BATCH, 3072)


def labels(index: int) -> list[int]:
    return LABELS[index * PER_BATCH : (index + 1) * PER_BATCH].tolist()


def pickled(index: int, **changes: Any) -> bytes:
    fields = {"batch_label": b"one", "labels": labels(index), "data": rows(index)} | changes
    fields["filenames"] = [b"a.png"] * PER_BATCH
    return pickle.dumps({key.encode(): value for key, value in fields.items()}, protocol=2)


def official(index: int) -> bytes:
    contents = rows(index).tobytes()
    size = len(contents).to_bytes(4, "little")
    return _OFFICIAL % (size + contents, b"".join(b"K" + bytes([n]) for n in labels(index)))


def official_fortran(index: int) -> bytes:
    return pickled(index, data=np.asfortranarray(rows(index)))


def binary(index: int) -> bytes:
    return np.hstack([np.array(labels(index), np.uint8)[:, None], rows(index)]).tobytes()


def batch_files(write: Callable[[int], bytes]) -> dict[str, bytes]:
    suffix = ".bin" if write is binary else ""
    return {f"{name}{suffix}": write(i) for i, name in enumerate(BATCHES)}


def write_files(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, contents in files.items():
        (folder / name).write_bytes(contents)
    return folder


def write_tar(path: Path, files: dict[str, bytes], inside: str = "cifar-10-batches-py") -> Path:
    with tarfile.open(path, "w:gz") as tar:
        # Backwards: the order in the archive must not matter.
        for name, contents in reversed([*files.items(), ("readme.html", b"<html>")]):
            member = tarfile.TarInfo(f"{inside}/{name}")
            member.size = len(contents)
            tar.addfile(member, io.BytesIO(contents))
    return path


def write_npz(folder: Path, x: np.ndarray = PIXELS, y: np.ndarray = LABELS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / "train.npz", x=x[:50], y=y[:50], lossless=np.ones(50, bool))
    np.savez_compressed(folder / "test.npz", x=x[50:], y=y[50:])
    return folder


def read_all(path: Path) -> tuple[Samples, Samples]:
    raw = cifar10.read(path, datasets.ReadOptions(Resize.of(32)))
    assert raw.validation is None
    return raw.train, raw.test


@pytest.mark.parametrize(
    "write",
    [
        lambda p: write_npz(p),
        lambda p: write_files(p, batch_files(pickled)),
        lambda p: write_files(p, batch_files(official)),
        lambda p: write_files(p, batch_files(official_fortran)),
        lambda p: write_files(p, batch_files(binary)),
        lambda p: write_files(p / "cifar-10-batches-py", batch_files(official)).parent,
        lambda p: write_tar(p / "cifar-10-python.tar.gz", batch_files(official)),
        lambda p: write_tar(p / "cifar-10-python.tar.gz", batch_files(official)).parent,
        lambda p: write_tar(p / "renamed.tgz", batch_files(binary), "cifar-10-batches-bin"),
    ],
    ids=["npz", "pickle", "official", "fortran", "binary", "parent folder", "tar file",
         "tar in folder", "binary tar"],
)  # fmt: skip
def test_every_version_holds_the_same_images_in_order(
    tmp_path: Path, write: Callable[[Path], Path]
) -> None:
    train, test = read_all(write(tmp_path))
    np.testing.assert_array_equal(np.concatenate([train.images, test.images]), PIXELS)
    np.testing.assert_array_equal(np.concatenate([train.labels, test.labels]), LABELS)
    assert len(test.labels) == PER_BATCH


def test_a_whole_load(tmp_path: Path) -> None:
    data = datasets.load(f"cifar10:{write_npz(tmp_path)}", size_px=24, validation=0.2)
    assert data.classes[0] == "airplane"
    assert data.train.images.shape == (40, 24, 24, 3)
    assert np.bincount(data.validation.labels).tolist() == [1] * 10


def test_a_renamed_archive_is_the_same_data(tmp_path: Path) -> None:
    file = write_tar(tmp_path / "cifar-10-python.tar.gz", batch_files(official))
    before = datasets.fingerprint(f"cifar10:{file}")
    assert datasets.fingerprint(f"cifar10:{file.rename(tmp_path / 'other.tgz')}") == before


class Canary:
    """Unpickled in earnest, it makes a folder."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("packed", [False, True])
def test_a_hostile_pickle_is_refused_unexecuted(tmp_path: Path, packed: bool) -> None:
    canary = tmp_path / "canary"
    files = batch_files(pickled)
    files["data_batch_3"] = pickled(2, labels=Canary(canary))
    pickle.loads(files["data_batch_3"])
    assert canary.is_dir()  # it bites whoever unpickles it
    canary.rmdir()
    if packed:
        source = write_tar(tmp_path / "c.tar.gz", files)
    else:
        source = write_files(tmp_path / "c", files)
    with pytest.raises(BadInput, match=r"data_batch_3: refused.*posix.mkdir"):
        datasets.load(f"cifar10:{source}")
    assert not canary.exists()


def reducing(function: object, *arguments: object) -> object:
    class Reducing:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return function, arguments

    return Reducing()


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"", "EOFError"),
        (b"not a pickle", "refused"),
        (official(0)[:-200], "refused"),
        (pickle.dumps([1, 2]), "refused"),
        (pickle.dumps({b"labels": labels(0)}), "KeyError"),
        (pickled(0, data=rows(0).astype(np.float32)), "not of unsigned bytes"),
        (pickled(0, data=rows(0).astype(object)), "not of unsigned bytes"),
        (pickled(0, data=rows(0)[:, :3000]), r"images \(10, 3000\)"),
        (pickled(0, data=b"bytes"), "no array"),
        (pickled(0, labels=labels(0)[1:]), "9 labels"),
        (pickled(0, labels=[[1]] * 10), "no integer"),
        (pickled(0, labels="abc"), "no list"),
        (pickled(0, batch_label=reducing(eval, "1")), "__builtin__.eval"),
        (pickled(0, batch_label=reducing(getattr, "", "join")), "__builtin__.getattr"),
        (pickled(0, batch_label=np.float64(1)), "scalar"),
        (b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00rot13\x86R.", "rot13"),
        (b"\x80\x02cnumpy\nfromfile\n.", "numpy.fromfile"),
        (b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n.", "refused"),
    ],
)  # fmt: skip
def test_anything_but_a_batch_is_refused(tmp_path: Path, contents: bytes, message: str) -> None:
    files = batch_files(pickled) | {"data_batch_1": contents}
    with pytest.raises(BadInput, match=message) as caught:
        read_all(write_files(tmp_path, files))
    assert str(tmp_path / "data_batch_1") in str(caught.value)


def test_a_half_record_is_refused(tmp_path: Path) -> None:
    files = batch_files(binary)
    files["test_batch.bin"] = files["test_batch.bin"][:-1]
    with pytest.raises(BadInput, match=r"test_batch.bin: 30,729 bytes, not whole records"):
        read_all(write_files(tmp_path, files))


@pytest.mark.parametrize("write", [pickled, binary])
def test_a_missing_batch_is_named(tmp_path: Path, write: Callable[[int], bytes]) -> None:
    files = batch_files(write)
    missing = next(name for name in files if "4" in name)
    del files[missing]
    with pytest.raises(BadInput, match=f"no {missing}"):
        read_all(write_files(tmp_path / "folder", files))
    with pytest.raises(BadInput, match=r"not all of data_batch_1, .* and test_batch"):
        read_all(write_tar(tmp_path / "c.tar.gz", files))


def test_a_label_out_of_range(tmp_path: Path) -> None:
    folder = write_npz(tmp_path, y=np.where(np.arange(60) == 55, 10, LABELS).astype(np.uint8))
    with pytest.raises(BadInput, match="test split: label 10 is out of range"):
        datasets.load(f"cifar10:{folder}")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": PIXELS, "z": LABELS}, "arrays x and y"),
        ({"x": PIXELS.astype(np.float32), "y": LABELS}, "x is float32"),
        ({"x": PIXELS[:, :16], "y": LABELS}, "expected uint8"),
        ({"x": PIXELS, "y": LABELS[1:]}, "expected 60 labels"),
        ({"x": PIXELS, "y": LABELS / 2}, "y is float64"),
        ({"x": np.array([Canary(Path("never"))]), "y": LABELS}, "allow_pickle=False"),
    ],
)
def test_a_wrong_npz_is_refused(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    write_npz(tmp_path)
    np.savez(tmp_path / "train.npz", **arrays)
    with pytest.raises(BadInput, match=message) as caught:
        read_all(tmp_path)
    assert str(tmp_path / "train.npz") in str(caught.value)
    assert not Path("never").exists()


@pytest.mark.parametrize("contents", [b"", b"PK\x03\x04 no zip", b"\x93NUMPY\x01\x00"])
def test_a_damaged_npz_is_refused(tmp_path: Path, contents: bytes) -> None:
    (write_npz(tmp_path) / "train.npz").write_bytes(contents)
    with pytest.raises(BadInput, match=r"train.npz: can't be read"):
        read_all(tmp_path)


def test_an_npz_that_unpacks_to_too_much_is_refused(tmp_path: Path) -> None:
    write_npz(tmp_path)
    with (
        zipfile.ZipFile(tmp_path / "train.npz", "w", zipfile.ZIP_DEFLATED) as packed,
        packed.open("x.npy", "w") as member,
    ):
        for _ in range(257):
            member.write(bytes(1 << 20))
    with pytest.raises(BadInput, match="larger than all of CIFAR"):
        read_all(tmp_path)


@pytest.mark.parametrize("contents", [b"", b"plain", gzip.compress(b"no tar" * 200, mtime=0)])
def test_a_file_that_is_no_archive_is_refused(tmp_path: Path, contents: bytes) -> None:
    (tmp_path / "c.tar.gz").write_bytes(contents)
    with pytest.raises(BadInput, match=str(tmp_path / "c.tar.gz")):
        read_all(tmp_path / "c.tar.gz")


def test_links_in_an_archive_are_not_followed(tmp_path: Path) -> None:
    write_files(tmp_path, batch_files(official))
    with tarfile.open(tmp_path / "c.tar.gz", "w:gz") as tar:
        for name in BATCHES:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, str(tmp_path / name)
            tar.addfile(member)
    with pytest.raises(BadInput, match="not all of"):
        read_all(tmp_path / "c.tar.gz")


@pytest.mark.realdata
def test_the_real_one(real_data: Path) -> None:
    folder = real_data / "cifar10"
    if not folder.is_dir():
        pytest.skip("EDGERES_DATA has no cifar10")
    train, test = read_all(folder)
    assert np.bincount(train.labels).tolist() == [5000] * 10
    assert np.bincount(test.labels).tolist() == [1000] * 10
    published = (0.4914, 0.4822, 0.4465)
    assert train.images.mean((0, 1, 2)) / 255 == pytest.approx(published, abs=1e-3)

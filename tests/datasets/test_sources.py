"""Names, paths, checks and fingerprints: what holds for every dataset."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edgeres import datasets
from edgeres.datasets import Dataset, RawDataset, Samples, digits
from edgeres.errors import BadInput


def samples(labels: list[int], px: int = 4) -> Samples:
    values = np.arange(len(labels) * px * px * 3) % 251
    images = values.astype(np.uint8).reshape(len(labels), px, px, 3)
    return Samples(images, np.array(labels, np.int64))


def raw(**changes: object) -> RawDataset:
    some = samples([0, 1] * 10)
    return RawDataset(("a", "b"), some, None, some)._replace(**changes)


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A dataset in digits' place whose `raw` a test sets."""
    fake = SimpleNamespace(SIZE=4, NEEDS_PATH=False, SUMMARY="", raw=raw())
    fake.read = lambda path, size_px: fake.raw
    monkeypatch.setitem(sys.modules, "edgeres.datasets.digits", fake)
    return fake


def test_parse_finds_the_module_behind_a_hyphen() -> None:
    assert datasets.parse("fashion-mnist:/some/where") == ("fashion-mnist", Path("/some/where"))
    assert datasets.parse("fashion_mnist:/some/where") == ("fashion-mnist", Path("/some/where"))


def test_parse_keeps_later_colons_and_expands_home() -> None:
    assert datasets.parse("cifar10:/a:b") == ("cifar10", Path("/a:b"))
    assert datasets.parse("cifar10:~/c") == ("cifar10", Path.home() / "c")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("cifar10", "data 'cifar10' needs a folder: write cifar10:PATH"),
        ("cifar10:", "write cifar10:PATH"),
        ("digits:/somewhere", "'digits' takes no path"),
        ("cifar1O:/x", r"did you mean 'cifar10'\?"),
        ("_batches", "unknown dataset"),
        ("", "unknown dataset"),
        ("../digits", "unknown dataset"),
    ],
)
def test_a_wrong_source_says_the_mend(source: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        datasets.parse(source)


@pytest.mark.parametrize("name", ["cifar10", "fashion-mnist", "imagefolder"])
@pytest.mark.parametrize("use", [datasets.load, datasets.fingerprint])
def test_a_missing_or_empty_folder_is_named(name: str, use: object, tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(BadInput, match=str(folder)):
            use(f"{name}:{folder}")  # type: ignore[operator]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ("a",)}, "1 class; a classifier needs two"),
        ({"train": samples([])}, "train split: no image"),
        ({"test": samples([])}, "test split: no image"),
        ({"validation": samples([])}, "validation split: no image"),
        ({"train": samples([0, 1, 2])}, "train split: label 2 is out of range"),
        ({"test": samples([0, -1])}, "test split: label -1 is out of range"),
        ({"test": samples([0, 1], px=5)}, r"uint8 \(5, 5, 3\), expected uint8 \(4, 4, 3\)"),
        ({"test": Samples(samples([0]).images.astype(np.float32), np.zeros(1, np.int64))},
         "float32"),
        ({"test": Samples(samples([0]).images, np.zeros(2, np.int64))}, r"int64 \(2,\)"),
        ({"test": Samples(samples([0]).images, np.zeros(1, np.uint8))}, "uint8"),
        ({"train": samples([0, 1])}, "validation split: no image"),  # nothing can be spared
    ],
)  # fmt: skip
def test_load_checks_what_a_plugin_read(
    plugin: SimpleNamespace, changes: dict[str, object], message: str
) -> None:
    assert datasets.load("digits").classes == ("a", "b")
    plugin.raw = raw(**changes)
    with pytest.raises(BadInput, match=f"data 'digits'.*{message}"):
        datasets.load("digits")


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_a_validation_share_must_leave_both_sides_something(share: float) -> None:
    with pytest.raises(BadInput, match="between 0 and 1"):
        datasets.load("digits", validation=share)


def test_a_size_must_be_positive() -> None:
    with pytest.raises(BadInput, match="0 px"):
        datasets.load("digits", 0)


def test_a_datasets_own_validation_split_is_kept(plugin: SimpleNamespace) -> None:
    plugin.raw = raw(validation=samples([1, 0, 1]))
    data = datasets.load("digits", validation=0.5)
    assert (len(data.train.labels), data.validation.labels.tolist()) == (20, [1, 0, 1])


def test_an_unreadable_file_is_named(plugin: SimpleNamespace) -> None:
    def refuse(path: Path | None, size_px: int) -> RawDataset:
        raise PermissionError(13, "Permission denied", "/data/x")

    plugin.read = refuse
    with pytest.raises(BadInput, match="/data/x: Permission denied"):
        datasets.load("digits")


def identities(samples: Samples) -> set[bytes]:
    return {image.tobytes() for image in samples.images}


def splits(data: Dataset) -> list[Samples]:
    return [data.train, data.validation, data.test]


def test_the_validation_split_follows_the_seed_and_the_test_split_does_not() -> None:
    first, again, other = (datasets.load("digits", seed=s) for s in (1, 1, 2))
    for a, b in zip(splits(first), splits(again), strict=True):
        np.testing.assert_array_equal(a.images, b.images)
        np.testing.assert_array_equal(a.labels, b.labels)
    assert identities(first.validation) != identities(other.validation)
    np.testing.assert_array_equal(first.test.images, other.test.images)


def test_splits_are_disjoint_and_whole() -> None:
    data = datasets.load("digits")
    parts = [identities(part) for part in splits(data)]
    assert sum(len(part.labels) for part in splits(data)) == 1797
    assert len(set.union(*parts)) == sum(map(len, parts))  # no image is in two of them


def write_fashion(folder: Path, pixel: int = 7) -> None:
    folder.mkdir(parents=True)
    for name in ("train", "t10k"):
        images = bytes((0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 28, 0, 0, 0, 28)) + bytes([pixel] * 1568)
        (folder / f"{name}-images-idx3-ubyte").write_bytes(images)
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(bytes((0, 0, 8, 1, 0, 0, 0, 2, 0, 1)))


def test_a_fingerprint_follows_contents_and_names_not_the_place(tmp_path: Path) -> None:
    write_fashion(tmp_path / "a")
    write_fashion(tmp_path / "b" / "c")
    here = datasets.fingerprint(f"fashion-mnist:{tmp_path / 'a'}")
    assert here == datasets.fingerprint(f"fashion_mnist:{tmp_path / 'b' / 'c'}")
    (tmp_path / "a" / "notes.txt").write_text("not a source")
    assert here == datasets.fingerprint(f"fashion-mnist:{tmp_path / 'a'}")
    with (tmp_path / "a" / "t10k-labels-idx1-ubyte").open("r+b") as file:
        file.seek(9)
        file.write(b"\x00")
    assert here != datasets.fingerprint(f"fashion-mnist:{tmp_path / 'a'}")


def test_a_fingerprint_sees_a_file_move_to_another_class(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "train" / name).mkdir(parents=True)
        (tmp_path / "train" / name / "0.png").write_bytes(name.encode())
    (tmp_path / "train" / "a" / "1.png").write_bytes(b"x")
    before = datasets.fingerprint(f"imagefolder:{tmp_path}")
    # Sorted by name, the contents keep their order: only the names tell.
    (tmp_path / "train" / "a" / "1.png").rename(tmp_path / "train" / "b" / "-.png")
    assert before != datasets.fingerprint(f"imagefolder:{tmp_path}")


def test_a_bundled_datasets_fingerprint_follows_the_packages_data(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = datasets.fingerprint("digits")
    assert before == datasets.fingerprint("digits")
    changed = tmp_path / "digits.csv.gz"
    changed.write_bytes(digits.sources(None)[0].read_bytes() + b"\0")
    monkeypatch.setattr(digits, "sources", lambda path: (changed,))
    assert before != datasets.fingerprint("digits")


def test_a_folder_alone_is_told_its_name(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=f"is a folder; write imagefolder:{tmp_path}"):
        datasets.parse(str(tmp_path))

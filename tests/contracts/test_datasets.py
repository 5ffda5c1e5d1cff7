"""Every data set, the same questions: what it gives, twice the same, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeres import datasets
from edgeres.datasets import ReadOptions
from edgeres.datasets._pictures import whole
from edgeres.errors import BadInput
from edgeres.types import Resize


def _pixels(count: int, px: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, px, px, 3), np.uint8)


def _arrays(folder: Path) -> Path:
    y = np.arange(20) % 2
    x = _pixels(20, 12)
    np.savez(folder / "a.npz", x_train=x, y_train=y, x_test=255 - x, y_test=y)
    return folder / "a.npz"


def _cifar(classes: int, names: tuple[str, str]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        for name in names:
            y = np.arange(2 * classes) % classes
            np.savez(folder / f"{name}.npz", x=_pixels(2 * classes, 32), y=y)
        return folder

    return write


def _fashion(folder: Path) -> Path:
    for name in ("train", "t10k"):
        sizes = b"".join(n.to_bytes(4, "big") for n in (20, 28, 28))
        images, labels = _pixels(20, 28)[..., 0].tobytes(), (np.arange(20) % 10).astype(np.uint8)
        (folder / f"{name}-images-idx3-ubyte").write_bytes(bytes((0, 0, 8, 3)) + sizes + images)
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(
            bytes((0, 0, 8, 1)) + sizes[:4] + labels.tobytes()
        )
    return folder


def _pictures(folder: Path) -> Path:
    for part in ("train", "val", "test"):
        for number in range(8):
            path = folder / part / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(_pixels(8, 40)[number]).save(path)
    return folder


FILES: dict[str, Callable[[Path], Path]] = {
    "arrays": _arrays, "cifar10": _cifar(10, ("train", "test")),
    "cifar100": _cifar(100, ("train", "test")), "fashion-mnist": _fashion,
    "imagefolder": _pictures,
}  # fmt: skip


@pytest.fixture(params=datasets.names())
def source(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """What a recipe would write, with small files of its kind."""
    name = request.param
    if not datasets.PLUGINS.load(name).NEEDS_PATH:
        return name
    if name not in FILES:
        pytest.skip("no files of this kind are made here")
    return f"{name}:{FILES[name](tmp_path)}"


@pytest.mark.parametrize("px", [None, 20])
def test_the_images_are_what_is_promised(source: str, px: int | None) -> None:
    data = datasets.load(source, px)
    size = datasets.default_size(source) if px is None else px
    assert len(data.classes) >= 2 and len(set(data.classes)) == len(data.classes)
    assert all(isinstance(name, str) and name.strip() for name in data.classes)
    for part in (data.train, data.validation, data.test):
        assert part.images.shape == (len(part.labels), size, size, 3) and len(part.labels)
        assert part.images.dtype == np.uint8 and part.labels.dtype == np.int64
        assert 0 <= part.labels.min() <= part.labels.max() < len(data.classes)
        assert len(np.unique(part.images.reshape(len(part.labels), -1), axis=0)) > 1
    assert all("\n" not in note for note in data.notes)


def test_it_reads_the_same_twice(source: str) -> None:
    name, path = datasets.parse(source)
    options = ReadOptions(Resize.of(16))
    one, two = (datasets.PLUGINS.load(name).read(path, options) for _ in range(2))
    assert one.classes == two.classes
    for a, b in ((one.train, two.train), (one.test, two.test)):
        assert np.array_equal(whole(a.images), whole(b.images))
        assert np.array_equal(a.labels, b.labels)


def test_its_files_say_what_it_is(source: str) -> None:
    name, path = datasets.parse(source)
    files = datasets.PLUGINS.load(name).sources(path)
    assert files and all(file.is_file() for file in files)
    assert path is None or all(file == path or file.is_relative_to(path) for file in files)
    assert datasets.fingerprint(source) == datasets.fingerprint(source)


@pytest.mark.parametrize("name", datasets.names())
def test_what_is_missing_is_one_sentence(name: str, tmp_path: Path) -> None:
    module = datasets.PLUGINS.load(name)
    assert module.SUMMARY and "\n" not in module.SUMMARY and module.SIZE > 0
    wrong = f"{name}:{tmp_path / 'nowhere'}"
    for use in (datasets.load, datasets.fingerprint):
        with pytest.raises(BadInput) as refused:
            use(wrong)
        assert name in str(refused.value) or str(tmp_path) in str(refused.value)
        assert "\n" not in str(refused.value)

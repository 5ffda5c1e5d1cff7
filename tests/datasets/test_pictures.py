"""A folder of many pictures: decoded by processes, in order, and never all in memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import save_file

from edgeres import datasets
from edgeres.datasets import Samples, _decoding, _pictures, _store
from edgeres.datasets._pictures import Pictures
from edgeres.errors import BadInput, StorageError


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """600 small pictures, no two alike."""
    folder, found = tmp_path_factory.mktemp("pictures"), []
    for i in range(600):
        found.append(folder / f"{i:03}.png")
        Image.new("RGB", (20, 20), (i % 256, i // 256, 7)).save(found[-1])
    return found


def test_any_number_of_processes_gives_the_same_images(
    files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_pictures, "BATCH_BYTES", 50 * 3 * 16**2)
    pictures = Pictures(files, 16, _decoding.decode)
    alone, two = (list(pictures.batches(n)) for n in (1, 2))
    assert [len(batch) for batch in two] == [50] * 12
    np.testing.assert_array_equal(np.concatenate(two), np.concatenate(alone))
    assert np.concatenate(alone)[:, 8, 8, 0].tolist() == [i % 256 for i in range(600)]


def test_a_picture_that_a_process_cant_decode_is_named(files: list[Path], tmp_path: Path) -> None:
    for name in ("bad.png", "worse.png"):
        (tmp_path / name).write_bytes(b"no picture")
    some = [*files[:300], tmp_path / "bad.png", *files[300:], tmp_path / "worse.png"]
    with pytest.raises(BadInput, match=r"^2 .*bad\.png: can't be decoded.*worse\.png: can't"):
        list(Pictures(some, 16, _decoding.decode).batches(2))


def test_the_store_gives_back_what_was_written(files: list[Path], tmp_path: Path) -> None:
    pictures = Pictures(files[:7], 16, _decoding.decode)
    labels = np.arange(7)
    whole = _pictures.whole(pictures)
    written = _store.write(tmp_path, {"a": Samples(pictures, labels), "b": Samples(whole, labels)})
    assert written["a"] == written["b"]
    for images, read_labels in _store.read(tmp_path / _store.FILE).values():
        assert torch.equal(images, torch.from_numpy(whole).permute(0, 3, 1, 2))
        assert read_labels.tolist() == labels.tolist()


def test_a_store_in_the_earlier_layout_is_read(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)
    save_file({"test_x": images, "test_y": np.arange(5)}, tmp_path / _store.FILE)
    read, labels = _store.read(tmp_path / _store.FILE)["test"]
    assert torch.equal(read, torch.from_numpy(images).permute(0, 3, 1, 2))
    assert labels.tolist() == list(range(5))


def test_images_that_dont_fit_the_disk_are_refused_before_the_first_is_decoded(
    tmp_path: Path,
) -> None:
    nowhere = Pictures([tmp_path / "none.png"] * 1_000_000, 30_000, _decoding.decode)
    labels = np.zeros(len(nowhere), np.int64)
    with pytest.raises(StorageError, match=r"2,700,000,008\.0 MB with"):
        _store.write(tmp_path, {"train": Samples(nowhere, labels)})
    assert not (tmp_path / _store.FILE).exists()


_IN_A_PROCESS_OF_ITS_OWN = """
import sys
from pathlib import Path

def own_mb():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(l for l in lines if l.startswith("RssAnon")).split()[1]) / 1e3

most = 0.0
def tick(*_):
    global most
    most = max(most, own_mb())

if __name__ == "__main__":  # the processes that decode have none of this
    import torch

    from edgeres.artifact import Artifact
    from edgeres.datasets import _batches, _store
    from edgeres.recipe import DataSection
    from edgeres.stages import Context, _checkpoint, data
    from edgeres.training import label_cache, loop

    pictures, out = map(Path, sys.argv[1:])
    section = DataSection(source=f"imagefolder:{pictures}", size=224, calibration=8)
    torch.zeros(9)[torch.randperm(9)].to(torch.uint8).float().sum()
    before = own_mb()
    facts = data.run(section, {}, out, Context(0, out, tick))
    written = most - before
    artifact = Artifact("data", "-", "-", out, {}, {}, facts, {}, 0.0)
    splits = _checkpoint.splits(artifact)
    _checkpoint.calibration_images(artifact, splits[0], splits[2])
    tick()
    for split in splits:
        for chosen in torch.randperm(len(split.labels)).split(8):
            batch = split.images[chosen].float()
            tick()
    size = (out / "data.safetensors").stat().st_size / 1e6
    print(size, written, most - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="counts memory as Linux does")
def test_neither_writing_nor_reading_holds_the_images_in_memory(tmp_path: Path) -> None:
    pictures, out, script = tmp_path / "pictures", tmp_path / "out", tmp_path / "main.py"
    for split, count in (("train", 600), ("test", 100)):
        Image.new("RGB", (40, 40), (count % 256, 7, 9)).save(tmp_path / f"{split}.jpg")
        for i in range(count):
            to = pictures / split / f"class{i % 2}" / f"{i}.jpg"
            to.parent.mkdir(parents=True, exist_ok=True)
            to.hardlink_to(tmp_path / f"{split}.jpg")
    out.mkdir()
    script.write_text(_IN_A_PROCESS_OF_ITS_OWN)
    done = subprocess.run([sys.executable, script, pictures, out],
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    print(done.stdout)  # shown where the test fails
    size_mb, written_mb, most_mb = map(float, done.stdout.split())
    assert size_mb > 100
    assert 0 < written_mb < 0.75 * size_mb and most_mb < 0.75 * size_mb


def test_load_has_the_images_of_opened(files: list[Path], tmp_path: Path) -> None:
    for k in range(2):
        (tmp_path / "train" / f"c{k}").mkdir(parents=True)
        for i in range(10):
            (tmp_path / "train" / f"c{k}" / f"{i}.png").hardlink_to(files[10 * k + i])
    lazy = datasets.opened(f"imagefolder:{tmp_path}", 16, seed=3)
    assert isinstance(lazy.train.images, Pictures)
    loaded = datasets.load(f"imagefolder:{tmp_path}", 16, seed=3)
    for a, b in ((lazy.train, loaded.train), (lazy.test, loaded.test)):
        np.testing.assert_array_equal(_pictures.whole(a.images), b.images)
        np.testing.assert_array_equal(a.labels, b.labels)

"""What files hash to is remembered, and never wrongly."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest
from PIL import Image

from edgeres import datasets
from edgeres.datasets import _hashes
from edgeres.datasets._hashes import Hashes
from edgeres.errors import BadInput

LONG_AGO = time.time_ns() - 3_600_000_000_000


@pytest.fixture
def file(tmp_path: Path, settled: None) -> Path:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"first")
    os.utime(path, ns=(LONG_AGO, LONG_AGO))
    return path


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files' own times are those of the test, as if it ran an hour later."""
    now = time.time_ns
    monkeypatch.setattr(_hashes.time, "time_ns", lambda: now() + 3_600_000_000_000)


def asked(cache: Path, *paths: Path) -> tuple[list[bytes], int]:
    """Hashes of files, and how many were read for it."""
    hashes = Hashes(cache)
    found = [hashes.sha256(path) for path in paths]
    hashes.save()
    return found, hashes.read


def right(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


def test_a_file_is_read_once(file: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache/of-it"
    assert asked(cache, file) == ([right(file)], 1)
    assert asked(cache, file) == ([right(file)], 0)
    assert asked(cache, file.rename(tmp_path / "b.jpg"))[1] == 1  # another path


def other_size(file: Path) -> None:
    file.write_bytes(b"longer than it was")


def other_time(file: Path) -> None:
    file.write_bytes(b"FIRST")


def other_inode(file: Path) -> None:
    """As rsync and editors write; size and time are the old ones."""
    beside = file.with_suffix(".new")
    beside.write_bytes(b"FIRST")
    os.utime(beside, ns=(LONG_AGO, LONG_AGO))
    beside.replace(file)


def time_set_back(file: Path) -> None:
    """In place: size, time and inode are the old ones."""
    time.sleep(0.05)  # the clock's step is up to 10 ms
    file.write_bytes(b"FIRST")
    os.utime(file, ns=(LONG_AGO, LONG_AGO))


@pytest.mark.parametrize("change", [other_size, other_time, other_inode, time_set_back])
def test_a_change_is_seen(change: object, file: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    asked(cache, file)
    change(file)  # type: ignore[operator]
    assert asked(cache, file) == ([right(file)], 1)
    assert asked(cache, file) == ([right(file)], 0)


@pytest.mark.parametrize("age_s", [0.0, 1.9, -60.0])
def test_a_file_that_was_just_written_is_read_again(
    age_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could be written to once more within the clock's step, or its clock is ahead."""
    file, cache = tmp_path / "a", tmp_path / "cache"
    file.write_bytes(b"first")
    at = file.stat().st_mtime_ns
    monkeypatch.setattr(_hashes.time, "time_ns", lambda: at + int(age_s * 1e9))
    assert [asked(cache, file)[1] for _ in range(2)] == [1, 1]
    monkeypatch.setattr(_hashes.time, "time_ns", lambda: at + 2_100_000_000)
    assert [asked(cache, file)[1] for _ in range(2)] == [1, 0]


def test_one_that_is_written_to_while_it_is_read_is_not_remembered(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, sha256 = tmp_path / "cache", hashlib.sha256

    def started() -> object:
        other_time(file)
        return sha256()

    monkeypatch.setattr(_hashes.hashlib, "sha256", started)
    asked(cache, file)
    monkeypatch.undo()
    assert asked(cache, file) == ([right(file)], 1)


@pytest.mark.parametrize("at", range(0, 56, 5))
def test_a_damaged_row_is_none(at: int, file: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    asked(cache, file)
    content = bytearray(cache.read_bytes())
    assert len(content) == 56
    content[at] ^= 4
    cache.write_bytes(bytes(content))
    assert asked(cache, file) == ([right(file)], 1)


def test_what_a_killed_process_left_of_a_row_is_no_matter(file: Path, tmp_path: Path) -> None:
    cache, other = tmp_path / "cache", tmp_path / "b"
    other.write_bytes(b"other")
    asked(cache, file)
    cache.write_bytes(cache.read_bytes() + b"x" * 20)
    assert asked(cache, file, other) == ([right(file), right(other)], 1)
    assert asked(cache, file, other)[1] == 0


def test_rows_of_files_that_changed_dont_pile_up(file: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    for i in range(20):
        file.write_bytes(b"%5d" % i)
        os.utime(file, ns=(LONG_AGO, LONG_AGO + i))
        assert asked(cache, file) == ([right(file)], 1)
        assert cache.stat().st_size <= 2 * 56
    assert asked(cache, file)[1] == 0


def test_where_nothing_can_be_kept_files_are_read_again(file: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    nowhere = tmp_path / "no/store/hashes"  # as of a plan, which makes nothing
    for cache in (tmp_path / "taken/cache", tmp_path / "link", tmp_path, nowhere):
        assert [asked(cache, file)[1] for _ in range(2)] == [1, 1]
    assert not (tmp_path / "elsewhere").exists() and not (tmp_path / "no").exists()
    with pytest.raises(BadInput, match="no such file"):
        asked(tmp_path / "cache", tmp_path / "gone")


def test_a_folders_fingerprint_reads_what_changed(
    tmp_path: Path, settled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(6):
        file = tmp_path / "data/train" / "ab"[i % 2] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9), (i, 0, 0)).save(file)
    read: list[int] = []
    save = Hashes.save
    monkeypatch.setattr(Hashes, "save", lambda self: read.append(self.read) or save(self))
    source, known = f"imagefolder:{tmp_path / 'data'}", tmp_path / "known"
    plain = datasets.fingerprint(source)
    assert [datasets.fingerprint(source, known=known) for _ in range(2)] == [plain, plain]
    Image.new("RGB", (9, 9), (7, 7, 7)).save(file)
    os.utime(file, ns=(LONG_AGO, LONG_AGO))
    assert datasets.fingerprint(source, known=known) != plain
    assert datasets.fingerprint(source, known=known) == datasets.fingerprint(source)
    assert read == [6, 6, 0, 1, 0, 6]

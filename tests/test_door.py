"""The door: what it lets through, and that a file is hashed once as long as nobody touches it."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path

import pytest

from edgeres import disk, door, shape
from edgeres.errors import StorageError

GOOD = b"contents"
SUM = hashlib.sha256(GOOD).hexdigest()


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    _later_process()
    (path := tmp_path / "file").write_bytes(GOOD)
    time.sleep(0.25)  # what was written just now isn't remembered
    return path


def _later_process() -> None:
    door._marks.cache_clear()


def reads(file: Path, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether a file is as it should be, and whether it was read for that."""
    read: list[Path] = []
    opened = door._opened
    with monkeypatch.context() as patch:
        patch.setattr(door, "_opened", lambda path: read.append(path) or opened(path))
        found = door.has(file, SUM, len(GOOD))
    return [found, file in read]


def test_a_file_is_read_once_also_by_later_processes(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert reads(file, monkeypatch) == [True, True]
    assert reads(file, monkeypatch) == [True, False]
    _later_process()
    assert reads(file, monkeypatch) == [True, False]


def test_a_change_that_keeps_size_and_time_is_seen(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert door.has(file, SUM, len(GOOD))
    before = file.stat()
    with file.open("r+b") as stream:
        stream.write(b"C")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_mtime_ns == before.st_mtime_ns
    assert reads(file, monkeypatch) == [False, True]


def test_what_was_written_just_now_is_read_again(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_bytes(GOOD)
    assert reads(file, monkeypatch) == [True, True]
    assert reads(file, monkeypatch) == [True, True]


@pytest.mark.parametrize("harm", ["cut", "full", "link", "pipe", "no home", "no place"])
def test_without_its_memory_a_file_is_read_again(
    harm: str, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "cache" / "edgeres" / "checked"
    assert door.has(file, SUM, len(GOOD))
    assert kept.stat().st_size == door._MARK
    (other := tmp_path / "other").write_bytes(b"mine")
    if harm == "cut":
        kept.write_bytes(b"x" * 33)
    elif harm == "full":
        kept.write_bytes(bytes(door._MARK * door._MOST_MARKS))
    elif harm == "no home":
        monkeypatch.setenv("XDG_CACHE_HOME", "relative")
        monkeypatch.setattr("os.path.expanduser", str)
        with pytest.raises(StorageError, match="no home folder to keep a cache in"):
            disk.cache_folder()
    elif harm == "no place":
        monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    else:
        kept.unlink()
        kept.symlink_to(other) if harm == "link" else os.mkfifo(kept)
    _later_process()
    assert reads(file, monkeypatch) == [True, True]
    assert other.read_bytes() == b"mine"
    if harm in ("cut", "full"):
        assert kept.stat().st_size == door._MARK, "begun anew"


@pytest.mark.parametrize("name", ["../x", "/x", "a/../b", "a//b", "", ".", "a\\b", "a\nb", "a/./b"])
def test_names_that_lead_elsewhere(name: str, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="is no name of a file in it"):
        door.reached(tmp_path, name)
    assert not door.is_plain(name)


def test_links_and_devices_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "x").write_text("x")
    (tmp_path / "folder").symlink_to("real")
    (tmp_path / "link").symlink_to("real/x")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe", "real"):
        for ask in (door.read, door.is_there, lambda path: door.has(path, SUM, 8)):
            with pytest.raises(StorageError, match="is a link, a folder or a device"):
                ask(tmp_path / name)
    with pytest.raises(StorageError, match="is a link or a file, not a folder"):
        door.reached(tmp_path, "folder/x")
    with pytest.raises(StorageError, match="is a link"):
        door.entries(tmp_path)


def test_documents_are_bounded(tmp_path: Path) -> None:
    def parsed(text: str) -> object:
        return door.parsed(text.encode(), tmp_path)

    assert parsed('[NaN, Infinity, 1e999, 1.5, 12345678901234567890, 7, "\\ud83d\\ude00"]') == [
        None, None, None, 1.5, None, 7, "\U0001f600"]  # fmt: skip
    for bad in ('{"a": 1, "a": 2}', "[" * 70 + "]" * 70, "[" * 10**5, '"\\ud800"', "{", "\xff"):
        with pytest.raises(StorageError, match="is damaged"):
            parsed(bad)
    (tmp_path / "large").write_bytes(b" " * 11)
    with pytest.raises(StorageError, match="is larger than 10 bytes"):
        door.read_json(tmp_path / "large", 10)


@pytest.mark.parametrize(
    ("form", "good", "bad", "says"),
    [({"a": shape.count, "b?": shape.text}, {"a": 1, "b": None}, {"b": "x"}, "a: is missing"),
     ({"a": [shape.share]}, {"a": [0, 1, 0.5]}, {"a": [0, 2]}, r"a\.1: not a number from 0 to 1"),
     ({"*": {"x": shape.truth}}, {"k": {"x": True}}, {"k": {"x": 1}}, r"k\.x: not true or false"),
     (shape.counted, {"correct": 1, "n": 2}, {"correct": 3, "n": 2}, "correct answers"),
     ([shape.whole], [1, -1], [True], "not a whole number"),
     ({"a": shape.text}, {"a": ""}, [], "not a mapping")],
)  # fmt: skip
def test_shapes_name_the_first_misfit(form: object, good: object, bad: object, says: str) -> None:
    assert shape.wrong(form, json.loads(json.dumps(good))) is None
    with pytest.raises(AssertionError, match=says):
        raise AssertionError(shape.wrong(form, bad))

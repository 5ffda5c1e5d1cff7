"""What others wrote is read up to a size, and only from regular files."""

from __future__ import annotations

import os
import socket
import tracemalloc
import zipfile
from pathlib import Path

import pytest
import torch

from edgeres import disk, door
from edgeres.datasets import _bounded
from edgeres.errors import BadInput
from edgeres.measurement import budgets, drift, importers
from edgeres.models import foreign
from edgeres.teachers import keras


def odd_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """A pipe, a socket, a device, a link to a pipe."""
    os.mkfifo(folder / "pipe")
    (folder / "link").symlink_to(folder / "pipe")
    monkeypatch.chdir(folder)  # a socket's path is short
    socket.socket(socket.AF_UNIX).bind("socket")
    return [folder / "pipe", folder / "link", folder / "socket", Path("/dev/zero")]


def test_nothing_but_files_is_opened_or_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "package").mkdir()
    for path in odd_files(tmp_path, monkeypatch):
        for read in (disk.open_regular, lambda p: disk.read_bounded(p, 10, "x"),
                     lambda p: disk.require_regular(p, 10), budgets.load, importers.of_file,
                     lambda p: list(drift._lines(p))):  # fmt: skip
            with pytest.raises(BadInput, match="is a pipe, a socket or a device, not a file"):
                read(path)
    (tmp_path / "package" / "part").symlink_to(tmp_path / "pipe")
    with pytest.raises(BadInput, match="part: is a pipe"):
        disk.require_regular(tmp_path / "package", 10)


def test_a_pipe_that_comes_after_the_look_is_refused_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe")
    known = Path(__file__).stat()
    monkeypatch.setattr(Path, "stat", lambda self, **more: known)
    with pytest.raises(BadInput, match="is a pipe"):
        disk.open_regular(tmp_path / "pipe")


def test_a_bound_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * 1024)
    tracemalloc.start()
    assert disk.read_bounded(path, 1 << 50, "x") == door.read(path, 1 << 50) == b"x" * 1024
    assert _bounded.read(path, 1 << 50) == b"x" * 1024
    assert tracemalloc.get_traced_memory()[1] < 64 << 20
    tracemalloc.stop()


def test_sizes_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 1024)
    assert disk.read_bounded(tmp_path / "a", 1024, "x") == b"x" * 1024
    with pytest.raises(BadInput, match="a: is larger than 1,023 bytes; that is no recipe"):
        disk.read_bounded(tmp_path / "a", 1023, "recipe")
    with (tmp_path / "huge").open("wb") as huge:
        huge.truncate(1 << 40)  # of holes
    with pytest.raises(BadInput, match="huge: is larger than 1 KiB"):
        disk.read_bounded(tmp_path / "huge", 1 << 10, "x")
    with pytest.raises(BadInput, match="larger than 4 GiB"):
        disk.require_regular(tmp_path / "huge", 4 << 30)
    for path in (tmp_path, tmp_path / "none", tmp_path / "a" / "b", Path("a\0b")):
        with pytest.raises(BadInput):
            disk.open_regular(path)


def test_a_checkpoint_that_grows_when_unpacked_is_refused(tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(1 << 20)}, tmp_path / "plain.pth")
    assert foreign.read(tmp_path / "plain.pth").tensors
    with (
        zipfile.ZipFile(tmp_path / "plain.pth") as plain,
        zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for entry in plain.infolist():
            bomb.writestr(entry.filename, plain.read(entry))
    with pytest.raises(BadInput, match=r"bomb\.pth: .*compressed"):
        foreign.read(tmp_path / "bomb.pth")
    (tmp_path / "bomb.pth").rename(tmp_path / "bomb.keras")
    with pytest.raises(BadInput, match=r"save it anew with model\.save"):
        keras.check(str(tmp_path / "bomb.keras"))

"""Archives and folders that aren't as edgeres writes them are refused before they are unpacked."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from beds.bundles import zipped
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeres.bundle import archive, checking
from edgeres.errors import BadInput

FILES = {"manifest.json": b"{}" * 50, "model/m.onnx": b"m" * 300, "labels.txt": b"a\nb\n"}


def unpacked(path: Path) -> dict[str, bytes]:
    with archive.opened(path) as contents:
        return {name: file.read_bytes() for name, file in contents.files.items()}


@pytest.mark.parametrize("name", ["../out.txt", "/tmp/out.txt", "a/../../out.txt", "..\\x", "c:x"])
def test_names_that_reach_outside(name: str, tmp_path: Path) -> None:
    zipped({**FILES, name: b"x"}, tmp_path / "evil.zip")
    with pytest.raises(BadInput, match="outside the bundle"):
        checking.check(tmp_path / "evil.zip")
    assert [p.name for p in tmp_path.rglob("*")] == ["evil.zip"]


@pytest.mark.parametrize(
    ("first", "second"),
    [("a.txt", "a.txt"), ("labels.txt", "LABELS.TXT"), ("stra\xdfe", "STRASSE"),
     ("caf\xe9", "cafe\u0301"), ("a", "a/b"), ("a/b", "a"), ("a/b", "A"), ("Model/a", "model/b")],
)  # fmt: skip
def test_two_entries_that_are_one_file_somewhere(first: str, second: str, tmp_path: Path) -> None:
    path = tmp_path / "twice.zip"
    with zipfile.ZipFile(path, "w") as made:
        for name in (first, second):
            if name in made.namelist():
                with pytest.warns(UserWarning, match="Duplicate"):
                    made.writestr(name, b"other")
            else:
                made.writestr(name, b"one")
    with pytest.raises(BadInput, match=r"is there twice|the same name on some systems"):
        unpacked(path)


@pytest.mark.parametrize("name", ["a/./b", "a//b", "a\x07b", "\u202etxt", "a./b", "a ", "a\nb"])
def test_names_that_not_every_system_has(name: str, tmp_path: Path) -> None:
    zipped({name: b"x"}, tmp_path / "b.zip")
    with pytest.raises(BadInput, match="no name that every system can have"):
        unpacked(tmp_path / "b.zip")


@pytest.mark.parametrize(
    "files",
    [{f"{'d/' * 8}{n}": b"" for n in range(9_990)}, {f"{n}": b"" for n in range(501)}],
    ids=["deep folders", "many files"],
)
def test_too_many_files(files: dict[str, bytes], tmp_path: Path) -> None:
    zipped(files, tmp_path / "b.zip")
    with pytest.raises(BadInput, match="more than a bundle may hold"):
        unpacked(tmp_path / "b.zip")


@pytest.mark.parametrize("name", ["a/" * 10 + "b", "n" * 241, "\u20ac" * 81])
def test_names_too_deep_or_too_long(name: str, tmp_path: Path) -> None:
    zipped({**FILES, name: b""}, tmp_path / "b.zip")
    with pytest.raises(BadInput, match="too long or in too many folders"):
        unpacked(tmp_path / "b.zip")


def test_an_archive_that_says_it_unpacks_to_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zipped(FILES, tmp_path / "b.zip")
    monkeypatch.setattr(archive, "MOST_BYTES", 100)
    with pytest.raises(BadInput, match="unpacks to more"):
        unpacked(tmp_path / "b.zip")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFDIR])
def test_entries_that_are_no_files(kind: int, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as made:
        entry = zipfile.ZipInfo("link")
        entry.external_attr = (kind | 0o777) << 16
        made.writestr(entry, "/etc/passwd")
    with pytest.raises(BadInput, match=r"'link' is (a link|no regular file)"):
        unpacked(tmp_path / "b.zip")


def hidden_between(data: bytes) -> bytes:
    """Bytes between the last entry and the directory, whose place is mended."""
    _, start = struct.unpack("<2L", data[-10:-2])
    return data[:start] + b"hidden" + data[start:-6] + struct.pack("<LH", start + 6, 0)


def other_local_name(data: bytes) -> bytes:
    return data.replace(b"labels.txt", b"Labels.txt", 1)


def other_central_name(data: bytes) -> bytes:
    at = data.rindex(b"labels.txt")
    return data[:at] + b"Labels.txt" + data[at + 10 :]


def other_local_size(data: bytes) -> bytes:
    return data[:22] + b"\1" + data[23:]


def comment(data: bytes) -> bytes:
    return data[:-2] + struct.pack("<H", 4) + b"note"


def shared_bytes(data: bytes) -> bytes:
    """The second entry's directory record points at the first one's file."""
    _, start = struct.unpack("<2L", data[-10:-2])
    at = data.index(b"PK\1\2", start + 4) + 42
    return data[:at] + b"\0\0\0\0" + data[at + 4 :]


def encrypted(data: bytes) -> bytes:
    _, start = struct.unpack("<2L", data[-10:-2])
    return data[:6] + b"\1" + data[7 : start + 8] + b"\1" + data[start + 9 :]


@pytest.mark.parametrize(
    "change",
    [hidden_between, other_local_name, other_central_name, other_local_size, comment, shared_bytes,
     encrypted, lambda data: b"#!/bin/sh\n" + data, lambda data: data + b"more",
     lambda data: data + data, lambda data: data[:-1], lambda data: b""],
)  # fmt: skip
def test_archives_that_two_programs_read_differently(
    change: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    path = tmp_path / "b.zip"
    path.write_bytes(change(zipped(FILES)))
    with pytest.raises(BadInput, match="get the bundle anew"):
        unpacked(path)


def test_data_behind_what_is_unpacked(tmp_path: Path) -> None:
    """The stream ends before the entry does: a program that reads on finds something else."""
    packed = zlib.compressobj(wbits=-15)
    body = packed.compress(b"one") + packed.flush() + b"hidden"
    name, crc = b"a", zlib.crc32(b"one")
    told = (20, 0, 8, 0, 33, crc, len(body), 3, len(name))
    local = struct.pack("<4s5H3L2H", b"PK\3\4", *told, 0) + name + body
    central = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, *told, 0, 0, 0, 0, 0, 0) + name
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(central), len(local), 0)
    path = tmp_path / "b.zip"
    path.write_bytes(local + central + end)
    with zipfile.ZipFile(path) as there:
        assert there.read("a") == b"one"
    with pytest.raises(BadInput, match="a is damaged"):
        unpacked(path)


def test_extra_fields_can_rename_an_entry(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as made:
        entry = zipfile.ZipInfo("a.txt")
        entry.extra = struct.pack("<HHBL", 0x7075, 10, 1, zlib.crc32(b"a.txt")) + b"b.txt"
        made.writestr(entry, b"x")
    with pytest.raises(BadInput, match="more than a name and deflated bytes"):
        unpacked(tmp_path / "b.zip")


@pytest.mark.parametrize("kind", ["fifo", "device", "folder", "socket"])
def test_paths_that_are_no_regular_files(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "b.zip"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path = Path("/dev/zero")
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
    else:
        path.mkdir()
    with pytest.raises(BadInput, match=r"not a file|no manifest|can't be read"):
        checking.check(path)


FOLDERS = {"link to a file": "'x' is a link", "link to a folder": "'x' is a link",
           "fifo": "'labels.txt' is no regular file", "deep": "than a bundle may hold",
           "many": "than a bundle may hold"}  # fmt: skip


@pytest.mark.parametrize("kind", FOLDERS)
def test_folders_with_more_than_files(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "b"
    folder.mkdir()
    (folder / "manifest.json").write_text("{}")
    if kind == "fifo":
        os.mkfifo(folder / "labels.txt")
    elif kind == "deep":
        (folder / "/".join("d" * 40)).mkdir(parents=True)
    elif kind == "many":
        for n in range(501):
            (folder / f"{n}").touch()
    else:
        (folder / "x").symlink_to("/etc/passwd" if kind == "link to a file" else "/etc")
    with pytest.raises(BadInput, match=FOLDERS[kind]):
        checking.check(folder)


@settings(max_examples=300, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(at=st.integers(0, 10_000), bits=st.integers(1, 255), cut=st.integers(0, 40))
def test_a_changed_archive_is_refused_or_the_same(
    at: int, bits: int, cut: int, tmp_path: Path
) -> None:
    data = bytearray(zipped(FILES))
    data[at % len(data)] ^= bits
    path = tmp_path / "b.zip"
    path.write_bytes(bytes(data[: len(data) - cut] if cut < 3 else data))
    found = FILES
    with contextlib.suppress(BadInput):
        found = unpacked(path)
    assert found == FILES, "only what isn't contents may change: dates, attributes"


def test_what_is_written_is_read(tmp_path: Path) -> None:
    for name, data in FILES.items():
        (tmp_path / "b" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "b" / name).write_bytes(data)
    archive.write(tmp_path / "b", tmp_path / "b.zip")
    assert unpacked(tmp_path / "b.zip") == unpacked(tmp_path / "b") == FILES
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b", "b.zip"]

"""Are an Android package's libraries laid out for memory pages of 16 KiB?"""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import pytest
from in_process import edgeres

from edgeres.bundle import page_size
from edgeres.errors import BadInput


def library(*alignments: int) -> bytes:
    """An ELF file of segments that are loaded, and a note that isn't."""
    head = b"\x7fELF\x02\x01".ljust(32, b"\0") + struct.pack("<Q", 64)
    head = head.ljust(54, b"\0") + struct.pack("<2H", 56, len(alignments) + 1)
    rows = [struct.pack("<2L6Q", 1, 5, 0, 0, 0, 0, 0, a) for a in alignments]
    return head.ljust(64, b"\0") + b"".join(rows) + struct.pack("<2L6Q", 4, 4, 0, 0, 0, 0, 0, 4)


def package(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def test_a_library_for_small_pages_is_named(tmp_path: Path) -> None:
    good, bad = library(16384, 65536), library(16384, 4096)
    path = package(tmp_path / "a.aar", {
        "classes.jar": b"x", "jni/arm64-v8a/libgood.so": good, "jni/x86_64/libbad.so": bad,
        "jni/armeabi-v7a/lib32.so": library(4096),  # such devices have pages of 4 KiB
    })  # fmt: skip
    found = {one.name: one for one in page_size.check(path)}
    assert set(found) == {"jni/arm64-v8a/libgood.so", "jni/x86_64/libbad.so"}
    assert not found["jni/arm64-v8a/libgood.so"].problem
    assert found["jni/x86_64/libbad.so"].alignment == 4096
    done = edgeres("bundle", "--check-aar", path, cwd=tmp_path)
    assert done.returncode == 1 and "DOESN'T LOAD" in done.stdout
    assert "libbad.so: its segments are aligned to 4,096 bytes" in done.stdout
    package(path, {"jni/arm64-v8a/libgood.so": good})
    done = edgeres("bundle", "--check-aar", path, cwd=tmp_path)
    assert done.returncode == 0 and "loads with memory pages of 16 KiB" in done.stdout


def test_a_real_library_is_read() -> None:
    """The one that this process runs on: of this system's own linker."""
    import importlib.util

    spec = importlib.util.find_spec("ai_edge_litert")
    assert spec is not None and spec.origin is not None
    content = Path(spec.origin).with_name("libLiteRt.so").read_bytes()
    assert {*page_size._segments(content, "x")} <= {1 << n for n in range(12, 22)}


def test_an_uncompressed_library_begins_at_a_page(tmp_path: Path) -> None:
    name = "lib/arm64-v8a/liba.so"
    path = package(tmp_path / "a.apk", {name: library(16384)}, zipfile.ZIP_STORED)
    (one,) = page_size.check(path)
    assert "zipalign" in one.problem
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        entry = zipfile.ZipInfo(name)
        entry.extra = struct.pack("<2H", 0xD935, page_size.PAGE - 30 - len(name) - 4).ljust(
            page_size.PAGE - 30 - len(name), b"\0")  # fmt: skip
        archive.writestr(entry, library(16384))
    (one,) = page_size.check(path)
    assert not one.problem


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"no ELF", "is no 64-bit ELF library"), (library(16384)[:100], "program headers"),
     (library(16384).replace(b"\x02\x01", b"\x01\x01", 1), "is no 64-bit ELF library")],
)  # fmt: skip
def test_what_is_no_library_is_refused(content: bytes, says: str, tmp_path: Path) -> None:
    path = package(tmp_path / "a.aar", {"jni/arm64-v8a/x\x1b[2J.so": content})
    with pytest.raises(BadInput, match=says) as refused:
        page_size.check(path)
    assert "\x1b" not in str(refused.value)


def test_a_bundle_of_a_shop_has_libraries_in_each_of_its_modules(tmp_path: Path) -> None:
    names = ("base/lib/arm64-v8a/a.so", "camera/lib/x86_64/b.so")
    path = package(tmp_path / "a.aab", dict.fromkeys(names, library(4096)))
    assert [one.name for one in page_size.check(path) if one.problem] == [*names]


def test_what_it_would_pass_over_is_refused(tmp_path: Path) -> None:
    package(tmp_path / "a.aar", {"jni/arm64-v8a/a.so": library(16384)})
    for more in (("a-run",), ("--out", "b.zip"), ("--key", "key.pem")):
        done = edgeres("bundle", *more, "--check-aar", "a.aar", cwd=tmp_path)
        assert done.returncode == 2 and "makes no bundle" in done.stderr, done.stderr


def test_what_is_no_package_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.aar").write_bytes(b"PK\3\4 and more")
    package(tmp_path / "b.aar", {"classes.jar": b"x"})
    whole = package(tmp_path / "c.aar", {"jni/arm64-v8a/a.so": library(16384) * 9}).read_bytes()
    (tmp_path / "c.aar").write_bytes(whole.replace(whole[60:80], b"\xff" * 20, 1))
    for name in "abc":
        done = edgeres("bundle", "--check-aar", f"{name}.aar", cwd=tmp_path)
        assert done.returncode == 2 and done.stderr.startswith(f"edgeres: {name}.aar"), done.stderr
    assert edgeres("bundle", "--check-aar", "none.aar", cwd=tmp_path).returncode == 2

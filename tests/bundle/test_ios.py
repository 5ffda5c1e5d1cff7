"""The iOS sample: its C++ gives the contract's bytes, its Swift is Swift by the grammar."""

from __future__ import annotations

import ctypes
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from beds.pictures import cases
from PIL import Image, ImageOps

from edgeres import bundle

SAMPLE = Path(bundle.__file__).parent / "samples" / "ios"
COMPILER = shutil.which("g++") or shutil.which("c++")
compiler = pytest.mark.skipif(COMPILER is None, reason="no `g++` on this system's PATH")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The package's C++ target, laid out as the bundle has it."""
    folder = tmp_path_factory.mktemp("ios") / "sample"
    for name, path in bundle.sample("ios").items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / name)
    source, made = folder / "Sources" / "Preprocess", folder / "preprocess.so"
    assert COMPILER is not None
    subprocess.run(
        [COMPILER, "-std=c++17", "-O2", "-shared", "-fPIC", "-Wall", "-Wextra", "-Wpedantic",
         "-Werror", "-ffp-contract=off", f"-I{source / 'include'}", source / "EdgeresPreprocess.cc",
         "-o", made], check=True,
    )  # fmt: skip
    return ctypes.CDLL(str(made))


@compiler
def test_it_does_what_the_contract_says(library: ctypes.CDLL) -> None:
    count = 0
    for image, said, x in cases():
        if x.dtype != np.float32:
            continue  # a Core ML file takes real numbers
        assert np.array_equal(_values(library, image, said)[1], x.ravel()), said
        count += 1
    assert count > 30
    assert _values(library, image, {**said, "size_px": 9, "resize": None})[0] == 1
    rule = {"short_side_px": 16, "crop": "none", "interpolation": "other"}
    assert _values(library, image.resize((20, 30)), {**said, "resize": rule})[0] == 2


def _values(library: ctypes.CDLL, image: Image.Image, said: dict) -> tuple[int, np.ndarray]:
    rule = said.get("resize") or {"short_side_px": 0, "crop": "none", "interpolation": "bilinear"}
    mean, std = np.float32(said["mean"]), np.float32(said["std"])
    found = np.zeros(3 * said["size_px"] ** 2, np.float32)
    floats = ctypes.POINTER(ctypes.c_float)
    status = library.edgeres_prepared(
        np.asarray(image).tobytes(), image.width, image.height, said["size_px"],
        rule["short_side_px"], rule["crop"].encode(), rule["interpolation"].encode(),
        mean.ctypes.data_as(floats), len(mean), std.ctypes.data_as(floats), len(std),
        int(said["layout"] == "NCHW"), found.ctypes.data_as(floats),
    )  # fmt: skip
    return status, found


@compiler
def test_a_picture_is_turned_as_pillow_does(library: ctypes.CDLL) -> None:
    rgbx = np.random.default_rng(0).integers(0, 256, (5, 7, 4), np.uint8)
    for turn in range(1, 9):
        picture = Image.fromarray(rgbx[..., :3])
        picture.getexif()[0x0112] = turn
        found = ctypes.create_string_buffer(5 * 7 * 3)
        library.edgeres_upright(rgbx.tobytes(), 7, 5, turn, found)
        assert found.raw == ImageOps.exif_transpose(picture).tobytes(), turn


def test_its_swift_is_swift_by_the_grammar() -> None:
    """No compiler: a syntax tree without a node that doesn't fit or is missing."""
    tree_sitter = pytest.importorskip("tree_sitter")
    grammar = tree_sitter.Language(pytest.importorskip("tree_sitter_swift").language())
    sources = sorted(SAMPLE.rglob("*.swift"))
    assert len(sources) == 4
    for path in sources:
        text = path.read_bytes()
        assert not tree_sitter.Parser(grammar).parse(text).root_node.has_error, path.name
        broken = text.replace(b")", b"", 1)
        assert tree_sitter.Parser(grammar).parse(broken).root_node.has_error, path.name


def test_swift_and_c_agree_on_what_is_called() -> None:
    """Each C function that the Swift calls is declared, with as many arguments."""
    header = (SAMPLE / "Sources/Preprocess/include/EdgeresPreprocess.h").read_text()
    swift = (SAMPLE / "Sources/EdgeresSample/Classifier.swift").read_text()
    for name in ("edgeres_upright", "edgeres_prepared"):
        declared, called = (_arguments(text, name) for text in (header, swift))
        assert declared == called > 4, name


def _arguments(text: str, name: str) -> int:
    """How many arguments a function has where its name stands first with a bracket behind it."""
    depth, count = 0, 1
    for character in text[text.index(f"{name}(") + len(name) :]:
        depth += {"(": 1, ")": -1}.get(character, 0)
        count += character == "," and depth == 1
        if depth == 0:
            return count
    raise AssertionError(name)


def test_the_package_names_folders_that_are_there() -> None:
    manifest = (SAMPLE / "Package.swift").read_text()
    for name in ("Preprocess", "EdgeresSample"):
        assert f'.target(name: "{name}"' in manifest
        assert list((SAMPLE / "Sources" / name).iterdir()), name
    assert (SAMPLE / "Tests" / "EdgeresSampleTests").is_dir()
    assert json.dumps("EdgeresSampleTests") in manifest

"""The C++ sample for Linux, compiled and run: LiteRT's codes, and the contract's own bytes."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from beds.bundles import make
from beds.pictures import MEANS, cases, picture

from edgeres import bundle, contract
from edgeres.artifact import Artifact
from edgeres.disk import file_sha256
from edgeres.types import Preprocess, Resize, tensor_spec

SAMPLE = Path(bundle.__file__).parent / "samples" / "linux"
COMPILER = shutil.which("g++") or shutil.which("c++")
pytestmark = pytest.mark.skipif(COMPILER is None, reason="no `g++` on this system's PATH")
Say = Callable[..., tuple[int, str]]


def compiled(source: Path, program: Path) -> Path:
    """A program, with the command of the source's own first lines."""
    (command,) = (
        line for line in (SAMPLE / "classify.cc").read_text().splitlines() if "g++" in line
    )
    _, *flags = command.removeprefix("//").split()
    flags = [str(source) if flag.endswith(".cc") else flag for flag in flags]
    flags[flags.index("-o") + 1] = str(program)
    assert COMPILER is not None
    strict = ("-Wall", "-Wextra", "-Wpedantic", "-Werror", f"-I{SAMPLE}")
    subprocess.run([COMPILER, *strict, *flags], check=True)
    return program


def reseal(folder: Path) -> None:
    """Give a changed bundle a manifest that fits it."""
    document = json.loads((folder / "manifest.json").read_text())
    document["sha256"] = {name: file_sha256(folder / name) for name in document["sha256"]}
    (folder / "manifest.json").write_text(json.dumps(document))


def library() -> Path:
    """libLiteRt.so of the package that is installed here."""
    spec = importlib.util.find_spec("ai_edge_litert")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).with_name("libLiteRt.so")


@pytest.fixture(scope="module")
def folder(
    exported_run: dict[str, Artifact],
    golden_pictures: np.ndarray,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """An unpacked bundle whose classes have ugly names."""
    folder = tmp_path_factory.mktemp("cpp")
    path = make(exported_run, "linux", golden_pictures, folder / "b.zip")
    shutil.unpack_archive(path, folder / "b")
    spec = tensor_spec(exported_run["export:tflite-int8"].facts["exported"]["input"])
    labels = [f"klasse ß{n}\x1b[2J" for n in range(10)]
    rule = Resize(16, 20, "center", "bilinear")
    said = contract.whole(Preprocess(16, *MEANS["int8"]), rule, spec, labels)
    (folder / "b" / "preprocess.json").write_text(json.dumps(said))
    (folder / "b" / "labels.txt").write_text("".join(f"{label}\n" for label in labels))
    reseal(folder / "b")
    return folder / "b"


@pytest.fixture(scope="module")
def say(folder: Path) -> Say:
    """Runs the bundle's program; its exit code and sentences."""
    program = compiled(folder / "sample" / "classify.cc", folder.parent / "classify")

    def run(*pictures: Path, of: Path = folder, by: Path | None = None) -> tuple[int, str]:
        done = subprocess.run([program, by or library(), of, *pictures], check=False,
                              capture_output=True, text=True)  # fmt: skip
        return done.returncode, done.stdout

    return run


def test_it_prepares_a_picture_as_the_contract_says(tmp_path: Path) -> None:
    asked, expected = [], []
    for number, (image, said, x) in enumerate(cases()):
        image.save(tmp_path / f"{number}.ppm")
        (tmp_path / f"{number}.json").write_text(json.dumps(said))
        asked.append(said.get("resize"))
        expected.append(x.tobytes())
    (tmp_path / "test.cc").write_text("""
        #define main unused
        #include "classify.cc"
        #undef main
        int main(int, char** argv) {
          (void)unused;
          std::ofstream out("out.bin", std::ios::binary);
          for (int i = 0; i < std::atoi(argv[1]); i++) {
            const std::string name = std::to_string(i);
            const Contract said = contract(Document(contents(name + ".json")));
            out << encoded(prepared(ppm(name + ".ppm"), said), said.dtype);
          }
        }""")
    program = compiled(tmp_path / "test.cc", tmp_path / "test")
    subprocess.run([program, str(len(expected))], cwd=tmp_path, check=True)
    found, at = (tmp_path / "out.bin").read_bytes(), 0
    for rule, x in zip(asked, expected, strict=True):
        assert found[at : at + len(x)] == x, rule
        at += len(x)
    assert at == len(found) and len(expected) > 90


def test_it_gives_the_golden_codes(say: Say, folder: Path, tmp_path: Path) -> None:
    assert say() == (0, "worst difference 0 codes, allowed 3; same classes: yes\npassed\n")
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    outputs = broken / "golden" / "outputs.bin"
    whole = outputs.read_bytes()
    outputs.write_bytes(bytes(b ^ 0x40 for b in whole))
    assert say(of=broken) == (1, "CHANGED: golden/outputs.bin; unpack the bundle anew\n")
    reseal(broken)
    status, text = say(of=broken)
    assert status == 1 and text.endswith("FAILED\n") and "allowed 3; same classes: NO" in text
    outputs.write_bytes(whole[:-1])
    reseal(broken)
    assert say(of=broken) == (2, "CAN'T TELL: golden/ has other sizes than golden.json says\n")
    (broken / "golden" / "golden.json").write_text('{"model": [')
    reseal(broken)
    assert say(of=broken) == (2, "CAN'T TELL: a document is no JSON\n")
    (broken / "model" / "m-int8.tflite").unlink()
    assert say(of=broken)[1] == "MISSING: model/m-int8.tflite; unpack the bundle anew\n"
    status, text = say(by=tmp_path / "nowhere.so")
    assert status == 2 and "nowhere.so" in text
    assert "LiteRT 2.1.6 or later" in say(by=Path("libc.so.6"))[1]
    assert say(of=tmp_path)[1] == f"CAN'T TELL: {tmp_path}/manifest.json can't be read\n"


def test_it_names_a_picture_as_the_python_sample_does(
    say: Say, folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "p.ppm"
    picture(60, 40).save(path)
    status, text = say(path, path)
    lines = text.splitlines()
    assert status == 0 and len(lines) == 12 and "\x1b" not in text and "klasse ß" in lines[1]
    told = subprocess.run([sys.executable, "sample/classify.py", path], check=True, text=True,
                          capture_output=True, cwd=folder).stdout  # fmt: skip
    assert [line.split() for line in told.splitlines()] == [line.split() for line in lines[:6]]
    (tmp_path / "no.ppm").write_bytes(b"P6 60 40 255\n" + bytes(10))
    assert say(tmp_path / "no.ppm") == (2, f"CAN'T TELL: {tmp_path}/no.ppm ends too early\n")
    (tmp_path / "no.ppm").write_bytes(b"P6 99999 99999 255\n")
    assert "is no PPM" in say(tmp_path / "no.ppm")[1]

"""A bundle for TFLite Micro: its C files hold the model's very bytes, operators and codes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
from beds.bundles import forged, make, zipped

from edgeres import bundle, runtimes
from edgeres.artifact import Artifact
from edgeres.bundle import checking, microcontroller
from edgeres.errors import BadInput

COMPILER = shutil.which("g++")
MICRO = os.environ.get("EDGERES_TFLM")  # includes, and libtflm.a, of TFLite Micro's sources
compiles = pytest.mark.skipif(COMPILER is None, reason="no `g++` on this system's PATH")
Run = dict[str, Artifact]


@pytest.fixture(scope="module")
def archive(
    exported_run: Run, golden_pictures: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("micro")
    return make(exported_run, "microcontroller", golden_pictures, folder / "b.zip")


@pytest.fixture
def folder(archive: Path, tmp_path: Path) -> Path:
    shutil.unpack_archive(archive, tmp_path / "b")
    return tmp_path / "b"


def test_it_passes_and_its_c_files_are_the_models(archive: Path, tmp_path: Path) -> None:
    found = checking.check(archive)
    assert (found["passed"], found["findings"], found["for"]) == (True, [], "microcontroller")
    with zipfile.ZipFile(archive) as opened:
        files = {name: opened.read(name) for name in opened.namelist()}
    for name in ("sample/model_data.cc", "sample/model_ops.h"):
        text = files[name]
        path = tmp_path / "forged.zip"
        zipped(forged(files, name, text.replace(b"}", b" }")), path)
        assert checking.check(path)["findings"] == [
            f"{name} isn't what edgeres writes for the model"
        ]
        zipped(forged(files, name, None), path)
        assert checking.check(path)["findings"] == [
            f"{name} isn't what edgeres writes for the model"
        ]


def test_the_program_itself_is_checked(archive: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(archive) as opened:
        files = {name: opened.read(name) for name in opened.namelist()}
    name = "sample/main.cc"
    zipped(forged(files, name, files[name] + b"//"), tmp_path / "forged.zip")
    (finding,) = checking.check(tmp_path / "forged.zip")["findings"]
    assert finding == f"{name} isn't what edgeres writes for the model"


def test_tflite_micros_answers_have_to_be_the_certified_ones() -> None:
    ours = np.array([[3, -7], [0, 100]], np.int8)
    microcontroller._require_like(Path("m.tflite"), ours + np.int8(2), ours)
    with pytest.raises(BadInput, match=r"up to 100 codes from the certified ones"):
        microcontroller._require_like(Path("m.tflite"), ours[:, ::-1] * np.int8(1), ours)


@compiles
def test_the_arrays_compile_to_the_files_bytes(folder: Path) -> None:
    (folder / "test.cc").write_text("""
        #include <cstdint>
        #include <cstdio>
        #include "sample/golden_data.h"
        #include "sample/model_data.h"
        #include "sample/arena.h"
        int main() {
          if (reinterpret_cast<uintptr_t>(kModel) % 16 || kArenaBytes % 1024) return 3;
          std::fwrite(kModel, 1, kModelBytes, stdout);
          std::fwrite(kGoldenInputs, 1, kGoldenSamples * kGoldenInputBytes, stdout);
          for (int i = 0; i < kGoldenSamples * kGoldenClasses; i++) std::putchar(kGoldenOutputs[i]);
        }""")
    assert COMPILER is not None
    subprocess.run([COMPILER, "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-std=c++17", "test.cc",
                    "sample/model_data.cc", "sample/golden_data.cc", "-o", "test"],
                   cwd=folder, check=True)  # fmt: skip
    said = subprocess.run([folder / "test"], check=True, capture_output=True).stdout
    model, inputs = (folder / "model" / "m-int8.tflite", folder / "golden" / "inputs.bin")
    outputs = len(said) - model.stat().st_size - inputs.stat().st_size
    assert said[:-outputs] == model.read_bytes() + inputs.read_bytes()
    expected = (folder / "golden" / "outputs.bin").read_bytes()
    off = np.frombuffer(said[-outputs:], np.int8).astype(int) - np.frombuffer(expected, np.int8)
    assert len(off) == 80 and np.abs(off).max() <= 16


def test_its_arena_and_codes_are_tflite_micros(folder: Path) -> None:
    if why := runtimes.missing("tflm"):
        pytest.skip(f"TFLite Micro: {why}")
    arena = (folder / "sample" / "arena.h").read_text()
    used, version = re.findall(r"(\d+) bytes were used by (tflite-micro \S+) on x86-64", arena)[0]
    (kept,) = re.findall(r"kArenaBytes = (\d+);", arena)
    assert 1000 < int(used) < int(kept) <= int(used) * 1.25 + 1024
    golden = (folder / "sample" / "golden_data.cc").read_text()
    assert f"made by: TFLite Micro's reference kernels ({version})" in golden
    assert "kGoldenTolerance = 3;" in golden


def test_without_the_runtime_it_says_what_it_guessed(
    exported_run: Run, golden_pictures: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGERES_RUNTIMES", str(tmp_path / "none"))
    path = tmp_path / "b.zip"
    made = bundle.make("a-run", exported_run, "microcontroller", golden_pictures, path)
    (note,) = made["notes"]
    assert "arena's size isn't measured" in note and "edgeres runtimes install tflm" in note
    shutil.unpack_archive(path, tmp_path / "b")
    assert "NOT MEASURED" in (tmp_path / "b" / "sample" / "arena.h").read_text()
    golden = (tmp_path / "b" / "sample" / "golden_data.cc").read_text()
    assert "made by: LiteRT, not TFLite Micro" in golden and "kGoldenTolerance = 16;" in golden
    assert checking.check(path)["passed"]


def test_a_model_larger_than_any_flash_is_refused(
    exported_run: Run, golden_pictures: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGERES_RUNTIMES", str(tmp_path / "none"))
    monkeypatch.setattr(microcontroller, "_MOST_MODEL", 1000)
    with pytest.raises(BadInput, match="model for a microcontroller"):
        make(exported_run, "microcontroller", golden_pictures, tmp_path / "b.zip")


def test_operators_are_tflite_micros_methods() -> None:
    kinds = ["CONV_2D", "DEPTHWISE_CONV_2D", "AVERAGE_POOL_2D", "PADV2", "HARD_SWISH", "RELU6",
             "FULLY_CONNECTED", "BATCH_MATMUL", "SPLIT_V", "L2_NORMALIZATION"]  # fmt: skip
    text = microcontroller._ops(kinds)
    assert "MicroMutableOpResolver<10>" in text
    calls = set(re.findall(r"ops\.Add(\w+)\(\)", text))
    assert calls == {"Conv2D", "DepthwiseConv2D", "AveragePool2D", "PadV2", "HardSwish", "Relu6",
                     "FullyConnected", "BatchMatMul", "SplitV", "L2Normalization"}  # fmt: skip
    with pytest.raises(BadInput, match="TFLite Micro has no operator GELU"):
        microcontroller._ops(["CONV_2D", "GELU"])


@compiles
@pytest.mark.skipif(MICRO is None, reason="EDGERES_TFLM names no folder of TFLite Micro")
def test_its_program_gives_the_golden_codes(folder: Path) -> None:
    place = Path(str(MICRO))
    sources = sorted((folder / "sample").glob("*.cc"))
    assert COMPILER is not None
    flags = ("-std=c++17", "-O1", "-fno-exceptions", "-fno-rtti", "-DTF_LITE_STATIC_MEMORY",
             "-Wall", "-Wextra", "-Werror", f"-I{folder}/sample",
             *(f"-isystem{p}" for p in sorted((place / "include").iterdir())))  # fmt: skip

    def said() -> tuple[int, str]:
        program = folder / "program"
        subprocess.run([COMPILER, *flags, *sources, place / "libtflm.a", "-o", program], check=True)
        done = subprocess.run([program], check=False, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    status, text = said()
    own = runtimes.missing("tflm") is None  # else the codes are LiteRT's
    worst = "worst difference 0 codes, allowed 3; same classes: yes" if own else "passed"
    assert status == 0 and worst in text, text
    golden = folder / "sample" / "golden_data.cc"
    golden.write_text(re.sub(r"(kGoldenOutputs\[\] = {)", r"\1 127, 126,", golden.read_text()))
    status, text = said()
    assert status == 1 and text.rstrip().endswith("FAILED"), text

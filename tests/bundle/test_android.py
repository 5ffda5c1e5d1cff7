"""The Android sample: its Kotlin compiles, and prepares pictures as the contract says."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from beds.pictures import cases
from PIL import Image, ImageOps

from edgeres import bundle

SAMPLE = Path(bundle.__file__).parent / "samples" / "android" / "src"
STAND_INS = Path(__file__).parents[1] / "fixtures" / "android"
JSON = Path("/usr/share/java/com.android.json.jar")  # Debian's libandroid-json-java
COMPILER = Path(os.environ.get("EDGERES_KOTLIN", "/nowhere"))  # npm's kotlin-compiler, unpacked
java = pytest.mark.skipif(shutil.which("javac") is None, reason="no `javac` on this system's PATH")
kotlin = pytest.mark.skipif(
    not (COMPILER / "lib" / "kotlin-compiler.jar").is_file() or not JSON.is_file(),
    reason="EDGERES_KOTLIN names no kotlin-compiler of npm, or there is no libandroid-json-java",
)
MAIN = """
import edgeres.sample.Classifier
import java.io.File

fun main() {
    val labels = ('a'..'j').joinToString("\\n")
    val files = mutableMapOf("labels.txt" to labels.toByteArray(),
        "golden/golden.json" to "{\\"model\\": \\"model/m.tflite\\"}".toByteArray(),
        "model/m.tflite" to ByteArray(5))
    fun unhex(text: String) = text.chunked(2).map { it.toInt(16).toByte() }.toByteArray()
    val out = StringBuilder()
    for (line in File("cases.txt").readLines()) {
        val (rgb, width, height, said) = line.split(" ", limit = 4)
        files["preprocess.json"] = said.toByteArray()
        try {
            Classifier(files::getValue).use {
                val x = it.input(unhex(rgb), width.toInt(), height.toInt())
                val bytes = ByteArray(x.remaining()).also { all -> x.get(all) }
                out.append(bytes.joinToString("") { byte -> "%02x".format(byte) })
                val shares = it.shares(unhex(rgb), width.toInt(), height.toInt())
                out.append(" ").append(shares.joinToString(",")).append("\\n")
            }
        } catch (error: IllegalArgumentException) {
            out.append(error.message).append("\\n")
        }
    }
    File("out.txt").writeText(out.toString())
}
"""


def compiled(folder: Path, *sources: Path) -> Path:
    """The classes of Java files."""
    names = [
        path
        for source in sources
        for path in ([source] if source.is_file() else sorted(source.rglob("*.java")))
    ]
    subprocess.run(["javac", "-nowarn", "--release", "11", "-d", folder, *names], check=True)
    return folder


def kotlinc(*arguments: str | Path) -> None:
    command = [
        *("java", "-cp", COMPILER / "lib" / "kotlin-compiler.jar"),
        *("org.jetbrains.kotlin.cli.jvm.K2JVMCompiler", "-no-reflect", "-jvm-target", "11"),
    ]
    done = subprocess.run([*command, *arguments], check=False, capture_output=True, text=True)
    assert done.returncode == 0 and "warning:" not in done.stderr, done.stderr


@java
@kotlin
def test_the_app_compiles_and_gives_the_contracts_bytes(tmp_path: Path) -> None:
    source = SAMPLE / "main" / "java"
    classes = compiled(tmp_path / "java", STAND_INS, source)
    (tmp_path / "Main.kt").write_text(MAIN)
    built = tmp_path / "kotlin"
    kotlinc("-cp", f"{classes}:{JSON}", "-d", built, *SAMPLE.rglob("*.kt"), tmp_path / "Main.kt")
    assert (built / "edgeres" / "sample" / "MainActivity.class").is_file()
    assert (built / "edgeres" / "sample" / "GoldenTest.class").is_file()
    found = functools.partial(_answers, tmp_path, f"{built}:{classes}:{JSON}:"
                              f"{COMPILER / 'lib' / 'kotlin-stdlib.jar'}")  # fmt: skip
    wanted = list(cases())
    lines = found([(image, said) for image, said, _ in wanted])
    assert len(lines) == len(wanted) > 90
    for line, (_, said, x) in zip(lines, wanted, strict=True):
        codes, _, shares = line.partition(" ")
        given = np.frombuffer(bytes.fromhex(codes), x.dtype)
        assert np.array_equal(given, x.ravel()), said  # of real numbers, -0.0 is 0.0
        y = (np.frombuffer(bytes.fromhex(codes), np.int8)[:10].astype(float) - 3) * 0.25
        expected = np.exp(y - y.max()) / np.exp(y - y.max()).sum()
        assert np.allclose([float(s) for s in shares.split(",")], expected, atol=1e-6)
    image, said, _ = wanted[0]
    other = ({**said, "then": "scaled"}, {**said, "size_px": 9, "resize": None})
    refused, small = found([(image, one) for one in other])
    assert "second scaling" in refused and "comes to 9 x 9 px" in small


def _answers(folder: Path, path: str, asked: list[tuple[Image.Image, dict[str, Any]]]) -> list[str]:
    text = [f"{np.asarray(image).tobytes().hex()} {image.width} {image.height} {json.dumps(said)}"
            for image, said in asked]  # fmt: skip
    (folder / "cases.txt").write_text("\n".join(text))
    subprocess.run(["java", "-cp", path, "MainKt"], cwd=folder, check=True)
    return (folder / "out.txt").read_text().splitlines()


@java
def test_a_picture_is_turned_and_laid_over_white_as_pillow_does(tmp_path: Path) -> None:
    (tmp_path / "Main.java").write_text("""
        import edgeres.sample.Preprocess;
        import java.nio.file.*;
        import java.util.Arrays;
        class Main {
          public static void main(String[] args) throws Exception {
            byte[] rgba = Files.readAllBytes(Paths.get("rgba.bin"));
            int[] argb = new int[rgba.length / 4];
            for (int i = 0; i < argb.length; i++)
              argb[i] = (rgba[4 * i + 3] & 255) << 24 | (rgba[4 * i] & 255) << 16
                  | (rgba[4 * i + 1] & 255) << 8 | rgba[4 * i + 2] & 255;
            for (int turn = 1; turn <= 8; turn++) {
              byte[] rgb = new byte[argb.length * 3];
              for (int j = 0; j < 768; j++)
                Preprocess.place(Arrays.copyOfRange(argb, j * 256, j * 256 + 256), j, 256, 768,
                    turn, rgb);
              Files.write(Paths.get(turn + ".bin"), rgb);
            }
          }
        }""")
    values = np.arange(256, dtype=np.uint8)
    every = np.stack(np.broadcast_arrays(values[None], values[:, None]), -1)  # value, alpha
    rgba = np.zeros((768, 256, 4), np.uint8)  # each value of a channel with each alpha
    for channel in range(3):
        rgba[256 * channel : 256 * (channel + 1), :, [channel, 3]] = every
    (tmp_path / "rgba.bin").write_bytes(rgba.tobytes())
    classes = compiled(tmp_path, SAMPLE / "main/java/edgeres/sample/Preprocess.java",
                       tmp_path / "Main.java")  # fmt: skip
    subprocess.run(["java", "-cp", classes, "Main"], cwd=tmp_path, check=True)
    for turn in range(1, 9):
        picture = Image.fromarray(rgba)
        picture.getexif()[0x0112] = turn
        picture = ImageOps.exif_transpose(picture)
        white = Image.new("RGBA", picture.size, "white")
        seen = np.asarray(Image.alpha_composite(white, picture).convert("RGB"))
        assert (tmp_path / f"{turn}.bin").read_bytes() == seen.tobytes(), turn

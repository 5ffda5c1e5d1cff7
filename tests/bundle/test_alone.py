"""A bundle's own programs, run as somebody who has only the bundle runs them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest
from beds.bundles import make, mended
from beds.jetson_board import JetsonBoard

from edgeres.artifact import Artifact
from edgeres.bundle import checking

Run = dict[str, Artifact]
pytestmark = pytest.mark.usefixtures("own_config")


def unpacked(run: Run, kind: str, pictures: np.ndarray, folder: Path) -> Path:
    shutil.unpack_archive(make(run, kind, pictures, folder / "b.zip"), folder / "b")
    return folder / "b"


def execute(folder: Path, *argv: str, **environment: str) -> tuple[int, str]:
    """The exit status and what it printed; it must never be a traceback."""
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "TRTEXEC")}
    done = subprocess.run(argv, cwd=folder, env={**clean, **environment}, check=False,
                          capture_output=True, text=True)  # fmt: skip
    assert not done.stderr, done.stderr
    return done.returncode, done.stdout


def rewritten(folder: Path, name: str, data: bytes) -> None:
    """Another file in a bundle, and a manifest that fits it."""
    files = {p.relative_to(folder).as_posix(): p.read_bytes()
             for p in folder.rglob("*") if p.is_file()}  # fmt: skip
    changed = mended({**files, name: data}, manifest=files["manifest.json"])
    for path, content in changed.items():
        (folder / path).write_bytes(content)


def test_without_packages_it_says_which_it_needs(
    exported_run: Run, golden_pictures: np.ndarray, tmp_path: Path
) -> None:
    folder = unpacked(exported_run, "android", golden_pictures, tmp_path)
    status, said = execute(folder, sys.executable, "-I", "-S", "golden_test.py")
    assert status == 2 and said.startswith("CAN'T TEST: numpy is not installed here"), said
    assert "-m pip install numpy" in said
    bare = tmp_path / "venv"
    venv.create(bare, with_pip=False)
    assert execute(folder, str(bare / "bin" / "python"), "golden_test.py")[0] == 2
    site = next((bare / "lib").glob("python*/site-packages"))
    for package in Path(np.__file__).parents[1].glob("numpy*"):
        (site / package.name).symlink_to(package)
    status, said = execute(folder, str(bare / "bin" / "python"), "golden_test.py")
    assert status == 2
    assert said.startswith("CAN'T TEST: the model can't be loaded here: no runtime for .tflite")
    assert "-m pip install ai-edge-litert" in said
    assert checking.check(folder)["passed"]  # nothing was left in it


def test_an_old_python_is_told(
    exported_run: Run, golden_pictures: np.ndarray, tmp_path: Path
) -> None:
    folder = unpacked(exported_run, "android", golden_pictures, tmp_path)
    code = ("import sys, runpy; sys.version_info = (3, 7, 0);"
            "runpy.run_path('golden_test.py', run_name='__main__')")  # fmt: skip
    status, said = execute(folder, sys.executable, "-c", code)
    assert (status, said) == (2, "CAN'T TEST: this is Python 3.7; it needs 3.8\n")


@pytest.mark.parametrize(
    ("name", "data", "status", "says"),
    [
        ("golden/golden.json", None, 1, "MISSING: golden/golden.json; unpack the bundle anew"),
        ("labels.txt", b"x", 1, "CHANGED: labels.txt; unpack the bundle anew"),
        ("manifest.json", None, 2, "CAN'T TEST: manifest.json can't be read (No such file"),
        ("manifest.json", b"{", 2, "CAN'T TEST: manifest.json is no JSON; unpack"),
        ("manifest.json", b"[]", 2, "CAN'T TEST: manifest.json is no JSON object"),
        ("manifest.json", b"{}", 2, "CAN'T TEST: manifest.json names no files"),
        ("manifest.json", b'{"sha256": ["a"]}', 2, "CAN'T TEST: manifest.json names no files"),
        ("manifest.json", b'{"sha256": {"../b/labels.txt": 1}}', 1, "CHANGED: ../b/labels.txt"),
        ("manifest.json", b'{"sha256": {"a\\u0000b\\u001b[2J": 1}}', 1, "MISSING: a?b?[2J; "),
    ],
)
def test_what_is_missing_or_changed(
    name: str,
    data: bytes | None,
    status: int,
    says: str,
    exported_run: Run,
    golden_pictures: np.ndarray,
    tmp_path: Path,
) -> None:
    folder = unpacked(exported_run, "android", golden_pictures, tmp_path)
    (folder / name).unlink()
    if data is not None:
        (folder / name).write_bytes(data)
    found, said = execute(folder, sys.executable, "-I", "-S", "golden_test.py")
    assert found == status and said.startswith(says), said


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("golden/golden.json", b"{}", "(KeyError)"),
        ("golden/golden.json", b'{"model": 5}', "(AttributeError)"),
        ("golden/inputs.npy", b"no array", "(ValueError)"),
        ("model/m-int8.tflite", b"no model", "the model can't be loaded here"),
        ("runner.py", b"1 / 0", "the model can't be loaded here: division by zero"),
    ],
)
def test_a_forged_bundle_gets_a_sentence(
    name: str, data: bytes, says: str, exported_run: Run, golden_pictures: np.ndarray,
    tmp_path: Path,
) -> None:  # fmt: skip
    folder = unpacked(exported_run, "android", golden_pictures, tmp_path)
    rewritten(folder, name, data)
    status, said = execute(folder, sys.executable, "golden_test.py")
    assert status == 2 and said.startswith("CAN'T TEST: ") and says in said, said


def test_a_core_ml_package_is_not_for_this_script(
    exported_run: Run, golden_pictures: np.ndarray, tmp_path: Path
) -> None:
    folder = unpacked(exported_run, "android", golden_pictures, tmp_path)
    golden = json.loads((folder / "golden" / "golden.json").read_text())
    rewritten(folder, "model/m.mlpackage", b"")
    (folder / "model" / "m.mlpackage").unlink()
    (folder / "model" / "m.mlpackage").mkdir()
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["sha256"]["model/m.mlpackage"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    rewritten(folder, "golden/golden.json",
              json.dumps({**golden, "model": "model/m.mlpackage"}).encode())  # fmt: skip
    status, said = execute(folder, sys.executable, "golden_test.py")
    assert status == 2 and "runs on Apple's systems only" in said


@pytest.mark.parametrize("tensorrt", ["8.6.1", "10.3.0", "11.1.0"])
def test_on_a_jetson_one_script_builds_tests_and_times(
    tensorrt: str, exported_run: Run, golden_pictures: np.ndarray, jetson: JetsonBoard,
    tmp_path: Path,
) -> None:  # fmt: skip
    jetson.set(tensorrt=tensorrt)
    folder = unpacked(exported_run, "jetson", golden_pictures, tmp_path)
    status, said = execute(folder, sys.executable, "sample/jetson.py")
    assert status == 0, said
    assert "golden test: 8 of 8 classes the same" in said and ": passed" in said
    assert "latency, batch 1, copies included: median 1.295 ms" in said and "(n = " in said
    assert (tmp_path / "b.engine").exists()
    built = jetson.calls("trtexec")[1]
    assert ("--int8" in built, "--stronglyTyped" in built) == (
        tensorrt.startswith("8"), not tensorrt.startswith("8")
    )  # fmt: skip
    assert checking.check(folder)["passed"]  # nothing was left in it
    jetson.set(failed="")
    status, said = execute(folder, sys.executable, "sample/jetson.py")
    assert status == 2 and "trtexec failed; it last said: " in said and "OutOfMemory" in said


def test_a_jetson_without_trtexec_or_with_other_answers(
    exported_run: Run, golden_pictures: np.ndarray, jetson: JetsonBoard, tmp_path: Path
) -> None:
    folder = unpacked(exported_run, "jetson", golden_pictures, tmp_path)
    status, said = execute(folder, sys.executable, "sample/jetson.py", TRTEXEC="/nowhere")
    assert status == 2 and said.startswith("CAN'T TEST: /nowhere is no program; install")
    outputs = np.load(folder / "golden" / "outputs.npy")
    rewritten(folder, "golden/outputs.bin", np.ascontiguousarray(outputs[:, ::-1]).tobytes())
    status, said = execute(folder, sys.executable, "sample/jetson.py")
    assert status == 1 and ": FAILED" in said
    rewritten(folder, "golden/golden.json", b"{}")
    status, said = execute(folder, sys.executable, "sample/jetson.py")
    assert status == 2 and "(KeyError)" in said
    (folder / "labels.txt").write_text("x")
    status, said = execute(folder, sys.executable, "sample/jetson.py")
    assert status == 1 and said.startswith("CHANGED: labels.txt")

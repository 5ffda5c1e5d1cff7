"""A bundle is whole, the same each time, passes its test anywhere, and no byte of it can change."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import urllib.request
import zipfile
from pathlib import Path

import numpy as np
import pytest
from beds.bundles import artifact, make

from edgeres import bundle
from edgeres.artifact import Artifact
from edgeres.bundle import checking
from edgeres.commands import bundle as command
from edgeres.errors import BadInput, GateFailed
from edgeres.measurement import drift

pytestmark = pytest.mark.usefixtures("own_config")


@pytest.fixture(scope="module")
def run(exported_run: dict[str, Artifact]) -> dict[str, Artifact]:
    return exported_run


@pytest.fixture(scope="module")
def pictures(golden_pictures: np.ndarray) -> np.ndarray:
    return golden_pictures


@pytest.mark.parametrize("kind", ["android", "jetson", "web-service"])
def test_it_passes_here_and_alone(
    kind: str, run: dict, pictures: np.ndarray, tmp_path: Path
) -> None:
    path = make(run, kind, pictures, tmp_path / "b.zip")
    assert path.read_bytes() == make(run, kind, pictures, tmp_path / "again.zip").read_bytes()
    result = checking.check(path)
    assert (result["passed"], result["findings"], result["signature"]) == (True, [], "none")
    assert result["golden"]["samples"] == bundle.GOLDEN
    assert result["golden"]["worst"] == 0
    alone = tmp_path / "an empty place"
    shutil.unpack_archive(path, alone)
    assert list((alone / "sample").iterdir())
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "golden_test.py"], cwd=alone, env=clean, check=False,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("passed\n")
    sbom = json.loads((alone / "sbom.json").read_text())
    assert {c["name"] for c in sbom["components"]} >= {"torch", "numpy"}
    assert "## Accuracy" in (alone / "MODEL_CARD.md").read_text()
    assert not list(alone.rglob("__pycache__"))
    (alone / "numpy.py").write_text("raise SystemExit(0)")  # beside the test, not in the manifest
    done = subprocess.run([sys.executable, "golden_test.py"], cwd=alone, env=clean, check=False,
                          capture_output=True, text=True)  # fmt: skip
    assert done.stdout.endswith("passed\n")


def test_only_what_was_verified_is_bundled(run: dict, pictures: np.ndarray, tmp_path: Path) -> None:
    out = tmp_path / "b.zip"
    unverified = {k: v for k, v in run.items() if k != "verify"}
    with pytest.raises(
        GateFailed, match=r"never verified; edgeres run a-run/recipe\.lock\.yaml --set"
    ):
        make(unverified, "android", pictures, out)
    document = json.loads(run["verify"].file("verify.json").read_text())
    for number, change in enumerate((
        lambda row: row["gates"][0].update(measured=0.0),
        lambda row: row["file"].update(sha256="0" * 64),
        lambda row: row.update(target="tflite-fp32"),
        lambda row: row.update(gates=row["gates"][:1]),
    )):  # fmt: skip
        other = json.loads(json.dumps(document))
        change(other["files"][0])
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "verify.json").write_text(json.dumps(other))
        with pytest.raises(GateFailed, match=r"no bundle is made of m-int8\.tflite: "):
            make({**run, "verify": artifact("verify", folder, {})}, "android", pictures, out)
    with pytest.raises(BadInput, match="8 test images that aren't all the same"):
        make(run, "android", np.repeat(pictures[:1], 8, 0), out)
    with pytest.raises(BadInput, match="8 test images that aren't all the same"):
        make(run, "android", pictures[:7], out)
    facts = json.loads(json.dumps(run["export:tflite-int8"].facts))
    for name in ("../../m.tflite", "/tmp/m.tflite", "..", "a/b.tflite"):
        facts["exported"]["file"] = name
        other = artifact("export", out.parent, facts, {"targets": ["tflite-int8"]})
        with pytest.raises(BadInput, match="is no name of a file"):
            make({**run, "export:tflite-int8": other}, "android", pictures, out)
    with pytest.raises(BadInput, match="is a folder"):
        make(run, "android", pictures, tmp_path)
    broken = artifact("data", tmp_path, {"classes": ["a\nb", *map(str, range(9))]})
    with pytest.raises(BadInput, match="line break"):
        make({**run, "data": broken}, "android", pictures, out)
    assert not out.exists()


def test_a_jetson_gets_no_file_that_tensorrt_refuses(
    run: dict, pictures: np.ndarray, tmp_path: Path
) -> None:
    without = {k: v for k, v in run.items() if k != "export:tensorrt-int8"}
    with pytest.raises(BadInput, match=(
        r"has no file for jetson \(tensorrt-int8 or tensorrt-fp16\); edgeres run a-run/recipe\.lock"
        r"\.yaml --set 'export\.targets=\[onnx-fp32,onnx-int8,tensorrt-int8,tflite-int8\]'"
    )):  # fmt: skip
        make(without, "jetson", pictures, tmp_path / "b.zip")
    float_only = {k: v for k, v in without.items() if k != "quantize"}
    with pytest.raises(BadInput, match=r"tensorrt-fp16,tflite-int8\]"):
        make(float_only, "jetson", pictures, tmp_path / "b.zip")


def test_a_lesser_file_is_said_to_be_one(run: dict, pictures: np.ndarray, tmp_path: Path) -> None:
    out = tmp_path / "a" / "new folder" / "b.zip"
    result = bundle.make("a-run", run, "web-service", pictures, out)
    assert (result["target"], result["notes"]) == ("onnx-int8", [])
    without = {k: v for k, v in run.items() if k != "export:onnx-int8"}
    result = bundle.make("a-run", without, "web-service", pictures, out)
    assert result["target"] == "onnx-fp32"
    assert result["notes"][0].startswith("onnx-fp32, because the run has no onnx-int8; with it: ")


def test_the_command_that_is_told_makes_the_run_that_is_told(
    stored_run: Path, own_config: Path
) -> None:
    with pytest.raises(BadInput, match="has no file for jetson") as refused:
        command.bundled(str(stored_run), "jetson", None, None, stored_run.parent)
    told = str(refused.value).partition("); ")[2]
    first, _, second = told.partition(" && ")
    argv = shlex.split(first)
    assert argv[:3] == ["edgeres", "run", str(stored_run / "recipe.lock.yaml")]
    planned = subprocess.run([sys.executable, "-m", "edgeres", *argv[1:], "--dry-run"], check=True,
                             capture_output=True, text=True).stdout  # fmt: skip
    assert "export:tensorrt-int8" in planned and "verify" in planned
    _, _, made, *rest = shlex.split(second)
    assert Path(made).name in planned and rest == ["--for", "jetson"]


def test_names_of_others_are_only_text_in_the_card(
    run: dict, pictures: np.ndarray, tmp_path: Path
) -> None:
    names = ["<script>alert(1)</script>", "[x](javascript:y)", "a|b", *map(str, range(7))]
    data = artifact("data", tmp_path, {"classes": names}, {"name": "<b>data</b>"})
    make({**run, "data": data}, "android", pictures, tmp_path / "b.zip")
    with zipfile.ZipFile(tmp_path / "b.zip") as archive:
        card = archive.read("MODEL_CARD.md").decode()
    assert "<" not in card and "&lt;script&gt;" in card and "\\[x\\]\\(javascript" in card


def test_a_link_in_a_package_is_not_followed(tmp_path: Path) -> None:
    package = tmp_path / "m.mlpackage"
    (package / "Data").mkdir(parents=True)
    (package / "Manifest.json").write_text("{}")
    (package / "Data" / "secret").symlink_to("/etc/passwd")
    with pytest.raises(BadInput, match="'Data/secret' is a link"):
        bundle._copy(package, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_one_flipped_byte_anywhere_is_caught(
    run: dict, pictures: np.ndarray, tmp_path: Path
) -> None:
    path = make(run, "android", pictures, tmp_path / "b.zip")
    folder = tmp_path / "b"
    shutil.unpack_archive(path, folder)
    files = [p for p in folder.rglob("*") if p.is_file() and p.name != bundle.MANIFEST]
    for file in files:
        before = file.read_bytes()
        at = len(before) // 2
        file.write_bytes(before[:at] + bytes([before[at] ^ 1]) + before[at + 1 :])
        name = file.relative_to(folder).as_posix()
        assert checking.check(folder)["findings"] == [f"{name} was changed"]
        file.unlink()
        assert checking.check(folder)["findings"] == [f"{name} is missing"]
        file.write_bytes(before)
    (folder / "extra.so").write_bytes(b"")
    assert checking.check(folder)["findings"] == ["extra.so was added"]
    data = path.read_bytes()
    for at in range(0, len(data), len(data) // 40):  # in the archive itself
        (tmp_path / "c.zip").write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        try:
            changed = checking.check(tmp_path / "c.zip")
        except BadInput:
            continue
        if changed["passed"]:  # a field of the archive that isn't contents, such as a date
            with zipfile.ZipFile(path) as a, zipfile.ZipFile(tmp_path / "c.zip") as b:
                assert all(a.read(n) == b.read(n) for n in a.namelist())


def test_what_is_no_bundle_gets_one_sentence(run: dict, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"not a zip")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("x", "y")
    with zipfile.ZipFile(tmp_path / "c.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(bundle.MANIFEST, b"[" * 100_000)
    for name in ("a.zip", "b.zip", "c.zip"):
        with pytest.raises(BadInput, match=name):
            checking.check(tmp_path / name)
    with pytest.raises(BadInput, match="has no file for ios"):
        make(run, "ios", np.zeros((1, 3, 16, 16), np.float32), tmp_path / "d.zip")
    with pytest.raises(BadInput, match="did you mean 'android'"):
        make(run, "androit", np.zeros((1, 3, 16, 16), np.float32), tmp_path / "d.zip")


def test_the_web_service_answers_with_labels(
    run: dict, pictures: np.ndarray, tmp_path: Path
) -> None:
    shutil.unpack_archive(make(run, "web-service", pictures, tmp_path / "b.zip"), tmp_path / "b")
    code = ("import sys; sys.argv = ['service.py']; sys.path.insert(0, 'sample'); import service\n"
            "server = service.ThreadingHTTPServer(('127.0.0.1', 0), service.Handler)\n"
            "print(server.server_port, flush=True); server.serve_forever()")  # fmt: skip
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path / "b", text=True,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as service:  # fmt: skip
        assert service.stdout is not None
        port = int(service.stdout.readline())
        body = (tmp_path / "b" / "golden" / "inputs.bin").read_bytes()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", body, timeout=30) as answer:
            labels = json.load(answer)
        service.kill()
    expected = np.load(tmp_path / "b" / "golden" / "outputs.npy").argmax(1)
    assert labels == [f"class {n}" for n in expected]


def test_drift_against_a_bundle(run: dict, pictures: np.ndarray, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    pixels = random.integers(50, 150, (400, 3, 4, 4)).astype(np.uint8)
    baseline = drift.features(pixels, random.normal(size=(400, 10)))
    path = tmp_path / "b.zip"
    bundle.make("a-run", run, "android", pictures, path, baseline=baseline)
    assert checking.check(path)["passed"]
    for shift, says in ((0, "no drift"), (60, "drift")):
        seen = drift.features(pixels[:100] + np.uint8(shift), random.normal(size=(100, 10)))
        rows = [dict(zip(seen, values, strict=True)) for values in zip(*seen.values(), strict=True)]
        log = tmp_path / "log.jsonl"
        log.write_text(
            "".join(json.dumps({**row, "top1": int(row["top1"])}) + "\n" for row in rows)
        )
        done = subprocess.run([sys.executable, "-m", "edgeres", "drift", path, log], check=False,
                              capture_output=True, text=True)  # fmt: skip
        assert done.returncode == (says == "drift"), done.stderr
        assert done.stdout.endswith(f"{says} in 100 inferences\n")

"""A bundle is whole, the same each time, passes its test anywhere, and no byte of it can change."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import urllib.request
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import images

from edgeres import bundle, targets
from edgeres.artifact import Artifact
from edgeres.bundle import checking
from edgeres.disk import file_sha256, folder_size
from edgeres.errors import BadInput
from edgeres.measurement import drift
from edgeres.training.inference import prepared
from edgeres.types import ExportedFile, to_json


def artifact(stage: str, folder: Path, facts: dict, section: dict | None = None) -> Artifact:
    return Artifact(stage, "key", "digest", folder, {}, section or {}, facts, {}, 0.0)


@pytest.fixture(scope="module")
def run(quantized: tuple, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """The artifacts that a bundle is made of, with two exports."""
    _, folded, scales = quantized
    folder = tmp_path_factory.mktemp("run")
    preprocess = folded.spec.preprocess
    found = {
        "data": artifact("data", folder, {"classes": [f"class {n}" for n in range(10)]}),
        "quantize": artifact("quantize", folder, {
            "model": "resnet8", "parameters": 1, "macs": 1, "test": {"correct": 3, "n": 4},
        }),
    }  # fmt: skip
    for name in ("tflite-int8", "onnx-int8"):
        target, _ = targets.load(name)
        path = folder / f"m-int8{target.SUFFIX}"
        first, last = target.export(targets.Source(folded, scales), "int8", path)
        exported = ExportedFile(name, path.name, file_sha256(path), folder_size(path), first, last)
        facts = {"exported": to_json(exported), "preprocess": to_json(preprocess)}
        found[f"export:{name}"] = artifact("export", folder, facts, {"targets": [name]})
    return found


@pytest.fixture(scope="module")
def pictures(quantized: tuple) -> np.ndarray:
    return prepared(images(16, seed=4), quantized[1].spec.preprocess).contiguous().numpy()


def make(run: dict, kind: str, pictures: np.ndarray, out: Path, key: Path | None = None) -> Path:
    bundle.make("a-run", run, kind, pictures, out, key)
    return out


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


def test_a_signature_is_that_of_the_key(run: dict, pictures: np.ndarray, tmp_path: Path) -> None:
    pytest.importorskip("cryptography", reason="edgeres[signing] is not installed")
    mine, other = (keys(tmp_path / name) for name in ("mine", "other"))
    signed = make(run, "android", pictures, tmp_path / "b.zip", mine[0])
    assert checking.check(signed)["signature"] == "unchecked"
    assert checking.check(signed, mine[1])["signature"] == "good"
    wrong = checking.check(signed, other[1])
    assert (wrong["passed"], wrong["findings"]) == (False, ["its signature is bad"])
    unsigned = make(run, "android", pictures, tmp_path / "c.zip")
    assert checking.check(unsigned, mine[1])["findings"] == ["its signature is missing"]
    for key in (mine[1], tmp_path / "none.pem", signed):
        with pytest.raises(BadInput):
            make(run, "android", pictures, tmp_path / "d.zip", key)
    with pytest.raises(BadInput):
        checking.check(signed, mine[0])


def keys(path: Path) -> tuple[Path, Path]:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key, pem = Ed25519PrivateKey.generate(), serialization.Encoding.PEM
    private, public = path.with_suffix(".pem"), path.with_suffix(".pub")
    private.write_bytes(key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))  # fmt: skip
    public.write_bytes(
        key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return private, public


@pytest.mark.parametrize("name", ["../out.txt", "/tmp/out.txt", "a/../../out.txt", "link", "..\\x"])
def test_archives_that_reach_outside_are_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "evil.zip"
    with zipfile.ZipFile(path, "w") as archive:
        entry = zipfile.ZipInfo(name)
        if name == "link":
            entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(entry, "/etc/passwd")
    with pytest.raises(BadInput, match=r"outside the bundle|is a link"):
        checking.check(path)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["evil.zip"]


def test_what_is_no_bundle_gets_one_sentence(
    run: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.zip").write_bytes(b"not a zip")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("x", "y")
    with zipfile.ZipFile(tmp_path / "c.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(bundle.MANIFEST, b"[" * 100_000)
    for name in ("a.zip", "b.zip", "c.zip"):
        with pytest.raises(BadInput, match=name):
            checking.check(tmp_path / name)
    monkeypatch.setattr(checking, "_MAX_BYTES", 1000)
    with pytest.raises(BadInput, match="unpacks to more"):
        checking.check(tmp_path / "c.zip")
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

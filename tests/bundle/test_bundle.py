"""A bundle is whole, the same each time, passes its test anywhere, and no byte of it can change."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.request
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import images

from edgeres import bundle, targets
from edgeres.artifact import Artifact
from edgeres.bundle import checking
from edgeres.compression.integers import integer_graph
from edgeres.disk import file_sha256, folder_size
from edgeres.errors import BadInput, GateFailed
from edgeres.measurement import drift
from edgeres.recipe import VerifySection
from edgeres.stages.verify import row
from edgeres.training.inference import predict, prepared
from edgeres.types import ExportedFile, to_json
from edgeres.verification import gates
from edgeres.verification.certificate import Reference, certify

pytestmark = pytest.mark.usefixtures("own_config")


def artifact(stage: str, folder: Path, facts: dict, section: dict | None = None) -> Artifact:
    return Artifact(stage, "key", "digest", folder, {}, section or {}, facts, {}, 0.0)


@pytest.fixture(scope="module")
def run(quantized: tuple, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """The artifacts that a bundle is made of: exports and what verification said of each."""
    model, folded, scales = quantized
    folder = tmp_path_factory.mktemp("run")
    preprocess = to_json(folded.spec.preprocess)
    classes = [f"class {n}" for n in range(10)]
    said = {"edgeres.labels": "\n".join(classes), "edgeres.preprocess": json.dumps(preprocess)}
    found = {
        "data": artifact("data", folder, {"classes": classes}),
        "quantize": artifact("quantize", folder, {
            "model": "resnet8", "parameters": 1, "macs": 1, "test": {"correct": 3, "n": 4},
        }),
    }  # fmt: skip
    sample, labels = images(16, seed=5), torch.zeros(16, dtype=torch.int64)
    before = predict(model, sample, folded.spec.preprocess).numpy()
    answers = predict(integer_graph(folded, scales), sample, folded.spec.preprocess).numpy()
    documents = []
    for name in ("tflite-int8", "onnx-int8", "onnx-fp32"):
        target, precision = targets.load(name)
        integer = scales if targets.is_integer(precision) else None
        source = targets.Source(folded, integer, said)
        path = folder / f"m-{precision}{target.SUFFIX}"
        first, last = target.export(source, precision, path)
        exported = ExportedFile(name, path.name, file_sha256(path), folder_size(path), first, last)
        facts = {"exported": to_json(exported), "preprocess": preprocess}
        found[f"export:{name}"] = artifact("export", folder, facts, {"targets": [name]})
        if integer is None:
            answers = predict(folded, sample, folded.spec.preprocess).numpy()
        expected = Reference(folded, integer, answers, before, sample, labels, said)
        certificate = certify(path, exported, expected, VerifySection(), lambda *_: None)
        assert {g.name for g in certificate.gates} >= gates.required(name).keys()
        documents.append({"file": to_json(exported), **row(certificate)})
    text = json.dumps({"schema": 2, "files": documents})
    (folder / "verify.json").write_text(text)
    found["verify"] = artifact("verify", folder, {"passed": True, "files": documents})
    return found


@pytest.fixture(scope="module")
def pictures(quantized: tuple) -> np.ndarray:
    return prepared(images(16, seed=4), quantized[1].spec.preprocess).contiguous().numpy()


def make(run: dict, kind: str, pictures: np.ndarray, out: Path, key: Path | None = None) -> Path:
    bundle.make("a-run", run, kind, pictures, out, key, numbered=lambda _: (7, 1_000_000_000))
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
    assert not list(alone.rglob("__pycache__"))
    (alone / "numpy.py").write_text("raise SystemExit(0)")  # beside the test, not in the manifest
    done = subprocess.run([sys.executable, "golden_test.py"], cwd=alone, env=clean, check=False,
                          capture_output=True, text=True)  # fmt: skip
    assert done.stdout.endswith("passed\n")


@pytest.mark.parametrize(
    ("missing", "says"),
    [("numpy", "CAN'T TEST: numpy is not installed here"),
     ("runtime", "CAN'T TEST: the model can't be loaded here: no runtime for .tflite files"),
     ("manifest.json", "manifest.json can't be read"),
     ("golden/golden.json", "CHANGED: golden/golden.json")],
)  # fmt: skip
def test_the_golden_test_says_what_it_lacks(
    missing: str, says: str, run: dict, pictures: np.ndarray, tmp_path: Path
) -> None:
    shutil.unpack_archive(make(run, "android", pictures, tmp_path / "b.zip"), tmp_path / "b")
    (tmp_path / "b" / missing).unlink(missing_ok=True)
    site = "" if missing == "runtime" else "sys.modules['numpy'] = None"
    hidden = "" if missing != "runtime" else (
        "import importlib.metadata as m\nreal = m.version\n"
        "def version(name):\n    raise m.PackageNotFoundError(name)\n"
        "m.version = version"
    )  # fmt: skip
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(f"import sys\n{site}\n{hidden}\n")
    done = subprocess.run([sys.executable, "golden_test.py"], cwd=tmp_path / "b", check=False,
                          env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
                          capture_output=True, text=True)  # fmt: skip
    assert says in done.stdout and not done.stderr, done.stderr
    assert done.returncode == (1 if says.startswith("CHANGED") else 2)


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

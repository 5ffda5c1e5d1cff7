"""A good bundle of a stored run, and whatever a forger makes of it."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgeres import bundle, runs, stages, targets
from edgeres.artifact import Artifact
from edgeres.commands import bundle as command
from edgeres.compression.integers import integer_graph
from edgeres.disk import file_sha256, folder_size
from edgeres.recipe import VerifySection
from edgeres.stages.verify import row
from edgeres.training.inference import predict, prepared
from edgeres.types import ExportedFile, to_json
from edgeres.verification import gates
from edgeres.verification.certificate import Reference, certify

STORED = Path(__file__).parents[1] / "fixtures" / "run-v1.tar.xz"


@pytest.fixture(scope="session")
def stored_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with an onnx and a tflite file, and certificates of today."""
    folder = tmp_path_factory.mktemp("stored")
    with tarfile.open(STORED) as archive:
        archive.extractall(folder, filter="data")
    (lock,) = folder.glob("runs/*/recipe.lock.yaml")
    verify_anew(lock.parent)
    return lock.parent


def verify_anew(path: Path) -> None:
    """Give a stored run the certificates that this version writes."""
    run, store = runs.open_run(path), runs.store_of(path.parent)
    inputs = {
        "data": run.artifacts["data"], "quantize": run.artifacts["quantize"],
        "model": run.artifacts["teacher"],
        **{t: run.artifacts[f"export:{t}"] for t in ("onnx-int8", "tflite-int8")},
    }  # fmt: skip
    section, key = VerifySection(samples=64, agreement=0.9), "0" * 20
    with store.open().staging("verify", key) as staged:
        context = stages.Context(0, staged, lambda *_: None)
        facts = stages.load("verify").run(section, inputs, staged, context)
        made = store.commit(staged, "verify", key, parents=inputs, facts=facts, libraries={},
                            section=section.model_dump(mode="json"), seconds=0.0)  # fmt: skip
    runs.link(run, "verify", made)
    (path / "artifacts" / "report").unlink(missing_ok=True)  # it tells of the old ones


@pytest.fixture(scope="session")
def good_bundle(stored_run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of its bundle for a web service, which is the quickest to check."""
    path = tmp_path_factory.mktemp("good") / "b.zip"
    command.bundled(str(stored_run), "web-service", path, None, stored_run.parent)
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture
def own_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in the place of the user's own settings."""
    folder = tmp_path / "config"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder))
    return folder / "edgeres"


def artifact(stage: str, folder: Path, facts: dict, section: dict | None = None) -> Artifact:
    return Artifact(stage, "key", "digest", folder, {}, section or {}, facts, {}, 0.0)


@pytest.fixture(scope="session")
def exported_run(quantized: tuple, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """The artifacts that a bundle is made of: exports and what verification said of each."""
    from conftest import images

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
    documents = []
    for name in ("tflite-int8", "onnx-int8", "tensorrt-int8", "onnx-fp32"):
        target, precision = targets.load(name)
        integer = targets.scales_for(name, scales) if targets.is_integer(precision) else None
        source = targets.Source(folded, integer, said)
        path = folder / f"m-{precision}{target.SUFFIX}"
        first, last = target.export(source, precision, path)
        exported = ExportedFile(name, path.name, file_sha256(path), folder_size(path), first, last)
        facts = {"exported": to_json(exported), "preprocess": preprocess}
        found[f"export:{name}"] = artifact("export", folder, facts, {"targets": [name]})
        reference = folded if integer is None else integer_graph(folded, integer)
        answers = predict(reference, sample, folded.spec.preprocess).numpy()
        expected = Reference(folded, integer, answers, before, sample, labels, said)
        certificate = certify(path, exported, expected, VerifySection(), lambda *_: None)
        assert {g.name for g in certificate.gates} >= gates.required(name).keys()
        documents.append({"file": to_json(exported), **row(certificate)})
    text = json.dumps({"schema": 2, "files": documents})
    (folder / "verify.json").write_text(text)
    found["verify"] = artifact("verify", folder, {"passed": True, "files": documents})
    return found


@pytest.fixture(scope="session")
def golden_pictures(quantized: tuple) -> np.ndarray:
    from conftest import images

    return prepared(images(16, seed=4), quantized[1].spec.preprocess).contiguous().numpy()


def make(run: dict, kind: str, pictures: np.ndarray, out: Path, key: Path | None = None) -> Path:
    bundle.make("a-run", run, kind, pictures, out, key, numbered=lambda _: (7, 1_000_000_000))
    return out


def mended(files: Mapping[str, bytes], **changes: Any) -> dict[str, bytes]:
    """Files with a manifest that fits them: what a forger would send."""
    files = {name: data for name, data in files.items() if name != bundle.MANIFEST}
    manifest = json.loads(changes.pop("manifest"))
    manifest["sha256"] = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()
                          if name != bundle.SIGNATURE}  # fmt: skip
    return {**files, bundle.MANIFEST: json.dumps({**manifest, **changes}).encode()}


def forged(files: Mapping[str, bytes], name: str, data: bytes | None) -> dict[str, bytes]:
    """One file written over, added, or taken out (None), and the manifest mended."""
    left = {n: d for n, d in files.items() if n != name}
    changed = left if data is None else {**left, name: data}
    return mended(changed, manifest=files[bundle.MANIFEST])


def edited(files: Mapping[str, bytes], name: str, change: Any) -> dict[str, bytes]:
    """One JSON file changed in place by a function, and the manifest mended."""
    document = json.loads(files[name])
    change(document)
    return forged(files, name, json.dumps(document).encode())


def zipped(files: Mapping[str, bytes], out: Path | None = None) -> bytes:
    """An archive with these files, as edgeres lays one out."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data)
    if out is not None:
        out.write_bytes(stream.getvalue())
    return stream.getvalue()


def key_pair(folder: Path, name: str) -> tuple[Path, Path]:
    """A private and a public Ed25519 key in PEM."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key, pem = Ed25519PrivateKey.generate(), serialization.Encoding.PEM
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    private.write_bytes(key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))  # fmt: skip
    public.write_bytes(
        key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return private, public

"""Bundles: one archive that an app team can use and check without edgeres or the run.

In: a run's artifacts. Out: a .zip with model files, labels, preprocessing, golden inputs and
outputs, a model card, an SBOM, a small sample to build, and a manifest of sha256 sums that may be
signed. `golden_test.py` in it needs only Python, numpy and the file's runtime.
"""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgeres import __version__, contract, devices, door, scratch, targets
from edgeres.artifact import Artifact, library_versions
from edgeres.bundle import (
    archive,
    card,
    certified,
    documents,
    golden,
    microcontroller,
    readme,
    signing,
)
from edgeres.disk import file_sha256, storage_errors
from edgeres.errors import BadInput, GateFailed, unknown
from edgeres.types import exported_file

if TYPE_CHECKING:
    import numpy as np

MANIFEST, SIGNATURE, BASELINE = "manifest.json", "manifest.sig", "drift.json"
LABELS, PREPROCESS, CARD = "labels.txt", contract.FILE, "MODEL_CARD.md"
CERTIFICATE, SBOM = "certificate.json", "sbom.json"
PROGRAMS = ("golden_test.py", "runner.py")
README = readme.FILE
REQUIRED = (README, LABELS, PREPROCESS, CARD, CERTIFICATE, SBOM, *golden.FILES, *PROGRAMS)
GOLDEN = golden.SAMPLES
# what a bundle is for -> the targets it takes, the first that the run has
KINDS: dict[str, tuple[str, ...]] = {
    "android": ("tflite-int8", "tflite-int16x8", "tflite-dynamic", "tflite-fp16", "tflite-fp32"),
    "ios": ("coreml-int8", "coreml-palettized", "coreml-fp16"),
    "jetson": ("tensorrt-int8", "tensorrt-fp16"),  # TensorRT takes no onnx-int8
    "linux": ("tflite-int8", "tflite-int16x8", "tflite-dynamic", "tflite-fp16", "tflite-fp32"),
    "microcontroller": ("tflite-int8", "tflite-int4", "tflite-int16x8"),
    "web": ("onnx-int8", "onnx-fp32"),
    "web-service": ("onnx-int8", "onnx-fp32"),
}
# files of one kind's sample that another's takes, too -> where they go there
_SHARED = {"ios": {"linux/preprocess.h": "Sources/Preprocess/preprocess.h"}}
_LIBRARIES = ("torch", "torchao", "nncf", "litert-torch", "ai-edge-litert", "onnx", "onnxruntime",
              "coremltools", "executorch", "numpy")  # fmt: skip


def now(_: str) -> tuple[int, int]:
    """A serial and a time for a bundle that nobody keeps a list of."""
    return (int(time.time()),) * 2


def make(
    run: str, artifacts: Mapping[str, Artifact], kind: str, images: np.ndarray, out: Path,
    key: Path | None = None, baseline: Mapping[str, object] | None = None,
    numbered: Callable[[str], tuple[int, int]] = now,
    remake: Callable[[Sequence[str]], str] | None = None,
) -> dict[str, object]:  # fmt: skip
    """Write a bundle.

    Args:
        run: its name, for the card.
        images: (N, 3, H, W) float32, prepared as the network takes them; the golden inputs.
        key: an Ed25519 private key in PEM, to sign the manifest with.
        baseline: what the test set looks like, for `edgeres drift` (measurement/drift.py).
        numbered: hash of all that is in the bundle -> its serial, and seconds since 1970.
        remake: targets -> the command that makes the run's files of them, verified.

    Raises:
        BadInput: an unknown kind, a run without a file for it or with one that its runtime
            refuses, or a key that isn't one.
        GateFailed: the file has no certificate, or one that isn't about it or didn't pass.
    """
    if kind not in KINDS:
        raise unknown("kind of bundle", kind, KINDS)
    exports = {a.section["targets"][0]: a for a in artifacts.values() if a.stage == "export"}
    target = next((t for t in KINDS[kind] if t in exports), None)
    remade = remake or functools.partial(_remake, run)
    wanted = _wanted(kind, "quantize" in artifacts)
    more = remade(sorted({*exports, wanted}))
    if target is None:
        raise BadInput(f"{run}: has no file for {kind} ({' or '.join(KINDS[kind])}); {more}")
    notes = []
    if wanted not in exports and KINDS[kind].index(target) > KINDS[kind].index(wanted):
        notes.append(f"{target}, because the run has no {wanted}; with it: {more}")
    if out.is_dir():
        raise BadInput(f"{out}: is a folder; name the archive, e.g. --out {out}/{run}-{kind}.zip")
    private = signing.private_key(key) if key is not None else None
    exported = exported_file(exports[target].facts["exported"])
    if not door.is_plain(exported.file):
        raise BadInput(f"{run}: {exported.file[:80]!r} is no name of a file; export it anew")
    with scratch.folder("bundle") as place, storage_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        (folder := place / "files").mkdir()
        model = folder / "model" / exported.file
        _copy(exports[target].file(exported.file), model)
        _certificate(folder, run, artifacts, target, model, remade(sorted(exports)))
        _texts(folder, run, artifacts, target, kind)
        golden.write(folder / golden.FOLDER, model, exported, images)
        samples = Path(__file__).parent / "samples" / kind
        for name, path in sample(kind).items():
            _copy(path, folder / "sample" / name)
        limits = microcontroller.write(folder, model) if kind == microcontroller.KIND else []
        notes += limits
        _copy(Path(__file__).with_name("golden_test.py"), folder / "golden_test.py")
        _copy(devices.RUNNER, folder / "runner.py")
        if baseline is not None:
            (folder / BASELINE).write_text(json.dumps(baseline), "utf-8")
        about = {
            "edgeres": __version__, "name": run.rpartition("-")[0] or run, "run": run, "for": kind,
            "target": target, "signer": signing.encoded(signing.public_of(private))
            if private is not None else None,
        }  # fmt: skip
        manifest = _manifest(folder, about, numbered, lambda numbers: readme.text(
            {**about, **numbers}, artifacts, _read(folder, PREPROCESS),
            _read(folder, golden.FILES[0]), samples, limits,
        ))  # fmt: skip
        (folder / MANIFEST).write_text(manifest, "utf-8")
        if private is not None:
            (folder / SIGNATURE).write_bytes(private.sign(manifest.encode()))
        archive.write(folder, out)
    said = json.loads(manifest)
    public = signing.public_of(private) if private is not None else None
    return {"bundle": str(out), "target": target, "size_bytes": out.stat().st_size,
            "notes": notes, "signed": key is not None, "sha256": file_sha256(out),
            "serial": said["serial"], "created": said["created"],
            "fingerprint": signing.fingerprint(public) if public is not None else None}  # fmt: skip


def sample(kind: str) -> dict[str, Path]:
    """The files of a kind's sample, by their names there; not what Python made beside them."""
    samples = Path(__file__).parent / "samples"
    files = {
        name: path
        for name, path in archive.walked(samples / kind).items()
        if "__pycache__" not in path.parts and name != readme.USE
    }  # it goes into the README
    return files | {copied: samples / shared for shared, copied in _SHARED.get(kind, {}).items()}


def _wanted(kind: str, quantized: bool) -> str:
    """The target that a run should have for this kind, as far as its network is quantized."""
    return next(t for t in KINDS[kind] if quantized or not targets.is_integer(t.partition("-")[2]))


def _remake(run: str, names: Sequence[str]) -> str:
    return f"edgeres run {run}/recipe.lock.yaml --set 'export.targets=[{','.join(names)}]'"


def _copy(source: Path, copy: Path) -> None:
    """A file, or the regular files of a folder: a link in it is refused."""
    files = {"": source} if source.is_file() else archive.walked(source)
    for name, path in files.items():
        place = copy / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)


def _certificate(
    folder: Path, run: str, artifacts: Mapping[str, Artifact], target: str, model: Path, mend: str
) -> None:
    """Write the certificate, if it is this very model's and every gate of it is met."""
    if "verify" not in artifacts:
        raise GateFailed(f"{run}: its files were never verified; {mend}")
    content = artifacts["verify"].read("verify.json")
    said = documents.parsed(documents.Certificate, content, f"{run}: verify.json")
    wrong = list(certified.findings(said, target, model.name, file_sha256(model)))
    if wrong:
        raise GateFailed(f"{run}: no bundle is made of {model.name}: {'; '.join(wrong)}; {mend}")
    (folder / CERTIFICATE).write_bytes(content)


def _texts(
    folder: Path, run: str, artifacts: Mapping[str, Artifact], target: str, kind: str
) -> None:
    exported = artifacts[f"export:{target}"]
    classes = artifacts["data"].facts["classes"]
    labels = "".join(f"{name}\n" for name in classes)
    if labels.splitlines() != list(classes):
        raise BadInput(f"{run}: the name of a class has a line break in it; rename the class")
    (folder / LABELS).write_text(labels, "utf-8")
    if PREPROCESS in (exported.files or {}):
        (folder / PREPROCESS).write_bytes(exported.read(PREPROCESS))
    else:  # of an earlier version
        preprocess = json.dumps(exported.facts["preprocess"], indent=1)
        (folder / PREPROCESS).write_text(preprocess, "utf-8")
    (folder / CARD).write_text(card.text(run, artifacts, target, kind), "utf-8")
    (folder / SBOM).write_text(_sbom(exported), "utf-8")


def _sbom(artifact: Artifact) -> str:
    """CycloneDX 1.5: what the file was made with, as far as it is known here."""
    exported = exported_file(artifact.facts["exported"])
    libraries = library_versions(_LIBRARIES)
    return json.dumps({
        "bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
        "metadata": {
            "tools": [{"name": "edgeres", "version": __version__}],
            "component": {
                "type": "machine-learning-model", "name": exported.file,
                "hashes": [{"alg": "SHA-256", "content": exported.sha256}],
            },
        },
        "components": [
            {"type": "library", "name": name, "version": version,
             "purl": f"pkg:pypi/{name}@{version}"}
            for name, version in sorted(libraries.items()) if version
        ],
    }, indent=1)  # fmt: skip


def _read(folder: Path, name: str) -> dict[str, object]:
    return documents.mapping((folder / name).read_bytes(), name)


def _manifest(
    folder: Path, about: Mapping[str, object], numbered: Callable[[str], tuple[int, int]],
    page: Callable[[Mapping[str, object]], str],
) -> str:  # fmt: skip
    """The manifest; the README, which says what the manifest says, is written with it."""
    sums = {name: file_sha256(path) for name, path in archive.walked(folder).items()}
    contents = json.dumps({**about, "sha256": sums}, sort_keys=True)
    serial, created = numbered(hashlib.sha256(contents.encode()).hexdigest())
    numbers = {"serial": serial, "created": documents.timestamp(created)}
    (folder / README).write_text(page(numbers), "utf-8")
    sums = {name: file_sha256(path) for name, path in archive.walked(folder).items()}
    return json.dumps({"schema": documents.SCHEMA, **about, **numbers, "sha256": sums}, indent=1)


__all__: Sequence[str] = ("GOLDEN", "KINDS", "MANIFEST", "SIGNATURE", "make")

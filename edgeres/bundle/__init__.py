"""Bundles: one archive that an app team can use and check without edgeres or the run.

In: a run's artifacts. Out: a .zip with model files, labels, preprocessing, golden inputs and
outputs, a model card, an SBOM, a small sample to build, and a manifest of sha256 sums that may be
signed. `golden_test.py` in it needs only Python, numpy and the file's runtime.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeres import __version__, devices, targets
from edgeres.artifact import Artifact, library_versions
from edgeres.bundle import card, signing
from edgeres.disk import file_sha256, storage_errors
from edgeres.errors import BadInput, unknown
from edgeres.types import ExportedFile, exported_file

if TYPE_CHECKING:
    import numpy as np

MANIFEST, SIGNATURE, BASELINE = "manifest.json", "manifest.sig", "drift.json"
# what a bundle is for -> the targets it takes, the first that the run has
KINDS: dict[str, tuple[str, ...]] = {
    "android": ("tflite-int8", "tflite-int16x8", "tflite-dynamic", "tflite-fp16", "tflite-fp32"),
    "ios": ("coreml-int8", "coreml-palettized", "coreml-fp16"),
    "jetson": ("tensorrt-int8", "onnx-int8", "tensorrt-fp16", "onnx-fp16", "onnx-fp32"),
    "web-service": ("onnx-int8", "onnx-fp32"),
}
GOLDEN = 8
# Kernels round differently (two codes were seen between LiteRT's); a wrong model is far off.
_TOLERANCE = {"codes": 3, "float": 1e-2}
_LIBRARIES = ("torch", "torchao", "nncf", "litert-torch", "ai-edge-litert", "onnx", "onnxruntime",
              "coremltools", "executorch", "numpy")  # fmt: skip
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same run gives the same bytes


def make(
    run: str, artifacts: Mapping[str, Artifact], kind: str, images: np.ndarray, out: Path,
    key: Path | None = None, baseline: Mapping[str, Any] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Write a bundle.

    Args:
        run: its name, for the card.
        images: (N, 3, H, W) float32, prepared as the network takes them; the golden inputs.
        key: an Ed25519 private key in PEM, to sign the manifest with.
        baseline: what the test set looks like, for `edgeres drift` (measurement/drift.py).

    Raises:
        BadInput: an unknown kind, a run without a file for it, or a key that isn't one.
    """
    if kind not in KINDS:
        raise unknown("kind of bundle", kind, KINDS)
    exports = {a.section["targets"][0]: a for a in artifacts.values() if a.stage == "export"}
    target = next((t for t in KINDS[kind] if t in exports), None)
    if target is None:
        raise BadInput(f"{run}: has no file for {kind}; edgeres export --target {KINDS[kind][0]}")
    artifact = exports[target]
    exported = exported_file(artifact.facts["exported"])
    with tempfile.TemporaryDirectory() as scratch, storage_errors(out):
        folder = Path(scratch)
        _model(folder / "model", artifact, exported)
        _texts(folder, run, artifacts, target, kind)
        _golden(folder / "golden", artifact.file(exported.file), exported, images)
        shutil.copytree(Path(__file__).parent / "samples" / kind, folder / "sample")
        shutil.copyfile(Path(__file__).with_name("golden_test.py"), folder / "golden_test.py")
        shutil.copyfile(devices.RUNNER, folder / "runner.py")
        if baseline is not None:
            (folder / BASELINE).write_text(json.dumps(baseline), "utf-8")
        manifest = _manifest(folder, run, kind, target)
        (folder / MANIFEST).write_text(manifest, "utf-8")
        if key is not None:
            (folder / SIGNATURE).write_bytes(signing.sign(manifest.encode(), key))
        _zipped(folder, out)
    return {"bundle": str(out), "target": target, "size_bytes": out.stat().st_size,
            "signed": key is not None, "sha256": file_sha256(out)}  # fmt: skip


def _model(folder: Path, artifact: Artifact, exported: ExportedFile) -> None:
    folder.mkdir()
    source = artifact.file(exported.file)
    copy = shutil.copytree if source.is_dir() else shutil.copyfile
    copy(source, folder / exported.file)  # type: ignore[operator]


def _texts(
    folder: Path, run: str, artifacts: Mapping[str, Artifact], target: str, kind: str
) -> None:
    exported = artifacts[f"export:{target}"]
    classes = artifacts["data"].facts["classes"]
    (folder / "labels.txt").write_text("\n".join(classes) + "\n", "utf-8")
    (folder / "preprocess.json").write_text(
        json.dumps(exported.facts["preprocess"], indent=1), "utf-8"
    )
    (folder / "MODEL_CARD.md").write_text(card.text(run, artifacts, target, kind), "utf-8")
    (folder / "sbom.json").write_text(_sbom(exported), "utf-8")
    if "verify" in artifacts:
        shutil.copyfile(artifacts["verify"].file("verify.json"), folder / "certificate.json")


def _golden(folder: Path, file: Path, exported: ExportedFile, images: np.ndarray) -> None:
    """Inputs as the file takes them and the outputs it gave here; .bin for apps without numpy."""
    import numpy as np

    folder.mkdir()
    _, target = targets.of_file(file)
    session = target.session(file)
    if session is None:
        raise BadInput(f"{file}: nothing here runs it, so it has no golden outputs")
    inputs = np.ascontiguousarray(targets.encode(images[:GOLDEN], exported.input))
    outputs = np.concatenate([session.run(sample[None]) for sample in inputs])
    for name, array in (("inputs", inputs), ("outputs", outputs)):
        np.save(folder / f"{name}.npy", array, allow_pickle=False)
        (folder / f"{name}.bin").write_bytes(array.tobytes())
    integer = exported.output.quantization is not None
    (folder / "golden.json").write_text(json.dumps({
        "model": f"model/{exported.file}", "samples": len(inputs),
        "input": {"shape": list(inputs.shape[1:]), "dtype": str(inputs.dtype)},
        "output": {"shape": list(outputs.shape[1:]), "dtype": str(outputs.dtype)},
        "tolerance": _TOLERANCE["codes" if integer else "float"],
        "made_by": getattr(session, "stand_in", "its runtime"),
    }, indent=1), "utf-8")  # fmt: skip


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


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file())


def _manifest(folder: Path, run: str, kind: str, target: str) -> str:
    sums = {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in _files(folder)}  # fmt: skip
    return json.dumps({"schema": 1, "edgeres": __version__, "run": run, "for": kind,
                       "target": target, "sha256": sums}, indent=1)  # fmt: skip


def _zipped(folder: Path, out: Path) -> None:
    partial = out.with_name(out.name + ".partial")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in _files(folder):
            entry = zipfile.ZipInfo(path.relative_to(folder).as_posix(), _EPOCH)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(entry, path.read_bytes())
    partial.replace(out)


__all__: Sequence[str] = ("GOLDEN", "KINDS", "MANIFEST", "SIGNATURE", "make")

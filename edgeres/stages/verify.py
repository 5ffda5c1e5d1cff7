"""Verify: exported files and the networks they were written from in, a certificate per file out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeres import targets
from edgeres.artifact import Artifact
from edgeres.recipe import VerifySection
from edgeres.stages import Context, _checkpoint, keyed_as_is
from edgeres.stages.export import read_scales
from edgeres.types import exported_file, to_json

VERSION = 1
LIBRARIES = ("torch", "ai-edge-litert", "onnxruntime", "coremltools")
keyed = keyed_as_is


def run(
    section: VerifySection, inputs: Mapping[str, Artifact], out: Path, context: Context
) -> dict[str, Any]:
    """Certify every export among the inputs (role: target) beside `data`, `model`, `quantize`."""
    import numpy as np

    from edgeres.verification.certificate import certify

    files = {role: a for role, a in inputs.items() if a.stage == "export"}
    rows, documents = [], []
    for name, artifact in files.items():
        _, precision = targets.load(name)
        origin = inputs["quantize" if targets.is_integer(precision) else "model"]
        exported = exported_file(artifact.facts["exported"])
        certificate = certify(
            artifact.file(exported.file), exported,
            _reference(origin, inputs["data"], section.samples), section, context.tick,
        )  # fmt: skip
        if certificate.logits is not None:
            np.save(out / f"logits-{name}.npy", certificate.logits)
        rows.append(_row(certificate))
        documents.append({"file": to_json(exported), "origin": origin.digest, **rows[-1]})
    text = json.dumps({"schema": 1, "files": documents}, indent=1)
    (out / "verify.json").write_text(text, "utf-8")
    return {"passed": all(row["passed"] for row in rows), "files": rows}


def _reference(origin: Artifact, data: Artifact, samples: int | None) -> Any:
    import numpy as np

    from edgeres.models import weights
    from edgeres.models.resnet import fold_batchnorm
    from edgeres.verification.certificate import Reference

    model = weights.load(origin.path)
    scales = read_scales(origin) if model.spec.folded else None
    _, _, test = _checkpoint.splits(data)
    logits = np.load(origin.file("test_logits.npy"), allow_pickle=False)
    return Reference(
        model if model.spec.folded else fold_batchnorm(model), scales,
        logits[:samples], test.images[:samples], test.labels[:samples],
    )  # fmt: skip


def _row(certificate: Any) -> dict[str, Any]:
    audit, measured = certificate.audit, certificate.parity
    return {
        "target": certificate.target,
        "passed": certificate.passed,
        "gates": [{**to_json(g), "passed": g.passed} for g in certificate.gates],
        "agreement": measured.agreement if measured else None,
        "bit_equal": measured.equal if measured else None,
        "worst_codes": measured.worst if measured else None,
        "mean_codes": measured.mean if measured else None,
        "test": to_json(certificate.accuracy),
        "scales": {"compared": audit.compared, "equal": audit.equal} if audit else None,
        "float_operators": certificate.graph.float_operators() if audit else [],
        "operators": certificate.graph.operators(),
        "notes": list(certificate.notes),
    }


def failures(facts: Mapping[str, Any]) -> list[str]:
    """`tflite-int8: top-1 agreement 0.93, needs >= 0.99` for each gate that was not met."""
    from edgeres.types import Gate

    return [
        f"{row['target']}: "
        + Gate(g["name"], g["measured"], g["comparison"], g["limit"], g["unit"]).sentence()
        for row in facts["files"]
        for g in row["gates"]
        if not g["passed"]
    ]


def summary(facts: Mapping[str, Any]) -> str:
    """`6 of 6 files verified`."""
    passed = sum(row["passed"] for row in facts["files"])
    return f"{passed} of {len(facts['files'])} files verified"

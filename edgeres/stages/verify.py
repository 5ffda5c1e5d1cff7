"""Verify: exported files and the networks they were written from in, a certificate per file out."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgeres import runtimes, targets
from edgeres.artifact import Artifact
from edgeres.errors import BadInput
from edgeres.plugins import Plugins
from edgeres.recipe import VerifySection
from edgeres.stages import Context, _checkpoint, keyed_as_is
from edgeres.stages._checkpoint import read_scales
from edgeres.stages.export import metadata
from edgeres.types import Gate, exported_file, gate_of, to_json

if TYPE_CHECKING:
    from edgeres import records
    from edgeres.records import Certified, Facts, OnRuntime, Verification
    from edgeres.text.files import Trial
    from edgeres.verification.certificate import Certificate, Reference
    from edgeres.verification.every_input import Proof
    from edgeres.verification.runtimes import Verdict

VERSION = 6
LIBRARIES = ("torch", "ai-edge-litert", "onnxruntime", "coremltools")
_SELF_TEST_SAMPLES = 64


def keyed(section: VerifySection) -> dict[str, object]:
    """The section, and the packages of the runtimes that are asked."""
    document = keyed_as_is(section)
    if not section.prove:
        del document["prove"]
    if section.on_samples == VerifySection.model_fields["on_samples"].default and not section.on:
        del document["on_samples"]
    if not section.on:
        del document["on"]
        return document
    return document | {"on": {name: runtimes.identity(name) for name in section.on}}


def plugins(section: VerifySection) -> list[tuple[Plugins, str]]:
    """The runtimes that are asked."""
    return [(runtimes.PLUGINS, runtimes.module_name(name)) for name in section.on]


def run(
    section: VerifySection, inputs: Mapping[str, Artifact], out: Path, context: Context
) -> Verification:
    """Certify every export among the inputs (role: target) beside `data`, `model`, `quantize`.

    Raises:
        BadInput: as `certify`; or a proof is asked for, and no file has the trained scales.
    """
    import numpy as np

    from edgeres.verification.certificate import certify
    from edgeres.verification.runtimes import fits, judge

    files = {role: a for role, a in inputs.items() if a.stage == "export"}
    rows, documents = [], []
    proof = _proof(section, list(files), inputs)
    for name, artifact in files.items():
        exported = exported_file(artifact.facts["exported"])
        file, expected = artifact.file(exported.file), reference(name, inputs, section.samples)
        certificate = certify(file, exported, expected, section, context.tick)
        if certificate.logits is not None:
            np.save(out / f"logits-{name}.npy", certificate.logits)
        others = section.on
        if form := targets.compiled(name):  # runtimes know the file that was compiled
            others = tuple(dict.fromkeys((*form.asked(file), *others)))
            file = form.inside(file)
            exported = dataclasses.replace(exported, target=form.of, file=file.name)
        verdicts = [
            judge(other, file, exported, expected, section.on_samples,
                  out / "compiled" / other, context.tick)
            for other in others if fits(other, exported.target)
        ]  # fmt: skip
        rows.append(row(certificate, verdicts, proof.get(name)))
        if section.prove and name in proof:
            _require(proof[name], rows[-1])
        origin = _origin(name, inputs)
        documents.append({"file": artifact.facts["exported"], "origin": origin.digest, **rows[-1]})
    text = json.dumps({"schema": 2, "files": documents}, indent=1)
    (out / "verify.json").write_text(text, "utf-8")
    return {"passed": all(row["passed"] for row in rows), "files": rows}


def _proof(
    section: VerifySection, names: Sequence[str], inputs: Mapping[str, Artifact]
) -> dict[str, Proof]:
    """What is known of every image, for each target whose files have the trained scales."""
    from edgeres.compression.portable import SCHEME
    from edgeres.models import weights
    from edgeres.verification.every_input import prove

    origin = inputs.get("quantize")
    if not (section.prove or (origin is not None and origin.facts["scheme"] == SCHEME)):
        return {}
    found: dict[str, Proof] = {}
    if origin is not None:
        trained = read_scales(origin)
        held = [name for name in names if targets.rounds_as_known(name)]
        if held:
            found = dict.fromkeys(held, prove(weights.load(origin.folder()), trained))
    if section.prove and not found:
        raise BadInput("verify.prove asks about files that compute in int8 with the trained "
                       f"scales, of which there is none: {', '.join(names)}")  # fmt: skip
    return found


def _require(proof: Proof, certified: Certified) -> None:
    """Its gates: a recipe that asks for a proof is held to it."""
    gates = [Gate("layers that kernels round differently", len(proof.witnesses), "==", 0),
             Gate("operations without a proof", len(proof.unproven), "==", 0)]  # fmt: skip
    certified["gates"] += [_gate(gate) for gate in gates]
    certified["passed"] = certified["passed"] and proof.holds


def self_test(
    section: VerifySection, inputs: Mapping[str, Artifact], tick: Callable[[int, int, str], None]
) -> list[Trial]:
    """Plant faults in copies of every export among the inputs; what verification said to each."""
    from edgeres.verification.selftest import try_all

    trials = []
    for name, artifact in inputs.items():
        if artifact.stage == "export":
            exported = exported_file(artifact.facts["exported"])
            expected = reference(name, inputs, _SELF_TEST_SAMPLES)
            file = artifact.file(exported.file)
            trials += [to_json(t) for t in try_all(file, exported, expected, section, tick)]
    return trials


def reference(name: str, inputs: Mapping[str, Artifact], samples: int | None) -> Reference:
    """What a target's file must reproduce, on the first `samples` test images (None: on all)."""

    from edgeres.compression.integers import integer_graph
    from edgeres.models import weights
    from edgeres.models.modules import fold_batchnorm
    from edgeres.training.inference import predict
    from edgeres.verification.certificate import Reference

    origin, data = _origin(name, inputs), inputs["data"]
    model = weights.load(origin.folder())
    logits = _checkpoint.answers(origin, data)[:samples]
    before = _checkpoint.answers(inputs["model"], data)[:samples]
    _, _, test = _checkpoint.splits(data)
    images, labels = test.images[:samples], test.labels[:samples]
    scales = None
    if origin.stage == "quantize":
        trained = read_scales(origin)
        scales = targets.scales_for(name, trained)
        if scales != trained:  # a derived table: no stage has stored its answers
            network = integer_graph(model, scales)
            logits = predict(network, images, model.spec.preprocess).numpy()
    model = model if model.spec.folded else fold_batchnorm(model)
    section = inputs[name].section
    said = metadata(origin, data, section["licence"])
    return Reference(model, scales, logits, before, images, labels, said,
                     tuple(section.get("npu", ())))  # fmt: skip


def _origin(name: str, inputs: Mapping[str, Artifact]) -> Artifact:
    _, precision = targets.load(name)
    return inputs["quantize" if targets.is_integer(precision) else "model"]


def row(
    certificate: Certificate, asked: Sequence[Verdict] = (), proof: Proof | None = None
) -> Certified:
    """A certificate, what other runtimes say of the file, and what is known of every image, as
    JSON-ready facts."""
    gates = [*certificate.gates, *(gate for verdict in asked for gate in verdict.gates)]
    beside: records.Beside = {}
    if asked:
        beside["runtimes"] = [runtime_row(verdict) for verdict in asked]
    if proof:
        beside["proof"] = proof.facts()
    audit, measured, before = certificate.audit, certificate.parity, certificate.float_parity
    return {
        "target": certificate.target,
        "passed": all(gate.passed for gate in gates),
        "gates": [_gate(gate) for gate in gates],
        "agreement": measured.agreement if measured else None,
        "bit_equal": measured.equal if measured else None,
        "worst_codes": measured.worst if measured else None,
        "mean_codes": measured.mean if measured else None,
        "against_float": to_json(before),
        "test": to_json(certificate.accuracy),
        "discordant": certificate.discordant,
        "scales": {"compared": audit.compared, "equal": audit.equal} if audit else None,
        "layers": to_json(certificate.layers),
        "residual_adds": list(certificate.adds),
        "float_operators": certificate.graph.float_operators() if audit else [],
        "operators": certificate.graph.operators(),
        "run_by": certificate.run_by,
        "notes": list(certificate.notes),
        **beside,
    }


def _gate(gate: Gate) -> records.Gate:
    return {"name": gate.name, "measured": gate.measured, "comparison": gate.comparison,
            "limit": gate.limit, "unit": gate.unit, "passed": gate.passed}  # fmt: skip


def runtime_row(verdict: Verdict) -> OnRuntime:
    """What a runtime says of a file, as JSON-ready facts."""
    answer, parity = verdict.answer, verdict.parity
    return {
        "runtime": verdict.runtime, "how": verdict.how, "passed": verdict.passed,
        "version": answer.version, "device": answer.device, "taken": answer.taken,
        "refused": list(answer.refused), "memory_bytes": dict(answer.memory_bytes),
        "cycles": answer.cycles, "error": answer.error,
        "n": parity.n if parity else None,
        "agreement": parity.agreement if parity else None,
        "equal_images": verdict.equal_images,
        "worst_codes": parity.worst if parity else None,
        "test": to_json(verdict.accuracy), "divergence": to_json(verdict.divergence),
        "compiled": list(verdict.compiled), "hint": verdict.known,
    }  # fmt: skip


def failures(facts: Facts) -> list[str]:
    """`tflite-int8: top-1 agreement 0.93, needs >= 0.99` for each gate that was not met."""
    return [
        f"{row['target']}: {gate_of(g).sentence()}"
        for row in facts["files"]
        for g in row["gates"]
        if not g["passed"]
    ]


def summary(facts: Facts) -> str:
    """`6 of 6 files verified`."""
    passed = sum(row["passed"] for row in facts["files"])
    return f"{passed} of {len(facts['files'])} files verified"

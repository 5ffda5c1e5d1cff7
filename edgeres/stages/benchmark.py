"""Benchmark: exported files and devices in, measured latency, memory and accuracy out.

A measurement belongs to a machine: the key holds each device's identity, so another machine
measures anew. `edgeres benchmark` always measures anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from edgeres import devices, door, targets
from edgeres.artifact import Artifact
from edgeres.disk import write_whole
from edgeres.errors import BadInput, DeviceError
from edgeres.plugins import Plugins
from edgeres.recipe import BenchmarkSection
from edgeres.stages import Context, _checkpoint, device_keyed, device_plugin, keyed_as_is
from edgeres.types import exported_file, to_json

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from edgeres.measurement.protocol import Candidate
    from edgeres.records import Answered, Facts, Report
    from edgeres.types import ExportedFile

VERSION = 2
LIBRARIES = ("ai-edge-litert", "onnxruntime")
VARIES = ("digest", "facts", "files")  # measured

_LATENCY_SAMPLES = 16  # different inputs, in turn


def asks(section: BenchmarkSection) -> tuple[str, ...]:
    """Every device that is measured."""
    return section.devices


def keyed(section: BenchmarkSection) -> dict[str, object]:
    """The section with what its devices are in place of their names; one away has no identity."""
    return keyed_as_is(section) | {"devices": list(map(device_keyed, section.devices))}


def plugins(section: BenchmarkSection) -> list[tuple[Plugins, str]]:
    """The kinds of its devices."""
    return list(map(device_plugin, section.devices))


def run(
    section: BenchmarkSection, inputs: Mapping[str, Artifact], out: Path, context: Context
) -> dict[str, object]:
    """Measure every export that can be run on the devices.

    Raises:
        BadInput: there are exports, but none of them can be run.
        DeviceError: a device failed; what the others measured is kept for the next time.
    """
    done = {name: context.work / f"device-{i}.json" for i, name in enumerate(section.devices)}
    missing = [name for name, path in done.items() if not path.exists()]
    facts, samples = measured(
        section.model_copy(update={"devices": tuple(missing)}), inputs, context
    )
    failed = {failure["device"] for failure in facts["failures"]}
    for name in missing:
        device = devices.load(name).name
        if device not in failed:
            mine = [r for r in facts["reports"] if r["device"] == device]
            write_whole(done[name], json.dumps([mine, samples[device]]))
    if failed:
        raise DeviceError(sentence(facts["failures"]))
    parts = {name: door.read_json(path, door.MOST_DATA) for name, path in done.items()}
    rows = [{"device": devices.load(name).name, "samples": raw} for name, (_, raw) in parts.items()]
    (out / "samples.json").write_text(json.dumps({"schema": 1, "devices": rows}), "utf-8")
    return {"reports": [report for reports, _ in parts.values() for report in reports]}


class Outcome(TypedDict):
    """What came of all devices."""

    reports: list[Report]
    failures: list[dict[str, str]]


def measured(
    section: BenchmarkSection, inputs: Mapping[str, Artifact], context: Context
) -> tuple[Outcome, dict[str, dict[str, list[list[int]]]]]:
    """Reports and failures of every device, and device -> target -> samples of each session.

    Raises:
        BadInput: there are exports, but none of them can be run on any of the devices.
    """
    from edgeres.measurement import farm, runners

    profiles = [devices.load(name) for name in section.devices]
    for profile in profiles:
        devices.require_running(profile)
    exports = [a for a in inputs.values() if a.stage == "export"]
    runnable = [a for a in exports if any(runners.of(p, _file(a)) for p in profiles)]
    if profiles and exports and not runnable:
        formats = ", ".join(sorted({_file(a).suffix for a in exports}))
        known = ", ".join(dict.fromkeys(r for p in profiles for r in p.runners))
        raise BadInput(f"nothing runs {formats} files on {', '.join(section.devices)} "
                       f"(runners: {known})")  # fmt: skip
    images = test_images(inputs["data"]) if "data" in inputs else None
    candidates = [_candidate(a, images, section.accuracy, inputs.get("model")) for a in runnable]
    found = farm.measure(
        candidates, profiles, section.preset, threads=section.threads,
        on_event=lambda note: context.tick(0, 0, note),
    )  # fmt: skip
    facts: Outcome = {"reports": [r for m in found for r in m.reports],
                      "failures": [f for m in found for f in m.failures]}  # fmt: skip
    return facts, {p.name: m.samples for p, m in zip(profiles, found, strict=True)}


def sentence(failures: list[dict[str, str]]) -> str:
    """What failed, each thing once."""
    return "; ".join(dict.fromkeys(failure["message"] for failure in failures))


def _file(artifact: Artifact) -> Path:
    return artifact.file(exported_file(artifact.facts["exported"]).file)


def test_images(data: Artifact) -> tuple[Tensor, np.ndarray]:
    """uint8 (N, 3, H, W), and their labels (N,)."""
    _, _, test = _checkpoint.splits(data)
    return test.images, test.labels.numpy()


def _candidate(
    artifact: Artifact, images: tuple[Tensor, np.ndarray] | None, accuracy: bool,
    model: Artifact | None,
) -> Candidate:  # fmt: skip
    import numpy as np

    from edgeres.measurement.protocol import Candidate

    exported = exported_file(artifact.facts["exported"])
    labels = images[1] if accuracy and images is not None else None
    if images is None:  # a file alone: any codes do for latency
        encoded = np.zeros((_LATENCY_SAMPLES, *exported.input.shape[1:]), exported.input.dtype)
    else:
        chosen = images[0] if labels is not None else images[0][:_LATENCY_SAMPLES]
        encoded = _encoded(artifact, chosen, exported)
    return Candidate(
        target=exported.target, path=_file(artifact), sha256=exported.sha256,
        size_bytes=exported.size_bytes, input=exported.input, output=exported.output,
        inputs=encoded[:_LATENCY_SAMPLES], accuracy_inputs=encoded if labels is not None else None,
        judge=partial(_judged, file=_file(artifact), exported=exported, encoded=encoded,
                      labels=labels, model=model) if labels is not None else None,
    )  # fmt: skip


def _judged(
    outputs: np.ndarray, *, file: Path, exported: ExportedFile, encoded: np.ndarray,
    labels: np.ndarray, model: Artifact | None,
) -> Answered:  # fmt: skip
    """What a device's outputs say: accuracy, and differences from this machine's and float's."""
    import numpy as np

    from edgeres.statistics import mcnemar
    from edgeres.verification.parity import compare

    if outputs.shape[:1] != labels.shape or outputs.dtype != np.dtype(exported.output.dtype):
        raise DeviceError(f"{exported.target}: the device gave {outputs.dtype} outputs of shape "
                          f"{outputs.shape} for {len(labels)} samples")  # fmt: skip
    logits = targets.decode(outputs, exported.output)
    right = logits.argmax(1) == labels
    found: Answered = {
        "correct": int(right.sum()), "n": len(labels),
        # Which samples were right, as bits, so that two measurements can be compared in pairs.
        "right": np.packbits(right).tobytes().hex(),
        "classes": logits.shape[1], "samples": hashlib.sha256(labels.tobytes()).hexdigest()[:16],
    }  # fmt: skip
    _, target = targets.of_file(file)
    session = target.session(file)
    if session is not None:
        here = np.concatenate([session.run(sample[None]) for sample in encoded])
        quantization = exported.output.quantization
        step = quantization.scale[0] if quantization else None
        host = targets.decode(here, exported.output)
        found["against_host"] = to_json(compare(host, logits, step))
    if model is not None:
        before = model.read_array("test_logits.npy").argmax(1) == labels
        lost, won = int((before & ~right).sum()), int((~before & right).sum())
        found["against_float"] = {"lost": lost, "won": won, "p": mcnemar(lost, won)}
    return found


def _encoded(artifact: Artifact, images: Tensor, exported: ExportedFile) -> np.ndarray:
    return targets.encode(_prepared(artifact, images), exported.input)


def _prepared(artifact: Artifact, images: Tensor) -> np.ndarray:
    from edgeres.training.inference import prepared
    from edgeres.types import Preprocess

    known = artifact.facts["preprocess"]
    preprocess = Preprocess(known["size_px"], tuple(known["mean"]), tuple(known["std"]))
    return prepared(images, preprocess).contiguous().numpy()


def prepared_test_images(artifacts: Mapping[str, Artifact], count: int) -> np.ndarray:
    """The first test images of a run as its networks take them: (N, 3, H, W) float32.

    Raises:
        BadInput: the run has exported nothing.
    """
    exports = [a for a in artifacts.values() if a.stage == "export"]
    if not exports:
        raise BadInput("the run has no exported files; `edgeres export` makes some")
    images, _ = test_images(artifacts["data"])
    return _prepared(exports[0], images[:count])


def summary(facts: Facts) -> str:
    """`tflite-int8 0.021 ms, …` (medians), and which of them aren't valid."""
    return ", ".join(
        f"{r['target']} {r['latency']['median_ns'] / 1e6:.3f} ms"
        + ("" if r["valid"] else f" (not valid: {r['reasons'][0]})")
        for r in facts["reports"]
    )

"""Benchmark: exported files and devices in, measured latency, memory and accuracy out.

A measurement belongs to a machine: the key holds each device's identity, so another machine
measures anew. `edgeres benchmark` always measures anew.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from edgeres import devices, targets
from edgeres.artifact import Artifact
from edgeres.errors import BadInput
from edgeres.recipe import BenchmarkSection
from edgeres.stages import Context, _checkpoint, keyed_as_is
from edgeres.types import exported_file

VERSION = 1
LIBRARIES = ("ai-edge-litert", "onnxruntime")

_LATENCY_SAMPLES = 16  # different inputs, in turn

_RUNNABLE = ("tflite", "onnx")


def keyed(section: BenchmarkSection) -> dict[str, Any]:
    """The section with the identities of the devices."""
    identities = []
    for name in section.devices:
        with devices.open_device(devices.load(name)) as device:
            identities.append(device.identity())
    return keyed_as_is(section) | {"identities": identities}


def run(
    section: BenchmarkSection, inputs: Mapping[str, Artifact], out: Path, context: Context
) -> dict[str, Any]:
    """Measure every export that the runner on a device can run (`devices/_runner.py`).

    Raises:
        BadInput: there are exports, but none of them can be run.
    """
    from edgeres.measurement import protocol

    data = inputs.get("data")
    exports = {role: a for role, a in inputs.items() if a.stage == "export"}
    images, labels = _test_images(data) if data else (None, None)
    candidates = [
        _candidate(artifact, images, labels, section.accuracy, protocol)
        for artifact in exports.values() if _format(artifact) in _RUNNABLE
    ]  # fmt: skip
    if exports and not candidates:
        formats = ", ".join(sorted(set(map(_format, exports.values()))))
        raise BadInput(f"no runtime for {formats} files on these devices; only {_RUNNABLE[0]} and "
                       f"{_RUNNABLE[1]} files can be measured")  # fmt: skip
    reports, samples = [], []
    for name in section.devices:
        with devices.open_device(devices.load(name)) as device:
            measured, raw = protocol.measure(
                candidates, device, section.preset, threads=section.threads,
                on_event=lambda note: context.tick(0, 0, note),
            )  # fmt: skip
        reports += measured
        samples.append({"device": name, "samples": raw})
    (out / "samples.json").write_text(json.dumps({"schema": 1, "devices": samples}), "utf-8")
    return {"reports": reports}


def _format(artifact: Artifact) -> str:
    return exported_file(artifact.facts["exported"]).target.split("-", 1)[0]


def _test_images(data: Artifact) -> tuple[Any, Any]:
    _, _, test = _checkpoint.splits(data)
    return test.images, test.labels.numpy()


def _candidate(artifact: Artifact, images: Any, labels: Any, accuracy: bool, protocol: Any) -> Any:
    import numpy as np

    exported = exported_file(artifact.facts["exported"])
    if images is None:  # a file alone: any codes do for latency
        shape = (_LATENCY_SAMPLES, *exported.input.shape[1:])
        encoded = np.zeros(shape, exported.input.dtype)
        accuracy = False
    else:
        encoded = _encoded(artifact, images if accuracy else images[:_LATENCY_SAMPLES], exported)
    return protocol.Candidate(
        target=exported.target, path=artifact.file(exported.file), sha256=exported.sha256,
        size_bytes=exported.size_bytes, inputs=encoded[:_LATENCY_SAMPLES],
        accuracy_inputs=encoded if accuracy else None, labels=labels if accuracy else None,
        decode=partial(targets.decode, spec=exported.output),
    )  # fmt: skip


def _encoded(artifact: Artifact, images: Any, exported: Any) -> Any:
    from edgeres.training.loop import prepared
    from edgeres.types import Preprocess

    known = artifact.facts["preprocess"]
    preprocess = Preprocess(known["size_px"], tuple(known["mean"]), tuple(known["std"]))
    return targets.encode(prepared(images, preprocess).contiguous().numpy(), exported.input)


def summary(facts: Mapping[str, Any]) -> str:
    """`tflite-int8 0.021 ms, …` (medians)."""
    return ", ".join(
        f"{r['target']} {r['latency']['median_ns'] / 1e6:.3f} ms" for r in facts["reports"]
    )

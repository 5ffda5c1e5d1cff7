"""Export: a network in, one file of one target out, read back as its runtime sees it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeres import targets
from edgeres.artifact import Artifact, file_sha256, folder_size
from edgeres.recipe import ExportSection
from edgeres.stages import Context, keyed_as_is
from edgeres.types import ExportedFile, ScaleTable, quant_params, to_json

VERSION = 1
LIBRARIES = ("torch", "torchao", "litert-torch", "ai-edge-litert", "onnx", "onnxscript",
             "onnxruntime", "coremltools")  # fmt: skip
keyed = keyed_as_is


def run(
    section: ExportSection, inputs: Mapping[str, Artifact], out: Path, context: Context
) -> dict[str, Any]:
    """Write the section's single target from the `model` input."""
    from edgeres.models import weights
    from edgeres.models.resnet import fold_batchnorm

    (name,) = section.targets
    target, precision = targets.load(name)
    origin = inputs["model"]
    model = weights.load(origin.path)
    integer = targets.is_integer(precision)
    scales = targets.scales_for(name, read_scales(origin)) if integer else None
    if not model.spec.folded:
        model = fold_batchnorm(model)
    path = out / f"{model.spec.name}-{precision}{target.SUFFIX}"
    source = targets.Source(model, scales, _metadata(model.spec.preprocess, origin))
    context.tick(0, 1, f"writing {path.name}")
    first, last = target.export(source, precision, path)
    graph = target.read(path)
    exported = ExportedFile(name, path.name, file_sha256(path), folder_size(path), first, last)
    return {
        "exported": to_json(exported),
        "preprocess": to_json(model.spec.preprocess), "operators": graph.operators(),
        "float_islands": graph.float_operators(), "partitions": graph.partitions,
    }  # fmt: skip


def read_scales(quantized: Artifact) -> ScaleTable:
    """The trained scales of a quantize artifact."""
    table = quantized.read_json("scales.json")
    return {name: params for name, data in table.items() if (params := quant_params(data))}


def _metadata(preprocess: Any, origin: Artifact) -> dict[str, str]:
    return {
        "edgeres.preprocess": json.dumps(to_json(preprocess)),
        "edgeres.origin": f"{origin.stage} {origin.digest[:16]}",
    }


def summary(facts: Mapping[str, Any]) -> str:
    """`resnet8-int8.tflite, 47.1 kB, 0 float operators`."""
    exported = facts["exported"]
    return f"{exported['file']}, {exported['size_bytes'] / 1e3:,.1f} kB"

"""Export: a network in, one file of one target out, read back as its runtime sees it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgeres import __version__, contract, runtimes, targets
from edgeres.artifact import Artifact
from edgeres.disk import file_sha256, folder_size
from edgeres.errors import BadInput
from edgeres.models import spec as specs
from edgeres.plugins import Plugins
from edgeres.recipe import ExportSection
from edgeres.runtimes._faults import FAULTS, known
from edgeres.stages import Context, keyed_as_is
from edgeres.stages._checkpoint import read_scales
from edgeres.types import (
    ExportedFile,
    Preprocess,
    exported_file,
    resize_rule,
    tensor_spec,
    to_json,
)

if TYPE_CHECKING:
    from edgeres.records import Facts

VERSION = 7
LIBRARIES = ("torch", "torchao", "litert-torch", "ai-edge-litert", "onnx", "onnxscript",
             "onnxruntime", "coremltools")  # fmt: skip


def keyed(section: ExportSection) -> dict[str, object]:
    """The section; a form that is the usual one isn't named, a compiler is, with its version."""
    document = keyed_as_is(section)
    if not section.gpu or section.targets != ("tflite-int8",):
        del document["gpu"]
    del document["npu"]
    form = targets.compiled(section.targets[0])
    if form:
        document["npu"] = {n: runtimes.identity(n) for n in section.npu if n in form.npus}
    return document


def plugins(section: ExportSection) -> list[tuple[Plugins, str]]:
    """The target, and what compiles its files."""
    (name,) = section.targets
    form = targets.compiled(name)
    return [(targets.PLUGINS, targets.format_of(name)),
            *((runtimes.PLUGINS, runtimes.module_name(n)) for n in section.npu
              if form and n in form.npus)]  # fmt: skip


def run(
    section: ExportSection, inputs: Mapping[str, Artifact], out: Path, context: Context
) -> dict[str, object]:
    """Write the section's single target from the `model` input, in a process of its own."""
    from edgeres.targets._conversion import convert

    (name,) = section.targets
    target, precision = targets.load(name)
    origin = inputs["model"]
    spec = specs.from_json(origin.read_json("spec.json"))
    integer = targets.is_integer(precision)
    if integer and section.input == "pixels":
        _require_pixels(spec.preprocess, name)
    scales = targets.scales_for(name, read_scales(origin)) if integer else None
    path = out / f"{spec.name}-{precision}{target.SUFFIX}"
    found = convert(
        origin.folder(), scales, name, path, metadata(origin, inputs["data"], section.licence),
        lambda: context.tick(0, 0, f"writing {path.name}"), section.gpu,
        section.npu,
    )  # fmt: skip
    exported = ExportedFile(
        name, path.name, file_sha256(path), folder_size(path),
        tensor_spec(found.pop("input")), tensor_spec(found.pop("output")),
    )  # fmt: skip
    data = inputs["data"].facts
    rule = resize_rule(data.get("resize"))
    document = contract.whole(spec.preprocess, rule, exported.input, data["classes"])
    (out / contract.FILE).write_text(json.dumps(document, indent=1), "utf-8")
    facts = {"exported": to_json(exported), "preprocess": to_json(spec.preprocess), **found}
    if eight := targets.stored_in_8_bits(name, scales or {}):
        facts["notes"] = [f"{name}: 4-bit weights of {eight} layers are stored in 8 bits"]
    return facts


def refuse_known_faults(made: Artifact, on: Sequence[str]) -> None:
    """Refuse a file that one of the runtimes it is meant for is known to compute wrongly.

    Raises:
        BadInput: one is; names the mend.
    """
    exported = exported_file(made.facts["exported"])
    asked = [name for name in on if any(f.runtime == name for f in FAULTS)]
    for name in asked if any(f.target == exported.target for f in FAULTS) else ():
        target, _ = targets.load(exported.target)
        if fault := known(name, exported.target, target.read(made.file(exported.file))):
            raise BadInput(f"{exported.file} is asked on {name} (verify.on) and has {fault}")


def metadata(origin: Artifact, data: Artifact, licence: str | None) -> dict[str, str]:
    """What a file says of itself.

    The origin's digest stands for everything that led to the weights: data, sections and seed.
    """
    spec = specs.from_json(origin.read_json("spec.json"))
    rule = resize_rule(data.facts.get("resize"))
    said = {
        "edgeres.version": __version__,
        "edgeres.origin": f"{origin.stage} {origin.digest[:16]}",
        "edgeres.preprocess": json.dumps(contract.noted(spec.preprocess, rule)),
        "edgeres.labels": "\n".join(data.facts["classes"]),
    }
    if "scheme" in origin.facts:
        said["edgeres.scheme"] = f"{origin.facts['method']} {origin.facts['scheme']}"
    return said | ({"edgeres.licence": licence} if licence else {})


def _require_pixels(prepared: Preprocess, name: str) -> None:
    if prepared.input_quantization() is None:
        raise BadInput(
            f"export.input: {name} can't take raw pixels: the network's images are prepared with "
            f"mean {list(prepared.mean)} and std {list(prepared.std)}, which quantize didn't put "
            "into its first layer; set quantize.input: pixels"
        )


def summary(facts: Facts) -> str:
    """`resnet8-int8.tflite, 47.1 kB, 0 float operators`."""
    exported = facts["exported"]
    return f"{exported['file']}, {exported['size_bytes'] / 1e3:,.1f} kB"

"""Report: everything a run has in, `report.json` and one self-contained `report.html` out."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeres import __version__
from edgeres.artifact import Artifact
from edgeres.recipe import ReportSection
from edgeres.recipe_yaml import dump
from edgeres.stages import Context, keyed_as_is

VERSION = 1
LIBRARIES = ("numpy",)
keyed = keyed_as_is

_NETWORKS = ("teacher", "distill", "prune", "quantize")


def run(
    section: ReportSection, inputs: Mapping[str, Artifact], out: Path, context: Context
) -> dict[str, Any]:
    """Write the report of the artifacts among the inputs; any of them may be missing."""
    from edgeres.reporting import html, ladder

    chain = list(inputs.items())
    data = inputs.get("data")
    document = ladder.build(
        [_entry(step, artifact) for step, artifact in chain],
        title=section.title or _title(inputs),
        recipe_yaml=dump({step: dict(a.section) for step, a in chain}),
        environment=_environment(inputs),
        dataset={**data.facts, "labels": _test_labels(data)} if data else {},
    )
    text = json.dumps(document, indent=1, allow_nan=False)
    (out / "report.json").write_text(text, "utf-8")
    (out / "report.html").write_text(html.render(document), "utf-8")
    return {"headline": document["headline"], "sentences": document["summary"]["sentences"]}


def _entry(step: str, artifact: Artifact) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "step": step, "key": artifact.key, "digest": artifact.digest,
        "facts": dict(artifact.facts), "seconds": artifact.seconds,
        "parents": {role: dict(parent) for role, parent in artifact.parents.items()},
        "history": None, "predictions": None,
    }  # fmt: skip
    if artifact.stage in _NETWORKS:
        lines = artifact.file("history.jsonl").read_text("utf-8").splitlines()
        entry["history"] = [json.loads(line) for line in lines] or None
        entry["predictions"] = _predictions(artifact.file("test_logits.npy"))
    elif artifact.stage == "verify":
        entry["predictions"] = {
            path.stem.removeprefix("logits-"): _predictions(path)
            for path in sorted(artifact.path.glob("logits-*.npy"))
        }
    return entry


def _predictions(path: Path) -> list[int]:
    import numpy as np

    logits = np.load(path, allow_pickle=False)
    return [int(c) for c in logits.argmax(1)]


def _test_labels(data: Artifact) -> list[int]:
    from safetensors import safe_open

    with safe_open(str(data.file("data.safetensors")), framework="numpy") as tensors:
        return [int(label) for label in tensors.get_tensor("test_y")]


def _title(inputs: Mapping[str, Artifact]) -> str:
    last = next((inputs[s] for s in reversed(_NETWORKS) if s in inputs), None)
    return f"{last.facts['model']} for the edge" if last else "edgeres"


def _environment(inputs: Mapping[str, Artifact]) -> dict[str, Any]:
    libraries: dict[str, str] = {}
    for artifact in inputs.values():
        libraries |= artifact.libraries
    return {
        "edgeres": __version__, "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "libraries": dict(sorted(libraries.items())),
    }  # fmt: skip


def summary(facts: Mapping[str, Any]) -> str:
    """The first sentence of the headline."""
    return str(next(iter(facts["sentences"]), ""))

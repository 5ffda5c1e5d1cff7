"""Report: everything a run has in, `report.json` and one self-contained `report.html` out."""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from edgeres import __version__, door
from edgeres.artifact import Artifact
from edgeres.datasets import _store
from edgeres.documents import dump
from edgeres.facts import CALIBRATION, HISTORY, SAMPLES
from edgeres.plugins import packages
from edgeres.recipe import ReportSection
from edgeres.stages import Context, _checkpoint, keyed_as_is

if TYPE_CHECKING:
    from edgeres.records import Facts
    from edgeres.reporting._document import Entry

VERSION = 5
LIBRARIES = ("numpy", "torch", "torchao", "pillow")
VARIES = ("digest", "facts", "files", "key", "parents")  # tells what was measured
keyed = keyed_as_is

_NETWORKS = ("teacher", "distill", "prune", "quantize")
_PERCENTILES = 101


def run(
    section: ReportSection, inputs: Mapping[str, Artifact], out: Path, context: Context
) -> dict[str, object]:
    """Write the report of the artifacts among the inputs; any of them may be missing."""
    from edgeres.reporting import html, ladder

    chain = list(inputs.items())
    data = inputs.get("data")
    document = ladder.build(
        [_entry(step, artifact, data) for step, artifact in chain],
        title=section.title or "edgeres",
        run=context.run,
        written_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        recipe_yaml=dump({step: dict(a.section) for step, a in chain}),
        environment=_environment(inputs),
        dataset=_dataset(data) if data else {},
        explained=_explained(inputs),
        budgets=inputs["budgets"].facts["results"] if "budgets" in inputs else (),
    )
    text = json.dumps(document, indent=1, allow_nan=False)
    (out / "report.json").write_text(text, "utf-8")
    (out / "report.html").write_text(html.render(document), "utf-8")
    return {"headline": document["headline"], "sentences": document["summary"]["sentences"]}


def _entry(step: str, artifact: Artifact, data: Artifact | None) -> Entry:
    entry: Entry = {
        "step": step, "key": artifact.key, "digest": artifact.digest,
        "facts": dict(artifact.facts), "seconds": artifact.seconds,
        "section": dict(artifact.section),
        "parents": {role: dict(parent) for role, parent in artifact.parents.items()},
        "history": None, "predictions": None, "confidences": None,
    }  # fmt: skip
    if artifact.stage in _NETWORKS:
        if artifact.has("history.jsonl"):
            entry["history"] = artifact.read_lines("history.jsonl", HISTORY) or None
        if artifact.has("test_logits.npy"):
            classes, sure = _answers(artifact, "test_logits.npy", data)
            entry["predictions"], entry["confidences"] = classes, sure
    elif artifact.stage == "verify":
        targets = [row["target"] for row in artifact.facts["files"]]
        found = {target: _answers(artifact, name, data) for target in sorted(targets)
                 if artifact.has(name := f"logits-{target}.npy")}  # fmt: skip
        entry["predictions"] = {target: classes for target, (classes, _) in found.items()}
        entry["confidences"] = {target: sure for target, (_, sure) in found.items()}
    elif artifact.stage == "benchmark":
        entry["samples"] = _percentiles(artifact)
    return entry


def _answers(artifact: Artifact, name: str, data: Artifact | None) -> tuple[list[int], list[float]]:
    """The class of each test image, and its softmax probability; 0 where that is no number."""
    import numpy as np

    known = _checkpoint.answers(artifact, data, name) if data else artifact.read_array(name)
    logits = known.astype(np.float64)
    sure = 1 / np.exp(logits - logits.max(1, keepdims=True)).sum(1)
    return logits.argmax(1).tolist(), np.nan_to_num(sure).tolist()


def _percentiles(artifact: Artifact) -> dict[str, dict[str, list[float]]]:
    """Device -> target -> the percentiles 0 to 100 of all sessions' inferences, in ns."""
    import numpy as np

    found: dict[str, dict[str, list[float]]] = {}
    for row in artifact.read_json("samples.json", SAMPLES, door.MOST_DATA)["devices"]:
        for target, sessions in (row.get("samples") or {}).items():
            pooled = [ns for session in sessions for ns in session]
            if pooled:
                points = np.percentile(pooled, np.linspace(0, 100, _PERCENTILES))
                found.setdefault(row["device"], {})[target] = points.round(1).tolist()
    return found


def _dataset(data: Artifact) -> Facts:
    """Facts of the data, its test labels, and which training images calibrated."""
    from safetensors import safe_open

    manifest = data.read_json("calibration.json", CALIBRATION)
    path = data.file(_store.FILE)
    with _store.reading(path), safe_open(str(path), framework="numpy") as tensors:
        test, train = (tensors.get_tensor(f"{s}_y").tolist() for s in ("test", "train"))
    drawn = Counter(train[sample["index"]] for sample in manifest["samples"])
    names = data.facts["classes"]
    listed = {"samples": manifest["samples"],
              "per_class": {name: drawn[i] for i, name in enumerate(names)}}  # fmt: skip
    return {**data.facts, "labels": test, "manifest": listed}


def _explained(inputs: Mapping[str, Artifact]) -> Facts | None:
    """Where the first and the last network look; None if they are one and the same."""
    chain = [inputs[step] for step in _NETWORKS
             if step in inputs and inputs[step].has("spec.json")]  # fmt: skip
    if len(chain) < 2 or "data" not in inputs:
        return None
    from edgeres.compression.graph import quantized_graph
    from edgeres.models import weights
    from edgeres.reporting import gradcam
    from edgeres.stages._checkpoint import read_scales

    first, last = chain[0], chain[-1]
    models = [weights.load(artifact.folder()) for artifact in (first, last)]
    runs = [gradcam.of_network(model) for model in models]
    if last.stage == "quantize":
        graph = quantized_graph(models[1], read_scales(last), fold_weights=True)
        runs[1] = gradcam.of_graph(graph)
    answers = [_checkpoint.answers(a, inputs["data"]) for a in (first, last)]
    _, _, test = _checkpoint.splits(inputs["data"])
    found = gradcam.compared((runs[0], models[0]), (runs[1], models[1]), answers, test.images,
                             test.labels.tolist())  # fmt: skip
    return {"first": first.stage, "second": last.stage, **found}


def _environment(inputs: Mapping[str, Artifact]) -> dict[str, object]:
    libraries: dict[str, str] = {}
    for artifact in inputs.values():
        libraries |= artifact.libraries
    others = packages(plugin for artifact in inputs.values() for plugin in artifact.plugins)
    return {
        "edgeres": __version__, "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "libraries": dict(sorted(libraries.items())),
        **({"plugins": others} if others else {}),
    }  # fmt: skip


def summary(facts: Facts) -> str:
    """The first sentence of the headline."""
    return str(next(iter(facts["sentences"]), ""))

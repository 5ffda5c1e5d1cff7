"""The report as one JSON document: a run's artifacts flow in, everything `html` draws flows out.

Pure: nothing is read, written or run here. The document holds shares as 0 to 1, differences in
percentage points (negative is worse), times in ns, sizes in bytes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgeres.reporting import _answers, _headline, _measured, _next, _rungs
from edgeres.reporting._rungs import Rung

if TYPE_CHECKING:
    from edgeres.records import Certified, Facts, Gate, Judged
    from edgeres.reporting._document import (
        Certificate,
        Entry,
        Evidence,
        Network,
        PerClass,
        Report,
        Step,
        Summarized,
        Verification,
    )

SCHEMA = 1


def build(
    artifacts: Sequence[Entry],
    *,
    title: str,
    recipe_yaml: str,
    environment: Mapping[str, object],
    dataset: Facts,
    explained: Facts | None = None,
    budgets: Sequence[Judged] = (),
    run: str = "",
    written_at: str = "",
) -> Report:
    """Assemble `report.json`.

    Args:
        artifacts: every artifact of the run in the chain's order (the `report` itself left out);
            any of them may be missing. Each is

                {"step": "data" | "teacher" | ... | "export:tflite-int8" | "verify" | "benchmark",
                 "key": str, "digest": str, "facts": {...},       # as in artifact.json
                 "seconds": float | None,                         # how long the step took
                 "section": {...},                                # of the recipe
                 "parents": {role: {"stage", "key", "digest"}},   # as in artifact.json
                 "history": [row, ...] | None,                    # networks: rows of history.jsonl
                 "predictions": ...,                              # see below
                 "confidences": ...,         # as predictions: softmax of the class, 0 to 1
                 "samples": {device: {target: [ns, ...]}}}        # benchmark: 101 percentiles

            `predictions` are classes by argmax on the test set, in the order of the labels: a list
            of int for teacher, distill, prune and quantize, {target: list of int} for verify. A
            list shorter than the labels covers the first images. Only step, key, digest and facts
            must be there.
        title: the name of the run or recipe.
        recipe_yaml: the resolved recipe, shown as it is.
        environment: what the run was made with (nested dicts of plain values).
        dataset: facts of the data artifact, and `"labels"`: the test labels as a list of int.
            Without labels there are no paired comparisons and no accuracy per class. Its
            `"manifest"` says which training images calibrated: `samples` and `per_class`.
        explained: maps of two networks side by side, as `gradcam.compared` returns them, with
            "first" and "second" saying which networks.
        budgets: limits and what was measured, as rows of `measurement.budgets.Result`.
        run, written_at: the run's name, and when this is assembled (ISO 8601).

    Returns:
        {"schema", "title", "run", "written_at", "headline" (a few sentences), "summary" (the
        numbers behind them), "ladder", "files", "devices", "verification", "training", "data",
        "per_class", "confusion", "reliability", "distributions", "explained", "budgets",
        "notes" (what was assumed, left out or replaced, by step), "next" (what limits accuracy,
        latency and size, each with a command), "environment", "lineage",
        "networks" (inside the int8 files), "recipe"}. What the run
        doesn't have is None or empty. Strict JSON: numbers that aren't finite become None.
    """
    by_step = {artifact["step"]: artifact for artifact in artifacts}
    labels = dataset.get("labels")
    rungs = _rungs.rungs(artifacts)
    classes = dataset.get("classes") or []
    known: Evidence = {
        "schema": SCHEMA, "title": title, "run": run, "written_at": written_at,
        "ladder": _ladder(rungs, labels),
        "files": _measured.files(rungs, by_step),
        "devices": _measured.devices(by_step),
        "verification": _verification(by_step),
        "training": [
            {"step": r.step, "label": r.label, "detail": r.detail, "rows": history}
            for r in rungs if (history := by_step[r.step].get("history"))
        ],
        "data": {name: value for name, value in dataset.items() if name != "labels"},
        "per_class": _per_class(rungs, labels, classes),
        "confusion": _answers.confusion(rungs, labels, classes),
        "reliability": _answers.reliability(rungs, labels, _confidences(artifacts)),
        "distributions": _measured.distributions(by_step),
        "explained": explained, "budgets": list(budgets),
        "notes": [
            {"step": a["step"], "note": words}
            for a in artifacts for words in a["facts"].get("notes") or ()
        ],
        "environment": dict(environment),
        "lineage": [
            {"step": a["step"], "key": a["key"], "digest": a["digest"], "seconds": a.get("seconds"),
             "parents": sorted({p["digest"] for p in (a.get("parents") or {}).values()})}
            for a in artifacts
        ],
        "networks": _networks(artifacts),
        "recipe": recipe_yaml,
    }  # fmt: skip
    numbers = _headline.summary(known, rungs, labels)
    sentences = numbers["sentences"] = _headline.sentences(numbers)
    told: Summarized = {**known, "summary": numbers}
    report: Report = {
        **told,
        "next": _next.rows(told, {a["step"]: a.get("section") or {} for a in artifacts}),
        "headline": " ".join(sentences),
    }
    finite: Report = _finite(report)
    return finite


def _ladder(rungs: Sequence[Rung], labels: Sequence[int] | None) -> list[Step]:
    by_step = {rung.step: rung for rung in rungs}
    first = rungs[0] if rungs and rungs[0].kind == "network" else None
    rows: list[Step] = []
    for rung in rungs:
        previous = by_step.get(rung.previous or "")
        rows.append({
            "step": rung.step, "kind": rung.kind, "label": rung.label, "detail": rung.detail,
            "precision": rung.precision, "accuracy": _rungs.accuracy(rung.correct, rung.n),
            "accuracy_on": rung.accuracy_on, "claimed": rung.claimed,
            "against_previous": _rungs.change(previous, rung, labels) if previous else None,
            "against_first": _rungs.change(first, rung, labels)
            if first and rung is not first else None,
            "parameters": rung.parameters, "macs": rung.macs, "size_bytes": rung.size_bytes,
        })  # fmt: skip
    return rows


def _verification(by_step: Mapping[str, Entry]) -> Verification | None:
    facts = _rungs.facts(by_step, "verify")
    if not facts:
        return None
    return {"passed": facts["passed"], "files": [_certified(row) for row in facts["files"]]}


def _certified(row: Certified) -> Certificate:
    return {
        "target": row["target"], "passed": row["passed"], "gates": _own_gates(row),
        "scales": row.get("scales"), "float_operators": row.get("float_operators"),
        "notes": row.get("notes"), "test": row.get("test"),
        "against_float": row.get("against_float"), "discordant": row.get("discordant"),
        "residual_adds": row.get("residual_adds"), "layers": row.get("layers"),
        "run_by": row.get("run_by"), "runtimes": row.get("runtimes"), "proof": row.get("proof"),
    }  # fmt: skip


def _own_gates(row: Certified) -> list[Gate]:
    """A file's gates without those of other runtimes, which have a table of their own."""
    asked = tuple(f"{found['runtime']}: " for found in row.get("runtimes") or ())
    return [gate for gate in row["gates"] if not gate["name"].startswith(asked)]


def _confidences(artifacts: Sequence[Entry]) -> dict[str, Sequence[float]]:
    """Step -> how sure each prediction was."""
    found: dict[str, Sequence[float]] = {}
    for artifact in artifacts:
        known = artifact.get("confidences") or ()
        if isinstance(known, Mapping):  # verification ran several files
            found |= {f"export:{target}": sure for target, sure in known.items()}
        elif known:
            found[artifact["step"]] = known
    return found


def _networks(artifacts: Sequence[Entry]) -> list[Network]:
    """What is inside each int8 file."""
    found: list[Network] = []
    for artifact in artifacts:
        facts = artifact["facts"]
        target = (facts.get("exported") or {}).get("target", "")
        if "graph" not in facts or _rungs.precision_of(target) != "int8":
            continue
        graph = facts["graph"]
        share, floats = graph["integer_share"]["macs"], len(graph["float_operators"])
        words = f"{share:.0%} of multiply-accumulates in integers, {floats} float operators"
        if graph["requires"]:
            words += f", runs from {graph['requires']} on"
        found.append({"target": target, "summary": words, "layers": graph["layers"]})
    return found


def _per_class(
    rungs: Sequence[Rung], labels: Sequence[int] | None, classes: Sequence[str]
) -> PerClass | None:
    """Accuracy per true class of every rung whose predictions are known."""
    known = [rung for rung in rungs if rung.predictions]
    if not known or not labels or max(labels) >= len(classes):
        return None
    counts = Counter(labels)
    return {
        "classes": list(classes), "counts": [counts[index] for index in range(len(classes))],
        "rungs": [{"step": r.step, "label": r.label,
                   "recall": _rungs.recall(r, labels, len(classes))} for r in known],
    }  # fmt: skip


def _finite(value: Any) -> Any:
    """A copy with None for NaN and infinities, which strict JSON doesn't have."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value

"""Rungs: every network and exported file from the teacher on, with its accuracy.

Facts of artifacts flow in; rungs flow out, and what one rung gained or lost against another on the
same images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeres.statistics import mcnemar, paired_difference, wilson

if TYPE_CHECKING:
    from edgeres.records import Certified, Counted, Facts, Measured
    from edgeres.reporting._document import Accuracy, Change, Entry

NETWORKS = ("teacher", "distill", "prune", "quantize")
_LABELS = {"distill": "Student", "prune": "Pruned"}
BUILD_MACHINE = "build machine"
INTEGER = ("int8", "int4")
"""Precisions whose files are those of the quantized network."""
_PRECISIONS = ("fp32", "fp16", *INTEGER)


@dataclass(frozen=True)
class Rung:
    """One step of the ladder.

    Attributes:
        step: the step that made it; `previous` is the step it was made from.
        kind: "network" or "file".
        label: what the report calls it; `detail` is the model's or the file's name.
        precision: "fp32", "fp16", "int8", "int4", or None where the target's name doesn't tell.
        correct, n: test accuracy; None where it never ran.
        accuracy_on: "build machine", or the device where accuracy was measured.
        predictions: class per test image, in the labels' order; may cover the first ones only.
        size_bytes: of a file on disk, or of a network's parameters as float32; None for a quantized
            network, which is no file yet.
        claimed: top-1 that a teacher's publisher states, 0 to 1.
    """

    step: str
    previous: str | None
    kind: str
    label: str
    detail: str
    precision: str | None
    correct: int | None
    n: int | None
    accuracy_on: str
    predictions: Sequence[int] | None
    parameters: int | None
    macs: int | None
    size_bytes: int | None
    claimed: float | None = None


def rungs(artifacts: Sequence[Entry]) -> list[Rung]:
    """Every network and exported file of a run, in order."""
    by_step = {a["step"]: a for a in artifacts}
    found: dict[str, Rung] = {}
    for artifact in artifacts:
        step = artifact["step"]
        if step in NETWORKS:
            found[step] = _network(artifact, list(found)[-1] if found else None, by_step)
        elif step.startswith("export:"):
            found[step] = _file(artifact, _origin(artifact, by_step, found), by_step)
    return list(found.values())


def accuracy(correct: int | None, n: int | None) -> Accuracy | None:
    """Top-1 as a share with its 95 % Wilson interval; None if nothing was counted."""
    if correct is None or not n:
        return None
    low, high = wilson(correct, n)
    return {"correct": correct, "n": n, "top1": correct / n, "low": low, "high": high}


def change(first: Rung, second: Rung, labels: Sequence[int] | None) -> Change | None:
    """What `second` gained (positive) or lost (negative) against `first`, in percentage points.

    With the predictions of both, image by image: `n` pairs, 95 % interval, exact McNemar p-value,
    and how many images only one of them got right. Otherwise the bare difference.
    """
    if first.predictions and second.predictions and labels:
        pairs = [(a == y, b == y) for a, b, y in
                 zip(first.predictions, second.predictions, labels, strict=False)]  # fmt: skip
        lost, gained, n = pairs.count((True, False)), pairs.count((False, True)), len(pairs)
        low, high = paired_difference(lost, gained, n)
        return {
            "step": first.step, "label": first.label, "points": 100 * (gained - lost) / n,
            "n": n, "low": 100 * low, "high": 100 * high, "p": mcnemar(lost, gained),
            "lost": lost, "gained": gained,
        }  # fmt: skip
    if first.correct is None or second.correct is None or not first.n or not second.n:
        return None
    points = 100 * (second.correct / second.n - first.correct / first.n)
    return {"step": first.step, "label": first.label, "points": points, "n": None, "low": None,
            "high": None, "p": None, "lost": None, "gained": None}  # fmt: skip


def recall(rung: Rung, labels: Sequence[int], classes: int) -> list[Accuracy | None]:
    """Accuracy per true class; None for a class without images."""
    counts = [[0, 0] for _ in range(classes)]
    for predicted, label in zip(rung.predictions or (), labels, strict=False):
        counts[label][0] += predicted == label
        counts[label][1] += 1
    return [accuracy(correct, n) for correct, n in counts]


def precision_of(target: str) -> str | None:
    """`int8` of `tflite-int8`."""
    ending = target.rsplit("-", 1)[-1]
    return ending if ending in _PRECISIONS else None


def verified(by_step: Mapping[str, Entry], target: str) -> Certified | None:
    """The verification row of a target."""
    rows: Sequence[Certified] = facts(by_step, "verify").get("files", ())
    return next((row for row in rows if row["target"] == target), None)


def device_reports(by_step: Mapping[str, Entry]) -> list[Measured]:
    """All device reports of the run."""
    return list(facts(by_step, "benchmark").get("reports", ()))


def facts(by_step: Mapping[str, Entry], step: str) -> Facts:
    """The facts of a step; none where the run doesn't have it."""
    entry = by_step.get(step)
    return entry["facts"] if entry else {}


def _network(artifact: Entry, previous: str | None, by_step: Mapping[str, Entry]) -> Rung:
    step, facts, predicted = artifact["step"], artifact["facts"], artifact.get("predictions")
    test, parameters = facts.get("test") or {}, facts.get("parameters")
    quantized = step == "quantize"
    if step == "teacher":
        label = "Teacher" if "distill" in by_step else "Original"
    else:
        label = facts.get("method", "quantized").upper() if quantized else _LABELS[step]
    return Rung(
        step, previous, "network", label, facts.get("model", ""), "int8" if quantized else "fp32",
        test.get("correct"), test.get("n"), BUILD_MACHINE,
        None if isinstance(predicted, Mapping) else predicted, parameters, facts.get("macs"),
        None if quantized or parameters is None else 4 * parameters, facts.get("claimed"),
    )  # fmt: skip


def _file(artifact: Entry, origin: Rung | None, by_step: Mapping[str, Entry]) -> Rung:
    exported = artifact["facts"]["exported"]
    target = exported["target"]
    test, where = _file_accuracy(target, by_step)
    verify = by_step.get("verify")
    answers = verify.get("predictions") if verify else None
    predictions = answers.get(target) if isinstance(answers, Mapping) else None
    return Rung(
        artifact["step"], origin.step if origin else None, "file", target, exported["file"],
        precision_of(target), test["correct"] if test else None, test["n"] if test else None,
        where, predictions,
        origin.parameters if origin else None, origin.macs if origin else None,
        exported["size_bytes"],
    )  # fmt: skip


def _file_accuracy(target: str, by_step: Mapping[str, Entry]) -> tuple[Counted | None, str]:
    """What verification counted, else what the first device counted that ran the whole test set."""
    row = verified(by_step, target)
    if row and (test := row.get("test")):
        return test, BUILD_MACHINE
    for report in device_reports(by_step):
        if report["target"] == target and (test := report.get("accuracy")):
            return test, report["device"]
    return None, ""


def _origin(
    artifact: Entry,
    by_step: Mapping[str, Entry],
    found: Mapping[str, Rung],
) -> Rung | None:
    """The network a file was written from: by its parent's digest, else by its precision."""
    parent = (artifact.get("parents") or {}).get("model", {}).get("digest")
    networks = [rung for rung in found.values() if rung.kind == "network"]
    for rung in networks:
        if parent is not None and by_step[rung.step].get("digest") == parent:
            return rung
    integer = precision_of(artifact["facts"]["exported"]["target"]) in INTEGER
    fitting = [rung for rung in networks if (rung.step == "quantize") == integer]
    return fitting[-1] if fitting else None

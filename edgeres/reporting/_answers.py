"""What the networks answered on the test set: confusion and calibration error.

Rungs, labels and confidences flow in; rows of the document flow out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from edgeres.reporting._rungs import Rung
from edgeres.statistics import calibration_error

if TYPE_CHECKING:
    from edgeres.reporting._document import Bin, Confused, Confusion, Reliability

_WHOLE = 20  # classes up to which the whole matrix is kept
_PAIRS = 20


def confusion(
    rungs: Sequence[Rung], labels: Sequence[int] | None, classes: Sequence[str]
) -> Confusion | None:
    """Answers by true class: the whole matrix of few classes, the commonest mistakes of many.

    Returns:
        {"classes", "rungs": [{"step", "label", "n", "matrix": rows by true class or None,
        "mistakes": [[true, answered, count], ...]}]}; None where predictions or labels lack.
    """
    known = [rung for rung in rungs if rung.predictions]
    if not known or not labels or max(labels) >= len(classes):
        return None
    return {"classes": list(classes),
            "rungs": [_confused(rung, labels, len(classes)) for rung in known]}  # fmt: skip


def _confused(rung: Rung, labels: Sequence[int], classes: int) -> Confused:
    pairs = Counter(zip(labels, rung.predictions or (), strict=False))
    matrix = None
    if classes <= _WHOLE:
        matrix = [[pairs[t, a] for a in range(classes)] for t in range(classes)]
    wrong = sorted((-n, pair) for pair, n in pairs.items() if pair[0] != pair[1])
    return {"step": rung.step, "label": rung.label, "n": sum(pairs.values()), "matrix": matrix,
            "mistakes": [[*pair, -n] for n, pair in wrong[:_PAIRS]]}  # fmt: skip


def reliability(
    rungs: Sequence[Rung], labels: Sequence[int] | None,
    confidences: Mapping[str, Sequence[float]],
) -> list[Reliability]:  # fmt: skip
    """Expected calibration error of each rung whose confidences are known, and its bins."""
    found: list[Reliability] = []
    for rung in rungs:
        sure, predicted = confidences.get(rung.step), rung.predictions
        if sure and predicted and labels:
            right = [p == y for p, y in zip(predicted, labels, strict=False)]
            error, bins = calibration_error(list(sure)[: len(right)], right)
            held: list[Bin] = [
                {"low": b.low, "high": b.high, "n": b.n, "confidence": b.confidence,
                 "accuracy": b.accuracy} for b in bins if b.n
            ]  # fmt: skip
            found.append({"step": rung.step, "label": rung.label, "n": len(right), "ece": error,
                          "bins": held})  # fmt: skip
    return found

"""What a longer training might reach, from runs that differ in their epochs only.

    edgeres run RECIPE --until distill --set distill.train.epochs=4    # and 8, and 16
    .venv/bin/python benchmarks/extrapolate.py RUN RUN RUN --epochs 100 [--stage distill]

An extrapolation, not a measurement. Two forms of the test error are fitted to whole schedules (each
run's learning rate went all the way down): a power of the epochs, `b E^-c`, which knows no floor
and so promises much, and `a + b / E`, which has one. Fitted by least squares, many times to
accuracies drawn anew from the test set's binomial noise; printed are medians and the middle 95 %.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import numpy as np

from edgeres import runs

_DRAWS = 4000


def main() -> None:
    """Read the runs, fit, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--stage", default="distill")
    given = parser.parse_args()
    found = sorted(_point(runs.open_run(path), given.stage) for path in given.runs)
    for epochs, correct, n in found:
        print(f"{epochs:>4} epochs: {correct / n:.2%}, n = {n:,}")
    if len({epochs for epochs, *_ in found}) < 2:
        raise SystemExit("give runs of at least two different numbers of epochs")
    random = np.random.default_rng(0)
    epochs, correct, n = (np.array(column, float) for column in zip(*found, strict=True))
    draws = random.binomial(n.astype(int), correct / n, (_DRAWS, len(n))) / n
    for name, fit in (("b E^-c", _power), ("a + b / E", _floor)):
        reached = [1 - fit(epochs, 1 - drawn, given.epochs) for drawn in draws]
        low, high = np.percentile(reached, [2.5, 97.5])
        print(f"{name:>10}: {statistics.median(reached):.1%} ({low:.1%}-{high:.1%}) "
              f"after {given.epochs} epochs")  # fmt: skip


def _point(run: runs.Run, stage: str) -> tuple[int, int, int]:
    """Epochs, correct answers, test images."""
    (artifact,) = (a for name, a in run.artifacts.items() if name == stage)
    test = artifact.facts["test"]
    return getattr(run.recipe, stage).train.epochs, test["correct"], test["n"]


def _power(epochs: np.ndarray, error: np.ndarray, at: int) -> float:
    slope, start = np.polyfit(np.log(epochs), np.log(error), 1)
    return float(np.exp(start + slope * np.log(at)))


def _floor(epochs: np.ndarray, error: np.ndarray, at: int) -> float:
    slope, start = np.polyfit(1 / epochs, error, 1)
    return float(start + slope / at)


if __name__ == "__main__":
    main()

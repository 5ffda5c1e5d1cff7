"""Files timed in one process, in short bursts that take turns: ratios hold while the pace changes.

A shared machine's pace may change by half within a second. Sessions of seconds then differ by their
moment more than by their file; bursts of milliseconds, in turn, meet the same pace.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from edgeres import targets

_WARMUP_ROUNDS = 3
_BURST_S = 0.01
_LEAST_RUNS = 5


def session(path: Path) -> SimpleNamespace:
    """A file of any tool, ready to run: `logits(x)` and `once()`, in the file's own types."""
    _, target = targets.of_file(path)
    graph = target.read(path)
    loaded = target.session(path)
    assert loaded is not None

    def logits(x: np.ndarray) -> np.ndarray:
        outputs = loaded.run(targets.encode(x, graph.input))
        return targets.decode(outputs, graph.output)

    one = np.zeros((1, *graph.input.shape[1:]), graph.input.dtype)
    return SimpleNamespace(graph=graph, logits=logits, once=lambda: loaded.run(one))


def in_turn(files: Mapping[str, SimpleNamespace], rounds: int) -> dict[str, list[float]]:
    """Milliseconds per round (the median of a burst) of each file, in random order."""
    times: dict[str, list[float]] = {name: [] for name in files}
    shuffle = random.Random(0)
    for done in range(_WARMUP_ROUNDS + rounds):
        for name in shuffle.sample(list(files), len(files)):
            burst = _burst(files[name].once)
            if done >= _WARMUP_ROUNDS:
                times[name].append(burst)
    return times


def ratio(a: Sequence[float], b: Sequence[float]) -> tuple[float, float, float]:
    """Median over rounds of a / b, and the middle 95 % of 2,000 bootstrap samples of the rounds."""
    ratios = np.array(a) / np.array(b)
    sample = np.random.default_rng(0).choice(ratios, (2000, len(ratios)))
    low, high = np.percentile(np.median(sample, 1), [2.5, 97.5])
    return float(np.median(ratios)), float(low), float(high)


def _burst(once: Callable[[], object]) -> float:
    spent: list[int] = []
    while len(spent) < _LEAST_RUNS or sum(spent) < 1e9 * _BURST_S:
        begin = time.perf_counter_ns()
        once()
        spent.append(time.perf_counter_ns() - begin)
    return float(np.median(spent)) / 1e6

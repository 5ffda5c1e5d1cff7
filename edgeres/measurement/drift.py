"""Drift: what a device logged and what the test set looked like in, a verdict out.

A log is JSON lines, one per inference that was sampled, with no image in it:

    {"top1": 3, "confidence": 0.93, "mean": 0.41, "std": 0.22, "saturated": 0.01}

top1 is the class, confidence its softmax probability; mean and std are those of the input's pixels
and saturated the share of them at either end of their range, all in units of the pixel's range.

Each feature's distance from the test set is held against the distances of as many samples drawn
from the test set itself, so that the threshold fits the length of the log.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgeres.disk import open_regular, require_regular
from edgeres.errors import BadInput

if TYPE_CHECKING:
    import numpy as np

FEATURES = ("top1", "confidence", "mean", "std", "saturated")
FALSE_ALARMS = 0.01
"""How often a log of the test set's own distribution is to be flagged, over all features."""
SHORTEST = 50
_DRAWS = 2000
_MOST = 1e9
_MAX_BYTES = 256 * 1024 * 1024
_MAX_LINES = 200_000


@dataclass(frozen=True)
class Distance:
    """One feature of a log against the test set.

    Attributes:
        distance: top1: total variation between the shares of classes; others: Kolmogorov-Smirnov.
        threshold: what the test set's own samples stay below.
    """

    feature: str
    distance: float
    threshold: float

    @property
    def drifted(self) -> bool:
        """Whether the log is further away than chance."""
        return self.distance > self.threshold


def features(images: np.ndarray, logits: np.ndarray) -> dict[str, list[float]]:
    """What a device would log of these inferences.

    Args:
        images: (N, ...) uint8 pixels.
        logits: (N, C) float.
    """
    import numpy as np

    pixels = images.reshape(len(images), -1).astype(np.float64) / 255
    shifted = logits - logits.max(1, keepdims=True)
    confidence = 1 / np.exp(shifted).sum(1)
    found = {
        "top1": logits.argmax(1), "confidence": confidence, "mean": pixels.mean(1),
        "std": pixels.std(1), "saturated": ((pixels == 0) | (pixels == 1)).mean(1),
    }  # fmt: skip
    return {name: [round(float(v), 5) for v in values] for name, values in found.items()}


def read_log(path: Path) -> dict[str, list[float]]:
    """A device's log.

    Raises:
        BadInput: it can't be read, a line isn't one of a log, or it is too short to say anything.
    """
    found: dict[str, list[float]] = {name: [] for name in FEATURES}
    for number, row in _lines(path):
        for name in FEATURES:
            value = row.get(name)
            kinds = (int,) if name == "top1" else (int, float)
            most = _MOST if name == "top1" else 1.0001
            if (
                not isinstance(value, (int, float)) or type(value) not in kinds
                or not (math.isfinite(value) and 0 <= value <= most)
            ):  # fmt: skip
                raise BadInput(f"{path}:{number}: {name} is missing or not what a log has "
                               "(docs/bundles.md)")  # fmt: skip
            found[name].append(float(value))
    n = len(found["top1"])
    if n < SHORTEST:
        raise BadInput(f"{path}: {n} inferences say nothing about drift; log {SHORTEST} or more")
    return found


def is_feature(values: object) -> bool:
    """Whether something read from a file is a list of finite numbers."""
    return isinstance(values, list) and all(
        type(value) in (int, float) and abs(value) <= _MOST for value in values
    )


@dataclass(frozen=True)
class Reference:
    """What logs of one length are held against.

    Attributes:
        known: feature -> values of the half of the test set that stands for what is known.
        thresholds: feature -> the largest distance that is still chance.
    """

    known: Mapping[str, np.ndarray]
    thresholds: Mapping[str, float]

    def judge(self, log: Mapping[str, Sequence[float]]) -> list[Distance]:
        """How far a log is from the test set, feature by feature."""
        import numpy as np

        return [
            Distance(name, _MEASURES[name](self.known[name], np.asarray(log[name], float)), limit)
            for name, limit in self.thresholds.items()
        ]


def learn(baseline: Mapping[str, Sequence[float]], n: int, seed: int = 0) -> Reference:
    """The reference for logs of n inferences.

    The test set is halved: one half stands for what is known, logs of that length are drawn from
    the other, and the threshold is what those stay below but for `FALSE_ALARMS` in all (Bonferroni
    over the features).
    """
    import numpy as np

    random = np.random.default_rng(seed)
    order = random.permutation(len(baseline["top1"]))
    source = order[1::2]
    draws = random.choice(source, (_DRAWS, n))
    level = 1 - FALSE_ALARMS / len(FEATURES)
    known, thresholds = {}, {}
    for name in FEATURES:
        values = np.asarray(baseline[name], float)
        known[name] = np.sort(values[order[::2]])
        chance = [_MEASURES[name](known[name], values[draw]) for draw in draws]
        thresholds[name] = float(np.quantile(chance, level))
    return Reference(known, thresholds)


def judge(
    baseline: Mapping[str, Sequence[float]], log: Mapping[str, Sequence[float]], seed: int = 0
) -> list[Distance]:
    """How far a log is from the test set, feature by feature (see `learn`)."""
    return learn(baseline, len(log["top1"]), seed).judge(log)


def _kolmogorov(known: np.ndarray, sample: np.ndarray) -> float:
    """The largest gap between two empirical distribution functions; `known` is sorted."""
    import numpy as np

    points, ordered = np.concatenate([known, sample]), np.sort(sample)
    a = np.searchsorted(known, points, "right") / len(known)
    b = np.searchsorted(ordered, points, "right") / len(ordered)
    return float(np.abs(a - b).max())


def _shares(known: np.ndarray, sample: np.ndarray) -> float:
    """Half the summed differences of the classes' shares."""
    import numpy as np

    classes = np.union1d(known, sample)
    shares = ((x[:, None] == classes).mean(0) for x in (known, sample))
    a, b = shares
    return float(np.abs(a - b).sum() / 2)


_MEASURES = {name: _shares if name == "top1" else _kolmogorov for name in FEATURES}


def _lines(path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    require_regular(path, _MAX_BYTES)
    try:
        with open_regular(path) as raw, io.TextIOWrapper(raw, "utf-8") as file:
            for number, line in enumerate(file, 1):
                if number > _MAX_LINES:
                    raise BadInput(f"{path}: over {_MAX_LINES} lines; sample fewer inferences")
                if not line.strip():
                    continue
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise BadInput(f"{path}:{number}: not a JSON object")
                yield number, row
    except OSError as error:
        raise BadInput(f"{path}: can't be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path}: not JSON lines ({type(error).__name__})") from error

"""Drift: shifts are flagged, the same distribution isn't, and a wrong log gets one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from edgeres.errors import BadInput
from edgeres.measurement import drift


class Camera:
    """Digits as 8-bit images, and a real classifier that answers them."""

    def __init__(self) -> None:
        digits = load_digits()
        self.pixels = np.minimum(digits.images * 16, 255).astype(np.uint8)
        self.labels = digits.target
        self.model = LogisticRegression(max_iter=2000).fit(self._flat(self.pixels[:600]),
                                                           self.labels[:600])  # fmt: skip
        self.test = np.arange(600, 1797)

    def _flat(self, pixels: np.ndarray) -> np.ndarray:
        return pixels.reshape(len(pixels), -1) / 255

    def log(self, pixels: np.ndarray) -> dict[str, list[float]]:
        return drift.features(pixels, self.model.decision_function(self._flat(pixels)))


@pytest.fixture(scope="module")
def camera() -> Camera:
    return Camera()


def flagged(found: list[drift.Distance]) -> set[str]:
    return {d.feature for d in found if d.drifted}


def test_independent_samples_are_seldom_flagged(
    camera: Camera, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drift, "_DRAWS", 400)
    random = np.random.default_rng(1)
    alarms = 0
    for _ in range(60):
        mixed = random.permutation(camera.test)
        known, fresh = camera.pixels[mixed[:800]], camera.pixels[mixed[800:]]
        log = camera.log(fresh[random.choice(len(fresh), 150, replace=False)])
        alarms += bool(flagged(drift.judge(camera.log(known), log)))
    assert alarms <= 4  # 1 % expected: P(more than 4 of 60) < 0.1 %


def test_shifts_are_flagged_and_named(camera: Camera) -> None:
    random = np.random.default_rng(2)
    mixed = random.permutation(camera.test)
    known, fresh = camera.log(camera.pixels[mixed[:800]]), mixed[800:]
    pixels, labels = camera.pixels[fresh], camera.labels[fresh]
    brighter = np.minimum(pixels.astype(int) + 40, 255).astype(np.uint8)
    assert {"mean"} <= flagged(drift.judge(known, camera.log(brighter)))
    few = pixels[np.isin(labels, (0, 1, 2, 3, 4, 5))]
    assert "top1" in flagged(drift.judge(known, camera.log(few)))
    noise = random.integers(0, 256, pixels.shape).astype(np.uint8)
    assert {"mean", "std"} <= flagged(drift.judge(known, camera.log(noise)))


def write(path: Path, rows: list) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


GOOD = {"top1": 3, "confidence": 0.9, "mean": 0.4, "std": 0.2, "saturated": 0}


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([GOOD] * 10, "say nothing about drift"),
        ([GOOD] * 60 + [{**GOOD, "mean": 2}], ":61: mean"),
        ([GOOD] * 60 + [{**GOOD, "top1": 1.5}], ":61: top1"),
        ([GOOD] * 60 + [{**GOOD, "std": float("nan")}], ":61: std"),
        ([GOOD] * 60 + [{"top1": 3}], ":61: confidence"),
        ([GOOD] * 60 + [{**GOOD, "top1": True}], ":61: top1"),
        ([[1]], "not a JSON object"),
    ],
)
def test_a_wrong_log_gets_one_sentence(rows: list, says: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput) as error:
        drift.read_log(write(tmp_path / "log.jsonl", rows))
    assert says in str(error.value)
    assert len(drift.read_log(write(tmp_path / "log.jsonl", [GOOD] * 60))["mean"]) == 60

"""What a report says of made-up sessions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeres.measurement import protocol, verdict
from edgeres.measurement.protocol import Candidate
from edgeres.measurement.runners import Session
from edgeres.types import TensorSpec

STATE = {"emulated": False, "cores": 2, "busy_cores": 0.1, "throttle_count": 0}


def report(sessions: list[list[int]]) -> dict:
    spec = TensorSpec("x", (1, 4), "float32", "NC")
    file = Candidate("a", Path("a.onnx"), "0" * 64, 1, spec, spec, np.zeros((1, 4)))
    events = [Session({"name": "onnxruntime"}, ns, load_ns=8, first_ns=9, settled=True)
              for ns in sessions]  # fmt: skip
    return verdict.report(file, events, protocol.PRESETS["quick"], STATE, STATE, None)


@pytest.mark.parametrize("counts", [[100] * 5, [1000, 1000, 10, 10, 10], [10, 10, 10, 10, 9000]])
def test_the_headline_lies_in_its_interval_however_many_queries_a_session_made(
    counts: list[int],
) -> None:
    levels = [700, 702, 710, 720, 724]
    latency = report([[ns] * n for ns, n in zip(levels, counts, strict=True)])["latency"]
    assert latency["median_ns"] == 710
    assert latency["median_ci_ns"] == [700, 724]  # five sessions: their whole range
    assert latency["n"] == sum(counts)


def test_the_interval_is_as_wide_as_the_sessions_disagree() -> None:
    noisy = np.random.default_rng(0).integers(90, 110, size=(8, 2000))
    shifted = noisy + 100 * np.arange(8)[:, None]
    low, high = report(shifted.tolist())["latency"]["median_ci_ns"]
    # second to seventh would cover 93 % only: P(Binomial(8, 1/2) < 2) = 3.5 % at each end
    assert (low, high) == (np.median(shifted[0]), np.median(shifted[7]))

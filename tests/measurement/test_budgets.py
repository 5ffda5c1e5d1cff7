"""Budgets: pass, fail and not measurable, and what is wrong with a file of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edgeres.errors import BadInput
from edgeres.measurement import budgets

REPORT = {
    "target": "tflite-int8", "device": "host", "size_bytes": 62_000,
    "latency": {"median_ns": 2e6, "p95_ns": 3e6, "p99_ns": None, "sessions": 6,
                "session_medians_ns": [2e6] * 6},
    "cold": {"load_ns": [4e6, 5e6, 9e6], "first_ns": [1e6, 1e6, 2e6]},
    "memory": {"peak_rss_bytes": 50_000_000}, "energy": None,
    "accuracy": {"correct": 970, "n": 1000, "against_float": {"lost": 12, "won": 2, "p": 0.01}},
}  # fmt: skip


@pytest.mark.parametrize(
    ("measure", "limit", "value", "verdict"),
    [
        ("latency_median_ms", 2.0, 2.0, "pass"),
        ("latency_p95_ms", 2.9, 3.0, "fail"),
        ("latency_p99_ms", 9.0, None, "not measurable"),
        ("cold_start_ms", 6.0, 6.0, "pass"),
        ("memory_mb", 49.0, 50.0, "fail"),
        ("size_kb", 62.0, 62.0, "pass"),
        ("energy_mj", 1.0, None, "not measurable"),
        ("accuracy", 0.97, 0.97, "pass"),
        ("accuracy_drop_points", 0.9, 1.0, "fail"),
        ("agreement", 0.99, 0.985, "fail"),
    ],
)
def test_each_measure(measure: str, limit: float, value: float | None, verdict: str) -> None:
    wanted = [budgets.Budget(measure, limit, "tflite-int8", None)]
    (result,) = budgets.check(wanted, [REPORT], {"tflite-int8": 0.985, "onnx-int8": 1.0})
    assert result.value == (None if value is None else pytest.approx(value))
    assert result.verdict == verdict


def test_what_wasnt_measured_fails_unless_allowed() -> None:
    wanted = [budgets.Budget("latency_median_ms", 1, None, "pixel-8")]
    (result,) = budgets.check(wanted, [REPORT], {})
    assert (result.verdict, result.device) == ("not measurable", "pixel-8")
    assert budgets.check(wanted, [REPORT], {}, ["latency_median_ms"]) == []
    (result,) = budgets.check([budgets.Budget("latency_median_ms", 9, None, None)],
                              [{**REPORT, "emulated": True}], {})  # fmt: skip
    assert result.verdict == "not measurable"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("budgets: []", "are lists"), ("[1]", "keys `budgets`"), ("budgets: [1]", "a mapping of"),
        ("budgets: [{latency_p95: 1}]", "did you mean 'latency_p95_ms'"),
        ("budgets: [{size_kb: big}]", "size_kb must be a number"),
        ("budgets: [{size_kb: true}]", "size_kb must be a number"),
        ("budgets: [{target: 3, size_kb: 1}]", "target must be text"),
        ("budgets: [{target: x}]", "without a limit"), ("budgets: [", "not valid YAML"),
        ("budgets: [{size_kb: 1}]\nallow_unmeasurable: [speed]", "unknown measure"),
        ("budgets: !!python/object/apply:os.system [true]", "not valid YAML"),
    ],
)  # fmt: skip
def test_a_wrong_file_gets_one_sentence(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "budgets.yaml"
    path.write_text(text)
    with pytest.raises(BadInput, match=r"budgets\.yaml") as error:
        budgets.load(path)
    assert says in str(error.value)


def test_the_command(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(json.dumps({"reports": [REPORT]}))
    for limit, code in ((100, 0), (50, 1)):
        (tmp_path / "b.yaml").write_text(
            f"budgets: [{{size_kb: {limit}, energy_mj: 1}}]\nallow_unmeasurable: [energy_mj]\n"
        )
        done = subprocess.run(
            [sys.executable, "-m", "edgeres", "check", "r.json", "b.yaml"],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        assert f"{1 - code} of 1 budgets met" in done.stdout

"""When B is called better, the same, or worse than A."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import in_process
import numpy as np
import pytest
from measuring import linear

from edgeres.errors import BadInput
from edgeres.measurement import protocol
from edgeres.measurement.compare import Tolerance, compare
from edgeres.measurement.runners import Preset


def report(
    medians: list[float], right: list[bool] | None = None, target: str = "tflite-int8",
    size: int = 1000, device: str = "host",
) -> dict:  # fmt: skip
    accuracy = None
    if right is not None:
        accuracy = {"correct": sum(right), "n": len(right), "samples": "same",
                    "right": np.packbits(right).tobytes().hex()}  # fmt: skip
    return {"device": device, "target": target, "size_bytes": size, "accuracy": accuracy,
            "latency": {"median_ns": sorted(medians)[len(medians) // 2],
                        "session_medians_ns": medians, "sessions": len(medians)}}  # fmt: skip


def verdicts(a: dict, b: dict) -> dict[str, str]:
    return {row.measure: row.verdict for row in compare([a], [b], Tolerance())}


NOISY = [100.0, 102, 97, 108, 101, 99]


@pytest.mark.parametrize(
    ("factor", "says"), [(1.0, "same"), (1.04, "same"), (1.5, "worse"), (0.6, "better")]
)
def test_latency_counts_beyond_chance_and_tolerance(factor: float, says: str) -> None:
    b = report([factor * ns for ns in NOISY])
    assert verdicts(report(NOISY), b)["latency"] == says


def test_one_disturbed_session_doesnt_make_a_file_slower() -> None:
    assert verdicts(report(NOISY), report([*NOISY[:5], 900.0]))["latency"] == "same"


@pytest.mark.parametrize("slow", [0.0, 0.4])
def test_noise_alone_is_the_same(slow: float) -> None:
    """One file measured twice: sessions scatter by 10 %, or two in five take twice as long."""
    random = np.random.default_rng(1)

    def sessions() -> dict:
        factor = np.where(random.random(6) < slow, 2.0, 1.0)
        return report((100 * factor * np.exp(0.1 * random.standard_normal(6))).tolist())

    assert {verdicts(sessions(), sessions())["latency"] for _ in range(40)} == {"same"}


def test_a_slower_file_is_seen_through_noise() -> None:
    random = np.random.default_rng(2)
    found = [
        verdicts(*(report((factor * np.exp(0.05 * random.standard_normal(6))).tolist())
                   for factor in (100.0, 125.0)))["latency"] for _ in range(20)
    ]  # fmt: skip
    assert found.count("worse") >= 18 and "better" not in found


def test_accuracy_is_judged_in_pairs() -> None:
    n = 1000
    a = [i % 10 != 0 for i in range(n)]
    few_lost = [ok and i % 50 != 1 for i, ok in enumerate(a)]  # 20 lost, none won
    as_many_won = [not ok if i % 50 in (1, 10) else ok for i, ok in enumerate(a)]
    assert verdicts(report(NOISY, a), report(NOISY, few_lost))["top-1"] == "worse"
    assert verdicts(report(NOISY, few_lost), report(NOISY, a))["top-1"] == "better"
    rows = compare([report(NOISY, a)], [report(NOISY, as_many_won)], Tolerance())
    (row,) = [r for r in rows if r.measure == "top-1"]
    assert (row.verdict, row.change) == ("same", 0.0)
    assert "20 lost, 20 won of 1000" in row.evidence
    other = report(NOISY, few_lost)
    other["accuracy"]["samples"] = "others"  # unpaired: 20 of 1000 could be chance
    assert verdicts(report(NOISY, a), other)["top-1"] == "same"


def test_sizes_are_exact_and_emulated_times_dont_count() -> None:
    assert verdicts(report(NOISY), report(NOISY, size=1009))["size"] == "same"
    assert verdicts(report(NOISY), report(NOISY, size=1011))["size"] == "worse"
    assert verdicts(report(NOISY), {**report(NOISY), "emulated": True}) == {"size": "same"}


def test_files_are_matched_by_target_or_as_each_ones_only_file() -> None:
    floats, ints = report(NOISY, target="tflite-fp32"), report(NOISY)
    assert {r.b_target for r in compare([floats], [ints], Tolerance())} == {"tflite-int8"}
    both = compare([floats, ints], [ints, report(NOISY, target="onnx-int8")], Tolerance())
    assert {(r.a_target, r.b_target) for r in both} == {("tflite-int8", "tflite-int8")}
    with pytest.raises(BadInput, match="nothing to compare"):
        compare([floats], [report(NOISY, device="phone")], Tolerance())


def edgeres(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "edgeres", *map(str, arguments)], cwd=cwd,
                          capture_output=True, text=True, check=False)  # fmt: skip


def test_the_command_has_an_exit_code_for_ci(tmp_path: Path) -> None:
    for name, reports in (
        ("a", [report(NOISY)]), ("b", [report([2 * ns for ns in NOISY])]), ("bad", [{}]),
    ):  # fmt: skip
        (tmp_path / f"{name}.json").write_text(json.dumps({"reports": reports}))
    same = edgeres("compare", "a.json", "a.json", cwd=tmp_path)
    assert (same.returncode, same.stderr) == (0, "")
    assert "A and B are the same" in same.stdout
    worse = edgeres("compare", "a.json", "b.json", "--markdown", cwd=tmp_path)
    assert worse.returncode == 1
    assert "| tflite-int8 | host | latency |" in worse.stdout
    assert edgeres("compare", "a.json", "b.json", "--latency", "1.5", cwd=tmp_path).returncode == 0
    bad = edgeres("compare", "a.json", "bad.json", cwd=tmp_path)
    assert bad.returncode == 2
    assert "bad.json: not a result of" in bad.stderr


def test_two_files_are_measured_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(protocol.PRESETS, "quick", Preset(16, 0.01, 1.0, 0.1, sessions=2))
    linear(tmp_path / "a.onnx", 1.0)
    linear(tmp_path / "b.onnx", 2.0)
    line = ("a.onnx", "b.onnx", "--preset", "quick", "--json")
    done = in_process.edgeres("compare", *line, cwd=tmp_path)
    result = json.loads(done.stdout)
    assert {r["measure"] for r in result["rows"]} == {
        "latency", "load", "first inference", "memory", "size",
    }  # fmt: skip
    assert [r["verdict"] for r in result["rows"] if r["measure"] == "size"] == ["same"]

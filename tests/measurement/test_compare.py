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

from edgeres.commands import files
from edgeres.commands.compare import compared
from edgeres.errors import BadInput
from edgeres.measurement import protocol
from edgeres.measurement.compare import Tolerance, compare, left_out
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


def verdicts(a: dict, b: dict, **tolerated: float) -> dict[str, str]:
    return {row.measure: row.verdict for row in compare([a], [b], Tolerance(**tolerated))}


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
    (row,) = [r for r in compare([report(NOISY, a)], [report(NOISY, few_lost)], Tolerance())
              if r.measure == "top-1"]  # fmt: skip
    assert row.change == pytest.approx(-2.0) and row.interval and row.interval[1] < 0  # points
    assert verdicts(report(NOISY, a), report(NOISY, few_lost), accuracy=2.5)["top-1"] == "same"
    unknown = report(NOISY, few_lost)
    unknown["accuracy"]["samples"] = None  # unpaired: 20 of 1000 could be chance
    assert verdicts(report(NOISY, a), unknown)["top-1"] == "same"


@pytest.mark.parametrize(
    "change",
    [{"samples": "others"}, {"classes": 100}, {"n": 10, "right": "ffc0", "correct": 10}],
)
def test_accuracies_of_different_tests_are_not_compared(change: dict) -> None:
    right = [True] * 1000
    a, b = report(NOISY, right), report(NOISY, right)
    a["accuracy"]["classes"] = b["accuracy"]["classes"] = 10
    assert verdicts(a, b)["top-1"] == "same"
    b["accuracy"] |= change
    (row,) = [r for r in compare([a], [b], Tolerance()) if r.measure == "top-1"]
    assert (row.verdict, row.change) == (
        "not measurable",
        None,
    ) and "different test" in row.evidence


def test_what_only_one_has_is_said() -> None:
    a, b = report(NOISY, [True] * 8), report(NOISY)
    assert left_out([a], [b]) == ["tflite-int8: top-1 isn't compared: B has none"]
    said = left_out([a, report(NOISY, target="onnx-int8", device="pi")], [a])
    assert said == ["only A has onnx-int8 on pi"]


def test_an_invalid_measurement_is_not_judged_unless_allowed() -> None:
    slow = report([2 * ns for ns in NOISY]) | {"valid": False, "reasons": ["throttled"]}
    slow |= {"cold": {"load_ns": [9, 9, 9]}, "energy": {"joules_per_inference": 2.0}}
    fast = report(NOISY) | {"cold": {"load_ns": [3, 3, 3]}, "energy": {"joules_per_inference": 1.0}}
    assert verdicts(fast, slow) == {"latency": "not measurable", "load": "not measurable",
                                    "energy": "not measurable", "size": "same"}  # fmt: skip
    (row, *_) = compare([fast], [slow], Tolerance())
    assert row.evidence == "B: not valid (throttled)"
    allowed = {r.measure: r.verdict for r in compare([fast], [slow], Tolerance(), True)}
    assert allowed == {"latency": "worse", "load": "worse", "energy": "worse", "size": "same"}


def test_every_measure_has_a_tolerance() -> None:
    def whole(factor: float, right: list[bool]) -> dict:
        return report([factor * ns for ns in NOISY], right, size=round(1000 * factor)) | {
            "cold": {"load_ns": [factor * 3] * 6, "first_ns": [factor * 4] * 6},
            "memory": {"peak_rss_bytes": factor * 1e6},
            "energy": {"joules_per_inference": factor},
        }  # fmt: skip

    a, b = whole(1, [True] * 1000), whole(1.3, [i >= 100 for i in range(1000)])
    assert set(verdicts(a, b).values()) == {"worse"}
    names = {
        "latency": "latency", "load": "cold", "first inference": "cold", "peak RSS": "memory",
        "energy": "energy", "size": "size", "top-1": "accuracy",
    }  # fmt: skip
    assert set(verdicts(a, b)) == set(names)
    for option in set(names.values()):
        found = verdicts(a, b, **{option: 50 if option == "accuracy" else 0.5})
        assert {m for m, v in found.items() if v == "same"} == {
            m for m in names if names[m] == option
        }


def test_one_session_has_no_interval_and_a_batch_is_no_inference() -> None:
    alone, six = report([100.0]), report(NOISY)
    (row, *_) = compare([six], [alone], Tolerance())
    assert row.interval is None and "one session" in row.evidence
    eight, one = report(NOISY), report(NOISY)
    eight["latency"]["batch"] = 8
    assert "latency per batch of 8" in verdicts(eight, eight)
    assert verdicts(eight, one)["latency"] == "not measurable"


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
        "latency", "load", "first inference", "peak RSS", "size",
    }  # fmt: skip
    assert [r["verdict"] for r in result["rows"] if r["measure"] == "size"] == ["same"]
    assert any("top-1 isn't compared: A and B have none" in note for note in result["notes"])
    assert (done.returncode == 1) == (result["verdict"] in ("worse", "not measurable"))


def test_three_files_take_turns_in_one_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A, which both others are judged against, isn't measured once for each."""
    monkeypatch.setitem(protocol.PRESETS, "quick", Preset(16, 0.01, 1.0, 0.1, sessions=2))
    names = [str(linear(tmp_path / f"{name}.onnx", 1.0)) for name in "abc"]
    asked, measured = [], files._measured
    monkeypatch.setattr(files, "_measured", lambda *a: (asked.append(a), measured(*a))[1])
    found = compared(names, Tolerance(), ["host"], "quick", tmp_path, True)
    assert len(asked) == 1
    assert [(p["a"], p["b"]) for p in found["pairs"]] == [(names[0], n) for n in names[1:]]
    first, second = (pair["subjects"]["a"] for pair in found["pairs"])
    assert first == second and len(first) == 1

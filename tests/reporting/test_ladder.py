"""report.json: what is compared with what, and what may be said about it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edgeres.reporting.ladder import build
from edgeres.statistics import mcnemar, wilson

Report = dict[str, Any]


def rung(report: Report, step: str) -> Report:
    return next(row for row in report["ladder"] if row["step"] == step)


def artifact(run: Report, step: str) -> Report:
    return next(a for a in run["artifacts"] if a["step"] == step)


def keep(run: Report, *steps: str) -> Report:
    return run | {"artifacts": [a for a in run["artifacts"] if a["step"] in steps]}


def test_rungs_stand_in_order_with_interval_cost_and_size(report: Report) -> None:
    labels = [row["label"] for row in report["ladder"]]
    assert labels[:4] == ["Teacher", "Student", "Pruned", "QAT"]
    assert labels[4:] == ["tflite-fp32", "tflite-int8", "coreml-int8"]
    low, high = wilson(196, 200)
    assert rung(report, "teacher")["accuracy"] == {
        "correct": 196, "n": 200, "top1": 0.98, "low": low, "high": high}  # fmt: skip
    assert rung(report, "teacher")["size_bytes"] == 4 * 272_474
    assert rung(report, "quantize")["size_bytes"] is None
    assert rung(report, "export:tflite-int8")["size_bytes"] == 57_912
    assert rung(report, "export:tflite-int8")["macs"] == 1_855_808
    assert rung(report, "export:coreml-int8")["accuracy"] is None


def test_a_file_is_compared_with_the_network_it_was_written_from(report: Report) -> None:
    float_file, int8_file = rung(report, "export:tflite-fp32"), rung(report, "export:tflite-int8")
    assert float_file["against_previous"]["step"] == "prune"
    assert int8_file["against_previous"]["step"] == "quantize"
    assert int8_file["against_first"]["step"] == "teacher"


def test_without_parents_the_precision_tells_the_origin(run: Report) -> None:
    for found in run["artifacts"]:
        found.pop("parents", None)
    report = build(**run)
    assert rung(report, "export:tflite-fp32")["against_previous"]["step"] == "prune"
    assert rung(report, "export:tflite-int8")["against_previous"]["step"] == "quantize"


def test_changes_are_paired_image_by_image(report: Report) -> None:
    change = rung(report, "export:tflite-int8")["against_first"]
    assert (change["lost"], change["gained"], change["n"]) == (9, 0, 200)
    assert change["points"] == pytest.approx(-4.5)
    assert change["p"] == pytest.approx(mcnemar(9, 0))
    assert change["low"] < -4.5 < change["high"] < 0


def test_shorter_predictions_compare_the_first_images_only(run: Report) -> None:
    verify = artifact(run, "verify")
    verify["predictions"]["tflite-int8"] = verify["predictions"]["tflite-int8"][:50]
    verify["facts"]["files"][1]["test"] = {"correct": 37, "n": 50}
    change = rung(build(**run), "export:tflite-int8")["against_first"]
    assert (change["n"], change["lost"], change["points"]) == (50, 9, pytest.approx(-18))


def test_without_labels_a_change_is_a_bare_difference(run: Report) -> None:
    del run["dataset"]["labels"]
    report = build(**run)
    change = rung(report, "export:tflite-int8")["against_first"]
    assert change["points"] == pytest.approx(-4.5)
    assert change["p"] is None
    assert change["low"] is None
    assert report["per_class"] is None
    assert "not compared image by image" in report["headline"]


def test_headline_of_a_loss(report: Report) -> None:
    said = report["headline"].replace("\u202f", " ").replace("\u00a0", " ")
    assert "resnet20 (1.09 MB of float32 parameters) became tflite-int8 (57.9 kB): 18.8× smaller" \
        in said  # fmt: skip
    assert "47.3 µs (median) on host, 2.1× faster than tflite-fp32 (2.00–2.17×)" in said
    assert "classifies 93.5 % of 200 test images correctly (95 % interval 89.2–96.2 %)" in said
    assert "−4.5 points against resnet20, a measurable loss" in said
    assert "p = 0.0039" in said
    assert "All 3 files passed verification (coreml-int8: structure and scales only, not run)" \
        in said  # fmt: skip


def test_headline_within_the_noise(run: Report) -> None:
    teacher = artifact(run, "teacher")
    teacher["predictions"] = artifact(run, "prune")["predictions"]
    teacher["facts"]["test"] = {"correct": 190, "n": 200}
    said = build(**run)["headline"]
    assert "within the noise of n=200 test images" in said
    assert "measurable" not in said


@pytest.mark.parametrize(("int8_ns", "said"), [
    (97_000, "a difference in speed to tflite-fp32 could not be measured"),
    (150_000, "slower than tflite-fp32"),
])  # fmt: skip
def test_no_speed_up_is_claimed_where_there_is_none(run: Report, int8_ns: int, said: str) -> None:
    latency = artifact(run, "benchmark")["facts"]["reports"][1]["latency"]
    latency |= {"median_ns": int8_ns, "median_ci_ns": [int8_ns * 0.99, int8_ns * 1.01],
                "session_medians_ns": [int8_ns]}  # fmt: skip
    headline = build(**run)["headline"]
    assert said in headline
    assert "faster" not in headline


def test_a_slow_session_takes_the_speed_up_away(run: Report) -> None:
    latency = artifact(run, "benchmark")["facts"]["reports"][1]["latency"]
    latency["session_medians_ns"].append(99_000)
    assert "faster" not in build(**run)["headline"]


def test_an_emulated_device_has_no_times_at_all(run: Report) -> None:
    for found in artifact(run, "benchmark")["facts"]["reports"]:
        found |= {"emulated": True, "valid": True, "reasons": ["emulated processor"]}
    report = build(**run)
    for row in report["files"][:2]:
        assert row["status"] == "emulated"
        assert row["latency"] is row["load_ns"] is row["first_ns"] is row["peak_rss_bytes"] is None
    assert report["summary"]["latency"] is None
    assert "One answer takes" not in report["headline"]


def test_an_invalid_measurement_stays_out_of_the_headline(run: Report) -> None:
    artifact(run, "benchmark")["facts"]["reports"][1] |= {"valid": False, "reasons": ["throttled"]}
    report = build(**run)
    row = report["files"][1]
    assert (row["status"], row["reasons"]) == ("invalid", ["throttled"])
    assert row["latency"]["median_ns"] == 47_300
    assert report["summary"]["latency"] is None
    assert "The latency measured on host is not valid: throttled." in report["headline"]


def test_memory_is_the_peak_and_load_the_median(report: Report) -> None:
    row = report["files"][1]
    assert (row["peak_rss_bytes"], row["load_ns"], row["first_ns"]) == (41_400_000, 8e5, 3e5)


def test_a_file_that_failed_is_named_and_is_not_the_product(run: Report) -> None:
    files = artifact(run, "verify")["facts"]["files"]
    files[1] |= {"passed": False}
    report = build(**run)
    assert "2 of 3 files passed verification; do not ship tflite-int8" in report["headline"]
    assert report["summary"]["product"]["label"] == "coreml-int8"


def test_accuracy_on_the_device_is_used_where_verification_could_not_run(run: Report) -> None:
    reports = artifact(run, "benchmark")["facts"]["reports"]
    counted = {"correct": 180, "n": 200}
    reports.append(reports[1] | {"target": "coreml-int8", "device": "phone", "accuracy": counted})
    row = rung(build(**run), "export:coreml-int8")
    assert (row["accuracy"]["correct"], row["accuracy"]["n"]) == (180, 200)
    assert row["accuracy_on"] == "phone"


def test_calibration_on_test_images_is_called_out(run: Report) -> None:
    run["dataset"]["calibration"]["overlap_with_test"] = 7
    assert "7 calibration images are also test images" in build(**run)["headline"]


def test_per_class_counts(report: Report) -> None:
    found = report["per_class"]
    assert found["counts"] == [50, 50, 50, 50]
    teacher = found["rungs"][0]
    assert [row["correct"] for row in teacher["recall"]] == [49, 49, 49, 49]


def test_lineage_names_every_artifact(report: Report) -> None:
    assert [row["step"] for row in report["lineage"]][:3] == ["data", "teacher", "distill"]
    int8 = next(row for row in report["lineage"] if row["step"] == "export:tflite-int8")
    assert int8["parents"] == ["quantize-digest"]


def test_what_is_not_finite_becomes_none_and_the_rest_is_strict_json(run: Report) -> None:
    artifact(run, "teacher")["history"][1]["loss"] = float("nan")
    artifact(run, "verify")["facts"]["files"][0]["gates"][0]["measured"] = float("inf")
    report = build(**run)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert report["training"][0]["rows"][1]["loss"] is None


def test_the_input_is_left_as_it_was(run: Report) -> None:
    before = json.dumps(run)
    build(**run)
    assert json.dumps(run) == before


@pytest.mark.parametrize("steps", [
    (), ("data",), ("data", "teacher"), ("teacher", "prune"), ("teacher", "export:tflite-fp32"),
    ("teacher", "quantize", "export:tflite-int8"), ("benchmark",), ("verify",),
    ("export:tflite-int8", "verify", "benchmark"),
])  # fmt: skip
def test_parts_of_a_run_are_runs_too(run: Report, steps: tuple[str, ...]) -> None:
    report = build(**keep(run, *steps))
    assert report["headline"]
    assert len(report["lineage"]) == len(steps)


def test_a_lone_float_network_is_not_called_a_teacher(run: Report) -> None:
    report = build(**keep(run, "teacher", "prune"))
    assert report["ladder"][0]["label"] == "Original"
    assert "verified" not in report["headline"]


def test_files_without_verification_are_called_unverified(run: Report) -> None:
    report = build(**keep(run, "teacher", "quantize", "export:tflite-int8"))
    assert report["headline"].endswith("The files were not verified.")

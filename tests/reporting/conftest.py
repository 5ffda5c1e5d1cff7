"""A small finished run as the report gets it: facts as the stages write them."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from edgeres.reporting.ladder import build

N = 200
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9"
    "awAAAABJRU5ErkJggg=="
)
LABELS = [i % 4 for i in range(N)]


def answers(wrong: range) -> list[int]:
    """Predictions that are right except for the images in `wrong`."""
    return [(y + 1) % 4 if i in wrong else y for i, y in enumerate(LABELS)]


def network(step: str, wrong: range, **facts: Any) -> dict[str, Any]:
    """A checkpoint artifact with its history and predictions."""
    rows = [{"epoch": e, "loss": 2.0 / e, "learning_rate": 0.1, "validation_top1": 1 - 0.5 / e}
            for e in (1, 2, 3)]  # fmt: skip
    basics = {"model": "resnet8", "parameters": 78_042, "macs": 3_125_888,
              "test": {"correct": N - len(wrong), "n": N}, "epochs": 3}  # fmt: skip
    return {"step": step, "key": f"{step}-key", "digest": f"{step}-digest", "seconds": 8.5,
            "facts": basics | facts, "history": rows, "predictions": answers(wrong),
            "confidences": [0.6 if i in wrong else 0.95 for i in range(N)]}  # fmt: skip


def export(target: str, size: int, origin: str) -> dict[str, Any]:
    """An export artifact."""
    exported = {"target": target, "file": f"resnet8-{target}.bin", "sha256": "00",
                "size_bytes": size, "input": {}, "output": {}}  # fmt: skip
    parents = {"model": {"stage": origin, "key": f"{origin}-key", "digest": f"{origin}-digest"}}
    return {"step": f"export:{target}", "key": "k", "digest": f"{target}-digest",
            "facts": {"exported": exported}, "parents": parents}  # fmt: skip


def verdict(target: str, correct: int | None, *, passed: bool = True) -> dict[str, Any]:
    """A verification row; `correct` None: its runtime doesn't exist here."""
    gate = {"name": "top-1 agreement", "measured": 0.995 if passed else 0.42, "comparison": ">=",
            "limit": 0.99, "unit": "", "passed": passed}  # fmt: skip
    ran = correct is not None
    return {"target": target, "passed": passed, "gates": [gate] if ran else [],
            "agreement": gate["measured"] if ran else None, "worst_codes": 1.0 if ran else None,
            "test": {"correct": correct, "n": N} if ran else None, "float_operators": [],
            "scales": {"compared": 25, "equal": 25} if "int8" in target else None,
            "notes": [] if ran else ["structure and scales only"]}  # fmt: skip


def measured(target: str, median_ns: int, **changes: Any) -> dict[str, Any]:
    """A device report."""
    latency = {"n": 3200, "sessions": 5, "median_ns": median_ns, "p90_ns": median_ns * 1.1,
               "median_ci_ns": [median_ns * 0.99, median_ns * 1.01],
               "session_medians_ns": [median_ns * f for f in (0.98, 1.0, 1.02)]}  # fmt: skip
    return {"target": target, "device": "host", "size_bytes": 9, "threads": 1, "preset": "quick",
            "latency": latency, "cold": {"load_ns": [9e5, 7e5, 8e5], "first_ns": [3e5]},
            "memory": {"peak_rss_bytes": 41_400_000, "baseline_rss_bytes": 40_000_000,
                       "definition": "VmHWM"},
            "accuracy": None, "state_before": {"cpu_model": "Cortex-A76", "emulated": False},
            "runtime": {"name": "ai-edge-litert", "version": "2.3.0"}, "valid": True,
            "reasons": [], "emulated": False, "measured_at": "2026-11-21T07:30:00+00:00",
            } | changes  # fmt: skip


@pytest.fixture
def run() -> dict[str, Any]:
    """The arguments of `build` for a complete run; a test may change its own copy."""
    verify = {
        "step": "verify", "key": "v", "digest": "v-digest",
        "facts": {"passed": True, "files": [
            verdict("tflite-fp32", 190), verdict("tflite-int8", 187), verdict("coreml-int8", None)
        ]},
        "predictions": {"tflite-fp32": answers(range(10)), "tflite-int8": answers(range(13))},
    }  # fmt: skip
    benchmark = {
        "step": "benchmark",
        "key": "b",
        "digest": "b-digest",
        "facts": {"reports": [measured("tflite-fp32", 98_400), measured("tflite-int8", 47_300)]},
        "samples": {"host": {"tflite-fp32": [98_000.0 + 20 * i for i in range(101)],
                             "tflite-int8": [47_000.0 + 9 * i for i in range(101)]}},
    }  # fmt: skip
    data = {"step": "data", "key": "d", "digest": "d-digest", "facts": {}, "seconds": 3.9}
    return copy.deepcopy({
        "artifacts": [
            data,
            network("teacher", range(4), model="resnet20", parameters=272_474, macs=10_203_776),
            network("distill", range(8)),
            network("prune", range(10), parameters=43_098, macs=1_855_808),
            network("quantize", range(12), parameters=42_858, macs=1_855_808, method="qat"),
            export("tflite-fp32", 185_176, "prune"), export("tflite-int8", 57_912, "quantize"),
            export("coreml-int8", 79_380, "quantize"), verify, benchmark,
        ],
        "title": "quickstart", "recipe_yaml": "version: 1\nname: quickstart\n",
        "environment": {"python": "3.11.9", "libraries": {"torch": "2.13.0"}},
        "dataset": {
            "name": "digits", "classes": ["zero", "one", "two", "three"], "size_px": 16,
            "counts": {"train": 800, "validation": 80, "test": N}, "labels": LABELS,
            "fingerprints": {"test": "f" * 64},
            "calibration": {"count": 256, "split": "train", "overlap_with_test": 0,
                            "sha256": "a" * 64},
            "manifest": {"samples": [{"index": 7, "sha256": "b" * 64}],
                         "per_class": {"zero": 1, "one": 0, "two": 0, "three": 0}},
        },
        "explained": {
            "first": "teacher", "second": "quantize", "n": N, "differ": 8, "samples": [
                {"index": 5, "label": 1, "image": PIXEL,
                 "first": {"class": 1, "confidence": 0.9, "map": PIXEL},
                 "second": {"class": 2, "confidence": 0.7, "map": PIXEL}},
            ],
        },
        "budgets": [
            {"measure": "latency_p90_ms", "target": "tflite-int8", "device": "host", "limit": 0.1,
             "value": 0.052, "verdict": "pass"},
            {"measure": "energy_mj", "target": "tflite-int8", "device": "host", "limit": 1.0,
             "value": None, "verdict": "not measurable"},
        ],
    })  # fmt: skip


@pytest.fixture
def report(run: dict[str, Any]) -> dict[str, Any]:
    """The document of the complete run."""
    return build(**run)

"""Budgets of a recipe: checked from the run's own artifacts; a miss fails the run at its end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeres import pipeline, recipe
from edgeres.artifact import Artifact
from edgeres.errors import BadInput, GateFailed
from edgeres.pipeline import _performing
from edgeres.runs import Run
from edgeres.stages import Context, budgets

MEASURED = {
    "target": "tflite-int8", "device": "host", "size_bytes": 62_000, "emulated": False,
    "latency": {"median_ns": 2e6, "p95_ns": 3e6}, "accuracy": None,
}  # fmt: skip


def artifact(stage: str, facts: dict) -> Artifact:
    return Artifact(stage, "key", "digest", Path(), {}, {}, facts, {}, 0.0)


INPUTS = {
    "benchmark": artifact("benchmark", {"reports": [MEASURED]}),
    "verify": artifact("verify", {"files": [
        {"target": "tflite-int8", "agreement": 0.985}, {"target": "coreml-int8", "agreement": None},
    ]}),
}  # fmt: skip


def loaded(text: str) -> recipe.Recipe:
    return recipe.load("quickstart", [f"budgets={text}"])


def run(limits: str, out: Path) -> dict:
    section = loaded(f"{{limits: [{limits}]}}").budgets
    assert section is not None
    return budgets.run(section, INPUTS, out, Context(0, out, lambda *_: None))


def test_limits_are_held_against_reports_and_certificates(tmp_path: Path) -> None:
    facts = run("{target: tflite-int8, latency_p95_ms: 2, size_kb: 100, agreement: 0.98}", tmp_path)
    assert facts["met"] is False
    assert {r["measure"]: r["verdict"] for r in facts["results"]} == {
        "latency_p95_ms": "fail", "size_kb": "pass", "agreement": "pass"}  # fmt: skip
    assert budgets.failures(facts) == ["tflite-int8 on host: latency_p95_ms is 3, budget 2"]
    assert json.loads((tmp_path / "budgets.json").read_text())["results"] == facts["results"]
    assert run("{size_kb: 100}", tmp_path)["met"] is True
    missing = run("{device: pixel-8, size_kb: 100}", tmp_path)
    assert "any file on pixel-8: size_kb was not measured" in budgets.failures(missing)[0]


def test_an_invalid_measurement_is_not_measurable_unless_the_recipe_allows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    doubtful = {**MEASURED, "valid": False, "reasons": ["it was hot"]}
    monkeypatch.setitem(INPUTS, "benchmark", artifact("benchmark", {"reports": [doubtful]}))
    facts = run("{latency_p95_ms: 9}", tmp_path)
    assert budgets.failures(facts) == [
        "tflite-int8 on host: latency_p95_ms isn't measurable (not valid (it was hot)), budget 9"
    ]
    section = loaded("{limits: [{latency_p95_ms: 9}], allow_invalid: true}").budgets
    assert section is not None
    assert budgets.run(section, INPUTS, tmp_path, Context(0, tmp_path, print))["met"] is True


def test_a_miss_fails_the_run_after_everything_is_made(tmp_path: Path) -> None:
    for limit, met in ((1, False), (100, True)):
        found = Run(
            tmp_path, {"budgets": artifact("budgets", run(f"{{size_kb: {limit}}}", tmp_path))}
        )
        if met:
            _performing._held(found)
        else:
            with pytest.raises(GateFailed, match="size_kb is 62, budget 1"):
                _performing._held(found)
    chain = [step.id for step in pipeline.steps(loaded("{limits: [{size_kb: 1}]}"))]
    assert chain[-3:] == ["benchmark", "budgets", "report"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{limits: []}", "is empty"), ("{limits: [{target: x}]}", "says no limit"),
        ("{limits: [{size: 1}]}", "unknown key 'size'"),
        ("{limits: [{size_kb: -1}]}", "not greater"),
        ("{limits: [{size_kb: 1}], allow_unmeasurable: [speed]}", "no measure 'speed'"),
    ],
)  # fmt: skip
def test_a_wrong_section_gets_one_line(text: str, says: str) -> None:
    with pytest.raises(BadInput) as error:
        loaded(text)
    assert says in str(error.value)


def test_without_a_benchmark_there_is_nothing_to_check() -> None:
    with pytest.raises(BadInput, match="add `benchmark:`"):
        recipe.load("quickstart", ["benchmark=false"])

"""Budgets: pass, fail and not measurable, and what is wrong with a file of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from edgeres.errors import BadInput
from edgeres.measurement import budgets, slo

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
    (result,) = budgets.check(
        budgets.Limits(wanted), [REPORT], {"tflite-int8": 0.985, "onnx-int8": 1.0}
    )
    assert result.value == (None if value is None else pytest.approx(value))
    assert result.verdict == verdict


def test_what_wasnt_measured_fails_unless_allowed() -> None:
    wanted = [budgets.Budget("latency_median_ms", 1, None, "pixel-8")]
    (result,) = budgets.check(budgets.Limits(wanted), [REPORT], {})
    assert (result.verdict, result.device) == ("not measurable", "pixel-8")
    assert budgets.check(budgets.Limits(wanted, ["latency_median_ms"]), [REPORT], {}) == []
    (result,) = budgets.check(LATENCY, [{**REPORT, "emulated": True}], {})
    assert result.verdict == "not measurable"


LATENCY = budgets.Limits([budgets.Budget("latency_median_ms", 9, None, None)])


def test_what_is_invalid_is_not_measurable_unless_allowed() -> None:
    names = ("latency_median_ms", "cold_start_ms", "energy_mj", "memory_mb", "size_kb")
    wanted = [budgets.Budget(name, 1e9, None, None) for name in names]
    doubtful = {**REPORT, "valid": False, "reasons": ["it was hot"],
                "energy": {"joules_per_inference": 1.0}}  # fmt: skip
    found = budgets.check(budgets.Limits(wanted), [doubtful], {})
    assert [r.verdict for r in found] == ["not measurable"] * 3 + ["pass"] * 2
    assert {r.reason for r in found[:3]} == {"not valid (it was hot)"}
    found = budgets.check(budgets.Limits(wanted, invalid=True), [doubtful], {})
    assert [r.verdict for r in found] == ["pass"] * 5


def test_a_batch_is_not_one_inference() -> None:
    eight = {**REPORT, "latency": {**REPORT["latency"], "batch": 8}}
    (result,) = budgets.check(LATENCY, [eight], {})
    assert (result.verdict, result.value) == ("not measurable", None)
    assert result.reason == "2 ms is the latency per batch of 8"
    (result,) = budgets.check(LATENCY, [{**REPORT, "latency": None, "device": None}], {})
    assert (result.verdict, result.device) == ("not measurable", "unknown device")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("budgets: []", "lists no budget"), ("budgets: 1", "are lists"),
        ("[1]", "hold `key: value`"), ("a: 1", "`budgets` only"),
        ("budgets: [{accuracy: 97}]", "accuracy: 97 is no share of 1; 97 % is 0.97"),
        ("budgets: [{agreement: -1}]", "agreement: -1 is no share of 1"),
        ("budgets: [1]", "a mapping of"),
        ("budgets: [{latency_p95: 1}]", "did you mean 'latency_p95_ms'"),
        ("budgets: [{size_kb: big}]", "size_kb must be a number"),
        ("budgets: [{size_kb: true}]", "size_kb must be a number"),
        ("budgets: [{target: 3, size_kb: 1}]", "target must be text"),
        ("budgets: [{target: x}]", "without a limit"), ("budgets: [", "not valid YAML"),
        ("budgets: [{size_kb: 1}]\nallow_unmeasurable: [speed]", "unknown measure"),
        ("budgets: [{size_kb: 1}]\nallow_invalid: maybe", "is true or false"),
        ("budgets: !!python/object/apply:os.system [true]", "os.system is not allowed"),
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
            "allow_invalid: true\n"
        )
        done = subprocess.run(
            [sys.executable, "-m", "edgeres", "check", "r.json", "b.yaml"],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        assert f"{1 - code} of 1 budgets met" in done.stdout


def test_a_recipe_knows_the_same_measures() -> None:
    from edgeres.recipe.sections import LimitsSection

    assert set(LimitsSection.model_fields) == {*budgets.MEASURES, "agreement", "target", "device"}


RESULTS = [
    budgets.Result("latency_p95_ms", "tflite-int8", 'a "pi"\n\\4', 5.0, 3.1, "pass"),
    budgets.Result("latency_p95_ms", "tflite-int8", 'a "pi"\n\\4', 3.0, 3.1, "fail"),
    budgets.Result("energy_mj", "tflite-int8", "host", 1.0, None, "not measurable"),
]


def test_prometheus_reads_the_text() -> None:
    families = {f.name: f for f in text_string_to_metric_families(slo.prometheus(RESULTS, "r-1"))}
    assert {f.type for f in families.values()} == {"gauge"}
    values = families["edgeres_budget_value"].samples
    assert [(s.labels["measure"], s.value) for s in values] == [("latency_p95_ms", 3.1)] * 2
    assert values[0].labels["device"] == 'a "pi"\n\\4'
    assert [s.value for s in families["edgeres_budget_met"].samples] == [1, 0, 0]
    assert [s.value for s in families["edgeres_budget_limit"].samples] == [5, 3, 1]
    series = [tuple(sorted(s.labels.items())) for s in values]
    assert len(set(series)) == len(series)


def test_the_dashboard_asks_for_what_is_written() -> None:
    board = json.loads(json.dumps(slo.dashboard(RESULTS, "r-1")))
    panels = board["panels"]
    assert [p["type"] for p in panels] == ["stat", "timeseries", "timeseries"]
    assert len({p["id"] for p in panels}) == 3
    taken = [(x, y) for p in panels for x in range(p["gridPos"]["x"], p["gridPos"]["x"]
             + p["gridPos"]["w"]) for y in range(p["gridPos"]["y"], p["gridPos"]["y"]
             + p["gridPos"]["h"])]  # fmt: skip
    assert len(set(taken)) == len(taken) and max(x for x, _ in taken) < 24
    sources = {v["name"] for v in board["templating"]["list"]}
    written = {f.name for f in text_string_to_metric_families(slo.prometheus(RESULTS, "r-1"))}
    for panel in panels:
        assert panel["datasource"]["uid"].strip("${}") in sources
        for query in panel["targets"]:
            assert query["expr"].split("{")[0] in written
            assert 'run="r-1"' in query["expr"]


def test_the_command_writes_both(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(json.dumps({"reports": [REPORT]}))
    (tmp_path / "b.yaml").write_text("budgets: [{size_kb: 100}]")
    command = [sys.executable, "-m", "edgeres", "check", "r.json"]
    done = subprocess.run([*command, "b.yaml", "--prometheus", "p.prom", "--grafana", "g.json"],
                          cwd=tmp_path, capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert 'run="r"' in (tmp_path / "p.prom").read_text()
    assert json.loads((tmp_path / "g.json").read_text())["title"] == "edgeres budgets: r"
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no budgets of its own" in done.stderr

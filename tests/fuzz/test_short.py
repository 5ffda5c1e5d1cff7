"""The short form of the fuzzer: a few hundred cases, and what the long form has found before."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import mutate
import pytest
import surfaces
from beds.bundles import forged, zipped
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeres import artifact, recipe
from edgeres.bundle import checking
from edgeres.commands import _result_file
from edgeres.devices import Completed, _events
from edgeres.errors import BadInput, DeviceError, EdgeresError
from edgeres.measurement import _trtexec, budgets, compare, drift
from edgeres.models import resnet, spec, weights

SCHEMA = recipe.schema()


def test_hundreds_of_cases_of_every_way_in() -> None:
    command = [sys.executable, Path(__file__).with_name("long.py"), "--cases", "400", "--seed", "7"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert done.stdout, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert found["faults"] == []
    assert found["cases"] >= 360
    assert found["taken"] > 50 and found["refused"] > 100
    assert max(row["most_mb"] for row in found["surfaces"].values()) < 2000


def test_run_folders_that_somebody_sends() -> None:
    import run_folders

    found = run_folders.fuzz(cases=16, seed=7, slow_every=8)
    assert found["faults"] == []
    assert found["taken"] > 40 and found["refused"] > 40


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(mutate.of_schema(SCHEMA, SCHEMA).filter(lambda v: isinstance(v, dict)))
def test_recipes_of_the_schema_are_planned_or_refused(
    tmp_path: Path, values: dict[str, Any]
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(surfaces.dumped(values))
    steps: Any = None
    with contextlib.suppress(EdgeresError):  # anything else is a traceback for the user
        steps = surfaces.plan_of(path)
    assert steps is None or steps[0].stage == "data"


# What the fuzzer found.


@pytest.mark.parametrize("key", ["files", "parents", "facts"])
def test_a_description_with_a_list_for_a_mapping(key: str, tmp_path: Path) -> None:
    good = {"schema": 1, "stage": "data", "key": "k", "digest": "d", "parents": {}, "section": {},
            "facts": {}, "libraries": {}, "seconds": 1.0, "files": {}}  # fmt: skip
    (tmp_path / "artifact.json").write_text(json.dumps({**good, key: ["x"]}))
    with pytest.raises(BadInput, match="damaged"):
        artifact.load(tmp_path)
    (tmp_path / "artifact.json").write_text("[" * 100_000)
    with pytest.raises(BadInput, match="damaged"):
        artifact.load(tmp_path)


@pytest.mark.parametrize(
    ("part", "value"),
    [("size_bytes", "x"), ("accuracy", {"n": 100}), ("accuracy", {"correct": 5, "n": 0}),
     ("accuracy", {"correct": 5, "n": 4}),
     ("accuracy", {"correct": 5, "n": 9, "right": "ffff"}),
     ("accuracy", {"correct": 5, "n": 8, "right": "ffff"}), ("latency", {"median_ns": 1, "sessions": 1}),
     ("latency", {"median_ns": 1.0, "median_ci_ns": "0.9", "sessions": 1, "session_medians_ns": [1.0]}),
     ("memory", []), ("cold", {"load_ns": ["x"]}), ("device", 3), ("valid", "no"), ("latency", 3)],
)  # fmt: skip
def test_a_result_whose_parts_are_of_another_kind(part: str, value: object) -> None:
    (good,) = json.loads(surfaces._result())["reports"]
    assert _result_file.wrong([good]) is None
    assert _result_file.wrong([{**good, part: value}])
    assert _result_file.wrong({"a": 1}) and _result_file.wrong(None)


def test_a_board_that_answers_with_something_else() -> None:
    class Board:
        name = "board"
        said = "[" * 100_000 + "\n" + '{"event": "state", "cores": 4}\n{"event": "done"}'

        def push(self, local: Path) -> str:
            return "runner.py"

        def python(self) -> tuple[str, ...]:
            return ("python3",)

        def run(self, argv: Any, timeout_s: float) -> Completed:
            return Completed(0, self.said, "")

    with pytest.raises(DeviceError, match="its state lacks cpu_model"):
        _events.probe(Board(), False)  # type: ignore[arg-type]


@given(
    st.sampled_from(["[" * 100_000, '[{"name": "x", "values": [1' + "0" * 400 + "]}]", "[1" * 9999])
)
def test_outputs_that_are_nested_or_huge(text: str) -> None:
    with pytest.raises(ValueError):
        _trtexec.outputs(text, "x")


def test_a_checkpoint_whose_pickle_pops_too_much(tmp_path: Path) -> None:
    known = spec.parse("resnet8", 10, spec.default_preprocess(8))
    (tmp_path / "x.pth").write_bytes(
        b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02s."
    )
    with pytest.raises(BadInput, match=r"x\.pth: "):
        weights.from_checkpoint(tmp_path / "x.pth", known)


def test_a_bundle_whose_array_has_half_a_header(
    good_bundle: dict[str, bytes], tmp_path: Path
) -> None:
    header = b"{'descr': ("
    half = b"\x93NUMPY\x01\x00" + bytes([len(header), 0]) + header
    zipped(forged(good_bundle, "golden/inputs.npy", half), tmp_path / "b.zip")
    with pytest.raises(BadInput, match="golden test can't be run"):
        checking.check(tmp_path / "b.zip")


def test_budgets_of_aliases_of_aliases(tmp_path: Path) -> None:
    lines = ["allow_unmeasurable: [*l30]", "budgets: [&l0 [x, x]"]
    lines[1:] = [
        "budgets:",
        "- &l0 [x, x]",
        *(f"- &l{i} [*l{i - 1}, *l{i - 1}]" for i in range(1, 31)),
    ]
    (tmp_path / "b.yaml").write_text("\n".join([*lines[1:], lines[0]]))
    with pytest.raises(BadInput, match="more than 10,000 values"):
        budgets.load(tmp_path / "b.yaml")


@pytest.mark.parametrize("name", ["recipe", "budgets", "device profile"])
def test_what_doubles_at_each_level_is_refused_before_it_grows(name: str, tmp_path: Path) -> None:
    (surface,) = (s for s in surfaces._texts() if s.name == name)
    path = tmp_path / "x.yaml"
    for bomb in surface.bombs():
        path.write_bytes(bomb)
        tracemalloc.start()
        with pytest.raises(BadInput):
            surface.feed(path)
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
        tracemalloc.stop()


@pytest.mark.parametrize(
    "change",
    [{"stem_width": "16"}, {"stem_width": 1 << 70}, {"classes": None}, {"classes": 1.5},
     {"stages": []}, {"stages": [[]]}, {"preprocess": {"size_px": "8", "mean": [0.5], "std": [1]}},
     {"stages": [[{"widths": [16, 60_000, 17], "stride": 1, "shortcut": "projection",
                   "groups": 7}]]}],
)  # fmt: skip
def test_a_network_described_in_other_things_than_numbers(change: Any, tmp_path: Path) -> None:
    described = spec.parse("resnet8", 10, spec.default_preprocess(8))
    weights.save(tmp_path, resnet.build(described, seed=0))
    document = json.loads((tmp_path / "spec.json").read_text())
    (tmp_path / "spec.json").write_text(json.dumps(document | change))
    with pytest.raises(BadInput, match=r"spec\.json"):
        weights.load(tmp_path)


def test_a_network_larger_than_its_weights_takes_no_memory(tmp_path: Path) -> None:
    described = spec.parse("resnet8", 10, spec.default_preprocess(8))
    weights.save(tmp_path, resnet.build(described, seed=0))
    text = (tmp_path / "spec.json").read_text().replace("64", "65536")  # 154 GB of weights
    (tmp_path / "spec.json").write_text(text)
    with pytest.raises(BadInput, match="differs in the shape"):
        weights.load(tmp_path)


@pytest.mark.parametrize("value", [1.0, None, "x" * 200, [1.0] * 199 + ["x"], [10**400] * 200])
def test_a_baseline_of_drift_that_is_no_list_of_numbers(value: Any) -> None:
    assert not drift.is_feature(value)


def test_results_of_which_one_lacks_what_the_other_has() -> None:
    (report,) = json.loads(surfaces._result())["reports"]
    (whole, bare) = (json.loads(json.dumps(report)) for _ in range(2))
    whole["accuracy"] |= {"correct": 5, "n": 8, "right": "f8", "samples": "s"}
    bare["accuracy"] = {"correct": 5, "n": 8, "samples": "s"}
    del bare["size_bytes"]
    rows = compare.compare([whole], [bare], compare.Tolerance())
    (accuracy,) = (row for row in rows if row.measure == "top-1")
    assert "Wilson" in accuracy.evidence
    read, at_most = budgets.MEASURES["size_kb"]
    assert read(bare, False) == (None, "not measured") and read(whole, False)[0] and at_most

"""The benchmark stage: a device that fails costs only itself, also over two runs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from measuring import linear

from edgeres import devices
from edgeres.artifact import Artifact
from edgeres.disk import file_sha256
from edgeres.errors import DeviceError
from edgeres.measurement import farm, protocol
from edgeres.measurement.runners import Preset
from edgeres.recipe import BenchmarkSection, PruneSection, checked
from edgeres.stages import Context, benchmark, prune
from edgeres.types import ExportedFile, TensorSpec, to_json


@pytest.fixture(autouse=True)
def _trusted() -> Iterator[None]:
    devices.allow_programs(True)
    yield
    devices.allow_programs(False)


def profile(path: Path, python: str) -> str:
    path.write_text(f"name: {path.stem}\nkind: local\ndescription: a test\n"
                    f"settings: {{python: '{python}'}}\n")  # fmt: skip
    return str(path)


def test_what_was_measured_is_kept_until_the_rest_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(protocol.PRESETS, "quick", Preset(64, 0.01, 1.0, sessions=2))
    file = linear(tmp_path / "a.onnx", 1.0)
    spec = TensorSpec("x", (1, 4), "float32", "NC")
    exported = ExportedFile("onnx-fp32", "a.onnx", file_sha256(file), 1, spec, spec)
    export = Artifact("export", "k", "d", tmp_path, {}, {"targets": ["onnx-fp32"]},
                      {"exported": to_json(exported)}, {}, 0.0)  # fmt: skip
    away = profile(tmp_path / "away.yaml", "/no/such/python")
    section = BenchmarkSection(devices=("host", away), preset="quick", accuracy=False)
    work, out = tmp_path / "work", tmp_path / "out"
    work.mkdir()
    out.mkdir()
    context = Context(0, work, lambda *_: None)
    with pytest.raises(DeviceError, match="away"):
        benchmark.run(section, {"export": export}, out, context)
    assert not (out / "samples.json").exists()

    profile(tmp_path / "away.yaml", sys.executable)  # it is back
    asked: list[list[str]] = []
    measure = farm.measure

    def spy(candidates: object, profiles: list, *rest: object, **more: object) -> object:
        asked.append([p.name for p in profiles])
        return measure(candidates, profiles, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(farm, "measure", spy)
    facts = benchmark.run(section, {"export": export}, out, context)
    assert asked == [["away"]], "the host was measured already"
    assert [r["device"] for r in facts["reports"]] == ["host", "away"]
    rows = json.loads((out / "samples.json").read_text())["devices"]
    assert [row["device"] for row in rows] == ["host", "away"]
    assert all(len(row["samples"]["onnx-fp32"]) == 2 for row in rows)


def test_a_device_that_is_away_has_no_identity_when_a_run_is_planned(tmp_path: Path) -> None:
    away = profile(tmp_path / "away.yaml", "/no/such/python")
    keyed = benchmark.keyed(BenchmarkSection(devices=("host", away)))
    here, there = keyed["devices"]
    assert here["identity"] is not None
    assert there["identity"] is None
    assert [d["threads"] for d in keyed["devices"]] == [1, 1]


@pytest.mark.parametrize(
    ("change", "anew"),
    [({"accelerator": "gpu"}, True), ({"threads": 2}, True), ({"runners": ["trtexec"]}, True),
     ({"tools": {"trtexec": "/opt/trtexec"}}, True), ({"settings": {"host": "b", "port": 1}}, True),
     ({"settings": {"host": "b"}}, False), ({"description": "other words"}, False)],
)  # fmt: skip
def test_what_a_profile_asks_for_decides_a_measurement_its_address_does_not(
    change: dict[str, Any], anew: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgeres import devices

    monkeypatch.setattr(devices, "identity_of", lambda name: "one machine")
    path = tmp_path / "board.yaml"
    profile = {"name": "b", "kind": "ssh", "description": "x", "settings": {"host": "a"}}

    def keys() -> list[dict[str, Any]]:
        latency = checked(PruneSection, {"latency": "1ms", "device": str(path)})
        return [benchmark.keyed(BenchmarkSection(devices=(str(path),))), prune.keyed(latency)]

    path.write_text(json.dumps(profile))
    before = keys()
    path.write_text(json.dumps(profile | change))
    assert [a != b for a, b in zip(before, keys(), strict=True)] == [anew, anew]

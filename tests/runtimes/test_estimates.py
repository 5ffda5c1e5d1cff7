"""A runtime that estimates stands for a device that nobody has."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import network
from in_process import edgeres
from runtime_files import needs

from edgeres import devices
from edgeres.errors import BadInput
from edgeres.measurement import latency_table
from edgeres.models.shapes import LayerShape
from edgeres.stages import _latency

NPU = "ethos-u55-128"


def test_layers_and_whole_files_are_estimated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs(NPU)
    profile = devices.load(NPU)
    shapes = [LayerShape("a", "conv", 8, 8, px=16, kernel=3)]

    def table() -> float:
        built = latency_table.build(shapes, "tflite-int8", profile, round_to=8, cache=tmp_path)
        return built.predict(shapes)

    first = table()
    assert 1_000 < first < 1_000_000
    monkeypatch.setattr(latency_table, "ask", None)  # what is known isn't asked again
    assert table() == first
    monkeypatch.undo()
    whole = {"whole": network("resnet8-w0.25")}
    found = _latency.in_turn(whole, NPU, "tflite-int8", "quick", lambda note: None)["whole"]
    assert first < found["median_ns"] < 10_000_000
    assert found["estimated_by"].startswith("Vela ")
    assert devices.identity_of(NPU) == devices.identity_of("ethos-u85-256")  # the name is apart
    with pytest.raises(BadInput, match="is an estimate for tflite-int8, tflite-int16x8, not onnx"):
        latency_table.build(shapes, "onnx-int8", profile, round_to=8, cache=tmp_path)


def test_nothing_runs_on_an_estimate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = """
name: estimated
data: {source: digits, size: 16}
teacher: {model: resnet8}
quantize: {method: ptq}
export: {targets: [tflite-int8]}
benchmark: {devices: [ethos-u55-128]}
"""
    (tmp_path / "r.yaml").write_text(recipe)
    needs(NPU)
    done = edgeres("run", "r.yaml", cwd=tmp_path)
    assert done.returncode == 2 and "is an estimate and runs nothing" in done.stderr, done.stderr
    probed = edgeres("devices", "probe", NPU, cwd=tmp_path)
    assert probed.returncode == 2 and "is an estimate and runs nothing" in probed.stderr
    monkeypatch.setenv("EDGERES_RUNTIMES", str(tmp_path / "none"))
    done = edgeres("run", "r.yaml", cwd=tmp_path)
    assert done.returncode == 4 and "edgeres runtimes install" in done.stderr

"""`edgeres quantize --auto`: the layer that can't be quantized stays float, and what that costs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from in_process import edgeres
from safetensors.torch import save_file

from edgeres.measurement import protocol
from edgeres.measurement.runners import Preset
from edgeres.models import weights
from edgeres.text import chain as text

RECIPE = """
name: tiny
data: {source: digits, size: 16, calibration: 64}
train: {batch_size: 64}
teacher: {model: resnet8-w0.5, train: {epochs: 4}}
"""


def spoiled(folder: Path, out: Path) -> None:
    """One channel between two convolutions a thousand times as large, and taken back behind.

    The float network answers as before; in int8 the other channels are left without codes.
    """
    state = weights.load(folder).state_dict()
    with torch.no_grad():
        for name in ("weight", "bias"):
            state[f"layer2.0.bn1.{name}"][0] *= 1000
        state["layer2.0.bn1.bias"][0] += 1000  # so that the channel is awake
        state["layer2.0.conv2.weight"][:, 0] /= 1000
    save_file({name: value.contiguous() for name, value in state.items()}, out)


def test_auto_leaves_the_spoiled_layer_float_and_measures_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(protocol.PRESETS, "quick", Preset(16, 0.01, 1.0, 0.1, sessions=2))
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    made = edgeres("run", "tiny.yaml", "--json", cwd=tmp_path)
    assert made.returncode == 0, made.stderr[-2000:]
    artifact = Path(json.loads(made.stdout)["artifacts"]["teacher"]["path"])
    spoiled(tmp_path / artifact, tmp_path / "spoiled.safetensors")
    command = ["quantize", "spoiled.safetensors", "--model", "resnet8-w0.5", "--method", "ptq"]
    command += ["--data", "digits", "--set", "data.size=16", "--set", "data.calibration=64"]
    (tmp_path / "arm.yaml").write_text("name: arm\nkind: local\ndescription: x\nemulated: true\n")
    refused = edgeres(*command, "--auto", "--device", "arm.yaml", cwd=tmp_path)
    assert refused.returncode == 2
    assert "'arm' is emulated, so its times mean nothing" in refused.stderr
    done = edgeres(*command, "--auto", "--accuracy-drop", "1", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout)
    found = result["auto"]
    assert result["sensitivity"]["all_quantized_lost_points"] > 10
    assert found["lost_points"] <= 1
    assert any(name.startswith("layer2.0.conv") for name in found["layers"])
    assert len(found["layers"]) <= 2
    assert result["artifacts"]["quantize"]["facts"]["float_layers"] == sorted(found["layers"])
    times = found["latency"]
    assert times["device"] == "host"
    assert times["target"] == "tflite-int8"
    assert 0 < times["interval"][0] <= times["interval"][1]
    assert times["with"]["n"] >= 32
    assert times["without"]["n"] >= 32
    assert f"{times['ratio']:.2f} times the latency of none" in text.auto(result)
    said = edgeres(*command, "--auto", "--accuracy-drop", "95", cwd=tmp_path)
    assert "float layers: none (0.0% of multiply-accumulates)\n" in said.stdout

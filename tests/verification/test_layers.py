"""The layer check finds the layer that is wrong, and no other."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import images, needs, network
from torch.fx import Interpreter

from edgeres.compression import graph, ptq
from edgeres.models import resnet
from edgeres.targets import Source, coreml
from edgeres.training.inference import prepared
from edgeres.types import ExportedFile, Preprocess
from edgeres.verification import certificate, layers


@pytest.fixture(scope="module")
def traced(quantized: tuple) -> tuple[torch.Tensor, dict[str, np.ndarray]]:
    """Normalized images and the codes of each layer, as the fake-quant graph computes them."""
    _, folded, scales = quantized
    x = prepared(images(8, seed=5), folded.spec.preprocess)
    network = graph.quantized_graph(folded, scales, fold_weights=True)
    found: dict[tuple[float, int], list[np.ndarray]] = {}

    class Codes(Interpreter):
        def run_node(self, n: torch.fx.Node) -> object:
            value = super().run_node(n)
            if "quantize_per_tensor" in str(n.target) and "dequantize" not in str(n.target):
                found.setdefault((n.args[1], n.args[2]), []).append(value.numpy())
            return value

    with torch.no_grad():
        Codes(network).run(x)
    named = {}
    for name, params in scales.items():
        if not name.endswith(".weight") and name != "input":
            named[name] = found[params.scale[0], params.zero_point[0]][0]
    return x, named


def test_every_layer_of_the_graph_itself_is_right(quantized: tuple, traced: tuple) -> None:
    _, folded, scales = quantized
    x, codes = traced
    found = layers.check(folded, scales, x, codes)
    assert {c.name for c in found} == set(codes)
    assert max(c.worst for c in found) <= 1  # a half rounded the other way, at most
    for c in found:  # of the few values of a small layer, one
        assert (1 - c.equal) * codes[c.name].size <= max(1, 0.001 * codes[c.name].size), c.name


@pytest.mark.parametrize("layer", ["conv1", "layer1.0.conv2", "layer2.0.add", "avgpool", "fc"])
def test_the_first_wrong_layer_is_the_one_that_was_changed(
    layer: str, quantized: tuple, traced: tuple
) -> None:
    _, folded, scales = quantized
    x, codes = traced
    shifted = codes[layer].astype(np.int16) + np.where(codes[layer] < 0, 9, -9)
    wrong = [c for c in layers.check(folded, scales, x, {**codes, layer: shifted}) if c.worst > 1]
    assert wrong[0].name == layer
    assert wrong[0].worst >= 9
    assert len(wrong) <= 3, "only its readers, whose codes here came from the right ones"


def test_swapped_channels_and_missing_layers(quantized: tuple, traced: tuple) -> None:
    _, folded, scales = quantized
    x, codes = traced
    swapped = codes["layer2.0.conv1"][:, ::-1].copy()
    found = {
        c.name: c for c in layers.check(folded, scales, x, codes | {"layer2.0.conv1": swapped})
    }
    assert found["layer2.0.conv1"].worst > 1
    fewer = {k: v for k, v in codes.items() if k != "layer1.0.conv1"}
    assert "layer1.0.conv1" not in {c.name for c in layers.check(folded, scales, x, fewer)}
    short = codes | {"fc": codes["fc"][:, :3]}
    assert {c.name: c.worst for c in layers.check(folded, scales, x, short)}["fc"] == 255


def test_core_ml_takes_images_as_they_are(tmp_path: Path) -> None:
    """Rounded to float16, with ImageNet's normalization, 7 in 1,000 values get another code."""
    needs("coremltools")
    plain = network("resnet8")
    seen = Preprocess(16, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    model = resnet.ResNet(dataclasses.replace(plain.spec, preprocess=seen))
    model.load_state_dict(plain.state_dict())
    folded, scales = ptq.quantize(model, images(64))
    path, some = tmp_path / "m.mlpackage", images(64, seed=4)
    ends = coreml.export(Source(folded, scales), "int8", path)
    nothing = np.zeros((64, 10), np.float32)
    reference = certificate.Reference(folded, scales, nothing, nothing, some, torch.zeros(64))
    exported = ExportedFile("coreml-int8", path.name, "", 0, *ends)
    found = certificate._layers(path, exported, coreml.read(path), reference, 64)
    assert found is not None
    assert found[0].name == "conv1" and found[0].equal > 0.9999
    assert max(check.worst for check in found) <= 1


def test_networks_of_one_shape_are_walked_with_their_own_weights(
    quantized: tuple, traced: tuple
) -> None:
    _, folded, scales = quantized
    x, codes = traced
    other = copy.deepcopy(folded)
    with torch.no_grad():
        other.layer1[0].conv2.weight.neg_()
    for own, wrong in ((folded, []), (other, ["layer1.0.conv2"]), (folded, [])):
        assert [c.name for c in layers.check(own, scales, x, codes) if c.worst > 1] == wrong

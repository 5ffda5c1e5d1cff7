"""The audit finds what was planted: a wrong scale, a wrong zero point, a changed weight."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from conftest import images, network

from edgeres import targets
from edgeres.compression import ptq
from edgeres.verification.scales import audit


@pytest.fixture(scope="module")
def exported(quantized: tuple, tmp_path_factory: pytest.TempPathFactory) -> dict:
    _, folded, scales = quantized
    read = {}
    for name in ("tflite-int8", "onnx-int8", "coreml-int8"):
        target, precision = targets.load(name)
        path = tmp_path_factory.mktemp("files") / f"m{target.SUFFIX}"
        target.export(targets.Source(folded, scales), precision, path)
        read[name] = target.read(path)
    return read


@pytest.mark.parametrize("name", ["tflite-int8", "onnx-int8", "coreml-int8"])
@pytest.mark.parametrize("tensor", ["input", "layer2.0.add", "avgpool", "fc", "conv1.weight"])
def test_a_wrong_scale_is_named(name: str, tensor: str, exported: dict, quantized: tuple) -> None:
    _, folded, scales = quantized
    assert audit(exported[name], folded, scales).differing == ()
    wrong = dataclasses.replace(
        scales[tensor], scale=(scales[tensor].scale[0] * 1.01, *scales[tensor].scale[1:])
    )
    if tensor.endswith(".weight"):  # other codes: the layer itself is no longer recognized
        found = audit(exported[name], folded, {**scales, tensor: wrong})
        assert any(d.startswith(tensor) for d in found.differing)
    else:
        (sentence,) = audit(exported[name], folded, {**scales, tensor: wrong}).differing
        assert sentence.startswith(f"{tensor}: file has scale")


@pytest.mark.parametrize("name", ["tflite-int8", "onnx-int8", "coreml-int8"])
def test_a_wrong_zero_point_is_named(name: str, exported: dict, quantized: tuple) -> None:
    _, folded, scales = quantized
    wrong = dataclasses.replace(scales["fc"], zero_point=(scales["fc"].zero_point[0] + 1,))
    (sentence,) = audit(exported[name], folded, {**scales, "fc": wrong}).differing
    assert sentence.startswith("fc: file has")


@pytest.mark.parametrize("name", ["tflite-int8", "onnx-int8", "coreml-int8"])
def test_one_changed_weight_is_found(name: str, exported: dict, quantized: tuple) -> None:
    model, _, scales = quantized
    other, _ = ptq.quantize(model, images(64))  # the same again, to be changed
    with torch.no_grad():
        weight = other.layer1[0].conv2.weight
        weight[3, 2, 1, 1] += 3 * scales["layer1.0.conv2.weight"].scale[3]
    found = audit(exported[name], other, scales)
    assert any(d.startswith("layer1.0.conv2.weight: not in the file") for d in found.differing)


def test_another_networks_file_does_not_pass(exported: dict) -> None:
    folded, scales = ptq.quantize(network("resnet8", seed=7), images(64))
    found = audit(exported["tflite-int8"], folded, scales)
    assert found.equal <= 2  # the pixel-exact input, and a pool at most

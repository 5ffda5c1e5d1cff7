"""The reference of integer files: what it computes is what runtimes compute, to the code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import images, network
from turns import by_turns

from edgeres import targets
from edgeres.compression import graph, ptq
from edgeres.compression.integers import integer_graph
from edgeres.training.inference import prepared
from edgeres.types import ScaleTable


def _answers(
    name: str, folded: torch.nn.Module, scales: ScaleTable, x: np.ndarray, folder: Path
) -> np.ndarray:
    target, precision = targets.load(name)
    path = folder / f"m{target.SUFFIX}"
    first, last = target.export(targets.Source(folded, scales), precision, path)
    return targets.decode(target.session(path).run(targets.encode(x, first)), last)


def _reference(name: str, px: int) -> tuple:
    """A network, its scales, images, and what its integer graph answers to them."""
    folded, scales = ptq.quantize(network(name, px), images(32, px))
    x = prepared(images(64, px, seed=3), folded.spec.preprocess).contiguous()
    with torch.no_grad():
        return folded, scales, x.numpy(), integer_graph(folded, scales)(x).numpy()


@pytest.mark.parametrize(("name", "px"), by_turns([("resnet20-A", 32), ("resnet18-w0.1", 72)], 2))
def test_runtimes_give_its_codes_to_the_bit(name: str, px: int, tmp_path: Path) -> None:
    """72 px has ImageNet's stem, with its max pool; -A has 0/1 shortcut convolutions."""
    folded, scales, x, expected = _reference(name, px)
    for target in ("tflite-int8", "onnx-int8"):
        found = _answers(target, folded, scales, x, tmp_path)
        assert np.array_equal(found, expected), target


@pytest.mark.parametrize(("name", "px"), [("resnet20-A", 32), ("resnet18-w0.1", 72)])
def test_an_interpreted_core_ml_package_gives_them_too(name: str, px: int, tmp_path: Path) -> None:
    """Its biases are float16 numbers; hardly a sum lies where that decides a code."""
    folded, scales, x, expected = _reference(name, px)
    found = _answers("coreml-int8", folded, scales, x, tmp_path)
    assert (np.abs(found - expected) < scales["fc"].scale[0] / 2).mean() > 0.95


@pytest.mark.parametrize("settings", [
    {}, {"exclude": [r"layer2\..*"]}, {"scheme": "w8a16"}, {"scheme": "w8a8-symmetric"},
])  # fmt: skip
def test_it_is_the_quantized_graph_but_for_rounding(settings: dict) -> None:
    """Excluded layers and those of 16 bits are left as they are."""
    folded, scales = ptq.quantize(network("resnet8"), images(32), **settings)
    x = prepared(images(64, seed=3), folded.spec.preprocess)
    with torch.no_grad():
        whole = integer_graph(folded, scales)(x)
        real = graph.quantized_graph(folded, scales, fold_weights=True)(x)
    codes = (whole - real).abs() / scales["fc"].scale[0]
    assert codes.max() <= 1.5
    assert (codes > 0.5).float().mean() < 0.05
    if settings.get("scheme") == "w8a16":
        assert torch.equal(whole, real)


def test_a_bias_in_float_stays_in_float() -> None:
    """TensorRT's file has other scales than were trained, and no quantized bias."""
    folded, scales = ptq.quantize(network("resnet8"), images(32))
    derived = targets.scales_for("tensorrt-int8", scales)
    assert derived != scales
    x = prepared(images(16, seed=3), folded.spec.preprocess)
    with torch.no_grad():
        real = graph.quantized_graph(folded, derived, fold_weights=True)(x)
        assert torch.equal(integer_graph(folded, derived)(x), real)

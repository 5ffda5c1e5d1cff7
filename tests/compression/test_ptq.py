"""Calibration: ranges, schemes, layers that stay float, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import images, network

from edgeres.compression import graph, ptq, ranges
from edgeres.compression.exclusions import kept_float
from edgeres.compression.quantizer import layers
from edgeres.errors import BadInput
from edgeres.models.resnet import ResNet
from edgeres.training.inference import prepared
from edgeres.types import ScaleTable


def sqnr(model: ResNet, folded: ResNet, scales: ScaleTable) -> float:
    x = prepared(images(32, seed=3), model.spec.preprocess)
    with torch.no_grad():
        exact = model.eval()(x)
        noise = exact - graph.quantized_graph(folded, scales, fold_weights=True)(x)
    return float(10 * torch.log10(exact.pow(2).mean() / noise.pow(2).mean()))


@pytest.mark.parametrize(("scheme", "least"), [("w8a8-symmetric", 18), ("w8a16", 28)])
def test_a_scheme_gives_its_zero_points_and_types(scheme: str, least: float) -> None:
    model = network("resnet8")
    folded, scales = ptq.quantize(model, images(32), scheme=scheme)
    activations = [p for n, p in scales.items() if not n.endswith(".weight")]
    assert {p.zero_point for p in activations} == {(0,)}
    assert {p.dtype for p in activations} == {"int16" if scheme == "w8a16" else "int8"}
    assert sqnr(model, folded, scales) > least


def test_excluded_layers_stay_float_in_the_graph() -> None:
    model = network("resnet8")
    folded, scales = ptq.quantize(model, images(32), exclude=[r"layer2\..*"])
    assert "layer2.0.conv1" not in scales, "only layer2.0.conv2 reads it"
    assert "layer2.0.add" in scales, "layer3 is quantized and reads it"
    assert "layer2.0.conv1.weight" not in scales
    built = graph.quantized_graph(folded, scales, fold_weights=False)
    weights = {la.name: "dequantize" in str(la.node.args[1].target)
               for la in layers(built) if la.weighted}  # fmt: skip
    assert {n for n, integer in weights.items() if not integer} == {
        "layer2.0.conv1", "layer2.0.conv2", "layer2.0.downsample.0"}  # fmt: skip
    assert sqnr(model, folded, scales) > 20


def test_an_exclusion_that_fits_nothing_names_the_nearest_layer() -> None:
    with pytest.raises(BadInput, match=r"no layer matches 'layer1.0.conv9'.*layer1\.0\.conv"):
        kept_float(network("resnet8"), ["layer1.0.conv9"])
    with pytest.raises(BadInput, match="no regular expression"):
        kept_float(network("resnet8"), ["layer1("])
    with pytest.raises(BadInput, match="conv1 can't stay float: it reads the images"):
        kept_float(network("resnet8"), ["conv1"])
    with pytest.raises(BadInput, match="fc can't stay float"):
        kept_float(network("resnet8"), ["fc"])
    with pytest.raises(BadInput, match=r"layer1\.0\.add can't stay float between"):
        kept_float(network("resnet8"), [r"layer1\.0\.add"])


def test_weights_that_are_not_numbers_are_refused() -> None:
    model = network("resnet8")
    with torch.no_grad():
        model.layer2[0].conv1.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(BadInput, match=r"layer2\.0\.conv1\.weight holds NaN"):
        ptq.quantize(model, images(8))


def test_ranges_clip_an_outlier_and_nothing_else() -> None:
    values = np.abs(np.random.default_rng(0).normal(size=200_000))
    counts = np.histogram(values, ranges._BINS, (0.0, 40.0))[0].astype(float)
    counts[-1] += 1  # one value of 40 where the rest ends below 5
    for name in ("percentile", "mse", "entropy"):
        low, high = ranges._METHODS[name](counts, 0.0, 40.0)
        assert low == 0
        assert 3 < high < 36, name
    counts[0], counts[-1] = counts.sum(), 0  # as behind a ReLU: half of the values are zeros
    spread = ranges._METHODS["entropy"](counts, 0.0, 40.0)[1]
    counts[0] = counts[1]
    assert ranges._METHODS["entropy"](counts, 0.0, 40.0)[1] == spread, "zeros are exact anyway"
    even = np.ones(ranges._BINS)
    low, high = ranges._METHODS["mse"](even, -1.0, 1.0)
    assert low == -high
    assert high > 0.97, "nothing is worth clipping"


@pytest.mark.parametrize(("method", "least"), [("percentile", 15), ("mse", 15), ("entropy", 15)])
def test_a_range_method_gives_a_working_network(method: str, least: float) -> None:
    model = network("resnet8")
    assert sqnr(model, *ptq.quantize(model, images(16), ranges=method)) > least


@pytest.mark.parametrize("ranges", ["mse", "min-max"])
@pytest.mark.parametrize("size", [1e5, float("inf")])
def test_activations_that_no_scale_holds_are_named(ranges: str, size: float) -> None:
    model = network("resnet8")
    with torch.no_grad():
        for block in (model.layer1[0], model.layer2[0]):
            block.bn2.weight.fill_(min(size, 1e25))
    with pytest.raises(BadInput, match=r"layer\d\.0\.\w+ gives values of size .*broken"):
        ptq.quantize(model, images(32), ranges=ranges)

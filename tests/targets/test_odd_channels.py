"""Channels of zeros, tiny and huge ones: every integer file still answers as its graph."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import images, network
from turns import by_turns

from edgeres import targets
from edgeres.compression import ptq
from edgeres.compression.graph import quantized_graph, wiring
from edgeres.compression.integers import integer_graph
from edgeres.errors import BadInput
from edgeres.models.resnet import ResNet
from edgeres.targets import _schemes
from edgeres.training.inference import prepared
from edgeres.types import ScaleTable

INT32 = 2**31 - 1


def odd(seed: int, zeros: int = 3) -> ResNet:
    """A ResNet-8 of which several filters are zero, tiny or huge, with shifts behind them."""
    model, generator = network("resnet8", seed=seed), torch.Generator().manual_seed(seed)
    modules = dict(model.named_modules())
    with torch.no_grad():
        for name, conv in modules.items():
            if not isinstance(conv, torch.nn.Conv2d) or "downsample" in name:
                continue
            norm = modules[name.replace("conv", "bn")]
            chosen = torch.randperm(len(conv.weight), generator=generator)[: zeros + 3].tolist()
            for place, channel in enumerate(chosen):
                factor = 0.0 if place < zeros else (1e-30, 1e-7, 6.0)[place - zeros]
                conv.weight[channel] *= factor
                norm.running_mean[channel] = 0.0
                norm.running_var[channel] = float(place % 2)  # a channel that is off has 0
                norm.bias[channel] = (0.3, 1.5, -2.0)[place % 3]
    return model


def quantized(seed: int, scheme: str = "w8a8") -> tuple[ResNet, ScaleTable]:
    return ptq.quantize(odd(seed), images(64, seed=seed), scheme=scheme)


@pytest.mark.parametrize("scheme", ["w8a8", "w8a8-symmetric", "w8a16"])
def test_every_bias_fits_into_int32_in_every_scheme(scheme: str) -> None:
    folded, table = quantized(0, scheme)
    state = folded.state_dict()
    tables = [table] if scheme == "w8a16" else [table, _schemes.symmetric(table),
                                                _schemes.sixteen_bit(table)]  # fmt: skip
    for scales in tables:
        for wire in wiring(folded.spec):
            if (params := scales.get(f"{wire.name}.weight")) is None:
                continue
            source = scales[wire.sources[0]].scale[0]
            steps = torch.tensor(params.scale, dtype=torch.float64) * source
            assert (state[f"{wire.name}.bias"].double() / steps).abs().max() < INT32
        quantized_graph(folded, scales, fold_weights=True)


def test_a_bias_that_does_not_fit_is_named() -> None:
    folded, table = quantized(0)
    params = table["layer2.0.conv1.weight"]
    small = dataclasses.replace(params, scale=(1e-12, *params.scale[1:]))
    with torch.no_grad():
        folded.layer2[0].conv1.bias[0] = 1.0
    with pytest.raises(BadInput, match=r"layer2\.0\.conv1: the bias 1 of channel 0 doesn't fit"):
        quantized_graph(folded, table | {"layer2.0.conv1.weight": small}, fold_weights=True)


@pytest.mark.parametrize("target", ["tflite-int8", "onnx-int8", "tflite-int16x8"])
@pytest.mark.parametrize("seed", by_turns(range(4), 4))
def test_files_answer_as_their_graph(target: str, seed: int, tmp_path: Path) -> None:
    folded, table = quantized(seed)
    module, precision = targets.load(target)
    scales = targets.scales_for(target, table)
    path = tmp_path / f"m{module.SUFFIX}"
    module.export(targets.Source(folded, scales, {}), precision, path)
    read = module.read(path)
    x = prepared(images(32, seed=50), folded.spec.preprocess)
    with torch.no_grad():
        graph = integer_graph(folded, scales)
        expected = graph(x).numpy()
    codes = module.session(path).run(targets.encode(x.numpy(), read.input))
    found = targets.decode(codes, read.output)
    off = np.abs(found - expected) / read.output.quantization.scale[0]
    assert expected.std() > 0.1
    assert off.max() <= 16 if "16" in target else (off > 0.5).mean() == 0

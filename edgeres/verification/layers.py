"""Layer by layer: does each operation of a file do right with the codes that it really got?

Rounding adds up over a network, so the end says little about where a fault is. Here the trained
network is walked in float32 with the file's own codes: each layer is computed from what the file
fed it, and the file's answer must be within one code of that. (float32's own error is some 1e-5
codes: it decides ties only.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.fx import Interpreter, Node

from edgeres.compression.graph import bare_graph
from edgeres.compression.quantizer import CLAMPS, layers
from edgeres.models.modules import Classifier
from edgeres.types import QuantParams, ScaleTable


@dataclass(frozen=True)
class LayerCheck:
    """One layer's codes in the file against those computed from the file's own input codes.

    Attributes:
        name: as in the scale table, e.g. `layer1.0.add`.
        worst: largest absolute difference, in codes; all of them if the file's tensor has another
            shape.
        mean: mean absolute difference, in codes.
        equal: share of codes that are equal.
    """

    name: str
    worst: float
    mean: float
    equal: float


def check(
    model: Classifier, scales: ScaleTable, images: Tensor, codes: Mapping[str, np.ndarray]
) -> tuple[LayerCheck, ...]:
    """Compare every layer whose codes are known, in execution order.

    Args:
        model: folded, weights on their grid.
        scales: the table that the file was written from.
        images: normalized (N, 3, H, W) float32, the images that the file was given.
        codes: layer -> its codes in the file, (N, C, H, W) or (N, C), signed as in `scales`.
    """
    walk = _Walk(model, scales, codes)
    entry = _Codes(scales["input"])
    with torch.no_grad():
        walk.run(entry.real(entry.quantize(images)))
    return tuple(walk.found)


class _Walk(Interpreter):
    """Runs the float network, and takes over the file's codes behind each layer."""

    def __init__(self, model: Classifier, scales: ScaleTable, codes: Mapping[str, np.ndarray]):
        graph = bare_graph(model.spec)
        super().__init__(graph)
        self.names = {layer.last: layer.name for layer in layers(graph)}
        self.weights, self.scales, self.codes = model.state_dict(), scales, codes
        self.found: list[LayerCheck] = []

    def fetch_attr(self, target: str) -> object:
        if target in self.weights:
            return self.weights[target]
        return super().fetch_attr(target)

    def run_node(self, n: Node) -> object:
        name = self.names.get(n)
        if n.target in CLAMPS and name in self.scales:  # it ends by its codes
            value = torch.relu(self.fetch_args_kwargs_from_env(n)[0][0])
        else:
            value = super().run_node(n)
        if name is None or name not in self.scales:  # nothing is quantized here
            return value
        assert isinstance(value, Tensor)
        kind = _Codes(self.scales[name])
        expected = kind.quantize(value)
        if name not in self.codes:  # fused away in the file: what it should have been goes on
            return kind.real(expected)
        actual = torch.from_numpy(self.codes[name]).float()
        if actual.numel() != expected.numel():
            everything = float(kind.high - kind.low)
            self.found.append(LayerCheck(name, everything, everything, 0.0))
            return kind.real(expected)
        actual = actual.reshape(expected.shape)  # a pool's (N, C) is (N, C, 1, 1)
        difference = (actual - expected).abs_()
        wrong = int(difference.count_nonzero()) / difference.numel()
        self.found.append(
            LayerCheck(name, difference.max().item(), difference.mean().item(), 1 - wrong)
        )
        return kind.real(actual)


class _Codes:
    """Quantization of one tensor in float32 (half to even, saturating).

    Fresh memory for each step of a large tensor costs more than the arithmetic: one each.
    """

    def __init__(self, params: QuantParams):
        (self.scale,), (self.zero,) = params.scale, params.zero_point
        limits = np.iinfo(params.dtype)
        self.low, self.high = int(limits.min), int(limits.max)

    def quantize(self, value: Tensor) -> Tensor:
        return value.div(self.scale).round_().add_(self.zero).clamp_(self.low, self.high)

    def real(self, codes: Tensor) -> Tensor:
        return codes.sub(self.zero).mul_(self.scale)

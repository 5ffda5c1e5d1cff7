"""Which layers suffer from quantization: a network and its scales in, a row per layer out.

Each layer's weight and output are quantized alone, in an otherwise float network. `fewest_float`
then finds a small set of layers to leave float so that an accuracy budget is met.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Interpreter, Node

from edgeres.compression import portable
from edgeres.compression.exclusions import kept_float
from edgeres.compression.graph import WEIGHT_RANGES, export_program, weight_scale
from edgeres.compression.quantizer import image_input, layers
from edgeres.models.modules import Classifier, fold_batchnorm
from edgeres.training.inference import prepared
from edgeres.training.views import Labelled
from edgeres.types import ScaleTable

_BATCH = 250
_LIMITS = {"int8": (-128, 127), "int16": (-32768, 32767)}
_INFINITE_DB = 120.0  # of a layer that loses nothing

Tick = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Sensitivity:
    """What quantizing one layer alone does.

    Attributes:
        layer: its name in the scale table.
        sqnr_db: power of the float network's logits over that of their change, in dB.
        lost_points: top-1 lost, in percentage points (negative: won).
        macs: its multiply-accumulates for one image; 0 for an add or a pool.
        can_be_float: whether `exclusions` lets it stay float by itself.
    """

    layer: str
    sqnr_db: float
    lost_points: float
    macs: int
    can_be_float: bool


@dataclass(frozen=True)
class Choice:
    """Layers to leave float.

    Attributes:
        layers: in the order in which they were chosen.
        lost_points: top-1 that the rest loses against the float network, in percentage points.
        met: whether that is within the budget.
        float_macs: their share of the multiply-accumulates, 0 to 1.
        tried: how many networks were evaluated.
    """

    layers: tuple[str, ...]
    lost_points: float
    met: bool
    float_macs: float
    tried: int


class Probe:
    """Evaluates a network with any of its layers quantized.

    Args:
        model: as trained, batch norm not folded.
        scales: of all its tensors.
        split: labelled images that weren't trained on.
        scheme: what its weights are rounded for.
    """

    def __init__(
        self, model: Classifier, scales: ScaleTable, split: Labelled, scheme: str = "w8a8"
    ):
        model = portable.sums_only(model) if scheme == portable.SCHEME else model
        self.model, self.scales, self.split = model, scales, split
        self.walk = _Walk(fold_batchnorm(model.eval()), scales, scheme)
        self.float_logits = self.logits(frozenset(), frozenset())
        self.float_correct = self.correct(self.float_logits)

    @torch.no_grad()
    def logits(self, weights: Collection[str], tensors: Collection[str]) -> Tensor:
        """(N, C) with the weights of some layers and some activations quantized."""
        self.walk.weights, self.walk.tensors = weights, tensors
        preprocess = self.model.spec.preprocess
        parts = self.split.images.split(_BATCH)
        return torch.cat([self.walk.run(prepared(part, preprocess)) for part in parts])

    def correct(self, logits: Tensor) -> int:
        """How many images are right."""
        return int((logits.argmax(1) == self.split.labels).sum())

    def alone(self, layer: str) -> Sensitivity:
        """One layer quantized."""
        logits = self.logits({layer}, {layer})
        noise = (logits - self.float_logits).double().pow(2).mean()
        signal = self.float_logits.double().pow(2).mean()
        ratio = float(10 * torch.log10(signal / noise)) if noise > 0 else _INFINITE_DB
        lost = self.float_correct - self.correct(logits)
        return Sensitivity(layer, ratio, 100 * lost / len(logits), self.walk.macs[layer],
                           layer in self.walk.can_be_float)  # fmt: skip

    def lost_points(self, kept: Collection[str]) -> float:
        """What the network loses with all layers quantized but those."""
        floats = kept_float(self.model, [re.escape(name) for name in kept])
        weights = frozenset(self.walk.macs) - floats.layers
        tensors = frozenset(self.scales) - floats.tensors
        lost = self.float_correct - self.correct(self.logits(weights, tensors))
        return 100 * lost / len(self.split.labels)


def measured(probe: Probe, tick: Tick) -> list[Sensitivity]:
    """Every layer alone, the most sensitive first."""
    rows = []
    for done, layer in enumerate(probe.walk.macs, 1):
        rows.append(probe.alone(layer))
        tick(done, len(probe.walk.macs), f"{layer} alone: {rows[-1].sqnr_db:.1f} dB")
    return sorted(rows, key=lambda row: row.sqnr_db)


def fewest_float(probe: Probe, rows: list[Sensitivity], budget: float, tick: Tick) -> Choice:
    """Leave layers float, the most sensitive first, until the loss is within the budget.

    Those that turn out not to be needed are quantized again, so that no layer of the result can be
    left out by itself.

    Args:
        rows: of `measured`.
        budget: points of top-1 that may be lost.
    """
    order = [row.layer for row in rows if row.can_be_float]
    kept: list[str] = []
    lost, tried = probe.lost_points(kept), 1
    for layer in order:
        if lost <= budget:
            break
        kept.append(layer)
        lost, tried = probe.lost_points(kept), tried + 1
        tick(len(kept), len(order), f"{layer} float too: {lost:.2f} points lost")
    for layer in reversed(kept[:-1]) if lost <= budget else ():
        without = [name for name in kept if name != layer]
        less, tried = probe.lost_points(without), tried + 1
        if less <= budget:
            kept, lost = without, less
    macs = {row.layer: row.macs for row in rows}
    share = sum(macs[name] for name in kept) / sum(macs.values())
    return Choice(tuple(kept), lost, lost <= budget, share, tried)


class _Walk(Interpreter):
    """Runs the folded network, and quantizes what `weights` and `tensors` name.

    Attributes:
        given: layer -> its quantized weight, where it isn't to be rounded here.
    """

    def __init__(self, folded: Classifier, scales: ScaleTable, scheme: str):
        graph = export_program(folded).module()
        super().__init__(graph)
        self.scales, self.scheme = scales, scheme
        self.sources: dict[str, str] = {}
        self.weights: Collection[str] = ()
        self.given: Mapping[str, Tensor] = {}
        self.tensors: Collection[str] = ()
        self.outputs: dict[Node, str] = {image_input(graph): "input"}
        self.constants: dict[Node, str] = {}
        self.macs: dict[str, int] = {}
        self.can_be_float: set[str] = set()
        for layer in layers(graph):
            self.outputs[layer.last] = layer.name
            self.macs[layer.name] = 0
            self.sources[layer.name] = layer.source
            if layer.kind == "conv" and layer.source != "input":
                self.can_be_float.add(layer.name)
            if layer.weighted:
                weight = layer.node.all_input_nodes[1]
                self.constants[weight] = layer.name
                pixels = layer.node.meta["val"].shape[2:].numel()
                self.macs[layer.name] = weight.meta["val"].numel() * pixels

    def run_node(self, n: Node) -> object:
        value = super().run_node(n)
        layer = self.constants.get(n)
        if layer is not None and layer in self.weights:
            if layer in self.given:
                return self.given[layer]
            read, written = (self.scales.get(name) for name in (self.sources[layer], layer))
            if self.scheme == portable.SCHEME and read and written:
                ratio = written.scale[0] / read.scale[0]
                return portable.rounded(value, torch.tensor([ratio]))
            stored = self.scales.get(f"{layer}.weight")
            kind = stored.dtype if stored else "int8"
            steps = weight_scale(value, kind=kind).view(-1, *[1] * (value.ndim - 1))
            return (value / steps).round().clamp(*WEIGHT_RANGES[kind]) * steps
        name = self.outputs.get(n)
        if name not in self.tensors or name not in self.scales:
            return value
        params = self.scales[name]
        (scale,), (zero,) = params.scale, params.zero_point
        low, high = _LIMITS[params.dtype]
        return ((value / scale).round() + zero).clamp(low, high).sub(zero) * scale

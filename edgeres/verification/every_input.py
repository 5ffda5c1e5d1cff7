"""Whether kernels of all kinds make the same codes, for every image: each sum goes through each.

A layer reads codes and writes codes, so two runtimes that start from the same image differ first in
one layer, at one sum. Every sum that a channel can have, from any codes of its input, is looked at:
bias + a multiple of the weights' greatest common divisor, between the least and the largest that
they can add up to. Residual adds are asked about every pair of codes. If no kind of kernel
(`kernels`) rounds one of them otherwise than another, none does for any image. If one does, the
first such sum is the witness.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from edgeres.compression.graph import bare_graph
from edgeres.compression.quantizer import ACTIVATIONS, Layer, layers
from edgeres.models.modules import Classifier
from edgeres.types import ScaleTable
from edgeres.verification.kernels import ADDS, KERNELS, AddScales, Scales

if TYPE_CHECKING:
    from edgeres import records

_CHUNK = 1 << 18
_BEYOND = 260  # codes: no zero point brings what is further from zero back between -128 and 127


@dataclass(frozen=True)
class Witness:
    """A sum that two kinds of kernel give different codes.

    Attributes:
        layer: its name.
        channel: of its output; None for a residual add.
        values: the sum; or the two codes that are added, less their zero points.
        codes: kind of kernel -> code.
    """

    layer: str
    channel: int | None
    values: tuple[int, ...]
    codes: Mapping[str, int]

    def sentence(self) -> str:
        """What, where, and who says what."""
        where = self.layer if self.channel is None else f"{self.layer}, channel {self.channel}"
        what = f"the sum {self.values[0]}" if len(self.values) == 1 else f"the codes {self.values}"
        said = ", ".join(f"{code} ({kind})" for kind, code in self.codes.items())
        return f"{where}: {what} becomes {said}"


@dataclass(frozen=True)
class Proof:
    """What was found.

    Attributes:
        sums: how many sums of channels were looked at; pairs: of codes, in residual adds.
        channels: of layers with weights; differing: those with a sum that kinds round otherwise.
        witnesses: the first of each layer that has one.
        unproven: `layer: why` of each operation that isn't covered.
        seconds: how long it took.
    """

    sums: int
    pairs: int
    channels: int
    differing: int
    witnesses: tuple[Witness, ...]
    unproven: tuple[str, ...]
    seconds: float

    @property
    def holds(self) -> bool:
        """Whether every image gets the same codes from every kind of kernel."""
        return not (self.witnesses or self.unproven)

    def facts(self) -> records.Proof:
        """As JSON has it."""
        adding = {name for kind in ADDS for name in kind.runtimes}
        every = dict.fromkeys(name for kind in KERNELS for name in kind.runtimes)
        return {
            "holds": self.holds, "sums": self.sums, "pairs": self.pairs,
            "channels": self.channels, "differing": self.differing,
            "witnesses": [witness.sentence() for witness in self.witnesses],
            "unproven": list(self.unproven), "seconds": self.seconds,
            "runtimes": [name for name in every if name in adding or not self.pairs],
        }  # fmt: skip


def prove(model: Classifier, scales: ScaleTable) -> Proof:
    """Look at every sum of a quantized network.

    Args:
        model: folded, weights and biases on their grids.
        scales: of all its tensors.
    """
    begin = time.monotonic()
    witnesses: list[Witness | None] = []
    unproven: list[str] = []
    sums = pairs = channels = differing = 0
    found = list(layers(bare_graph(model.spec)))
    relus = {layer.name for layer in found if layer.last.target in ACTIVATIONS}
    for layer in found:
        why = _uncovered(layer, scales)
        if why:
            unproven.append(f"{layer.name}: {why}")
        elif layer.kind == "add":
            count, witness = _of_add(layer, scales, relus)
            pairs += count
            witnesses.append(witness)
        elif layer.weighted:
            whole = _in_codes(layer, model, scales, relus)
            if _overflows(whole, layer, scales):
                unproven.append(f"{layer.name}: a sum may need more than 32 bits")
                continue
            count, apart, witness = _of_layer(layer, whole, scales)
            sums, differing, channels = sums + count, differing + apart, channels + len(whole.steps)
            witnesses.append(witness)
    return Proof(sums, pairs, channels, differing, tuple(filter(None, witnesses)), tuple(unproven),
                 time.monotonic() - begin)  # fmt: skip


_WHY = {
    "pool": "the sum of a mean has too few bits to be rounded alike",
    "mul": "kernels round products differently",
    "sigmoid": "kernels compute a sigmoid in their own ways",
    "norm": "a batch norm without a convolution",
}


def _uncovered(layer: Layer, scales: ScaleTable) -> str | None:
    """Why nothing is known of an operation's codes, if so."""
    if layer.kind in _WHY:
        return _WHY[layer.kind]
    around = [scales.get(name) for name in (*layer.sources, layer.name)]
    if any(params is None or params.dtype != "int8" for params in around):
        return "it doesn't read and write int8 codes"
    if layer.weighted and f"{layer.name}.weight" not in scales:
        return "it computes in float"
    if layer.kind == "concat" and len({(p.scale, p.zero_point) for p in around if p}) > 1:
        return "it joins codes of several scales"
    return None


@dataclass(frozen=True)
class _Weighted:
    """A layer with weights in whole numbers.

    Attributes:
        weights: codes, (O, K); biases: (O,); steps: float32 (O,).
        read: the least and largest code of its input, less the zero point; written: of its output.
        least, most: that can be added up, (O,).
    """

    weights: np.ndarray
    biases: np.ndarray
    steps: np.ndarray
    read: tuple[int, int]
    written: tuple[int, int]

    @property
    def least(self) -> np.ndarray:
        return self.biases + np.minimum(*self._products).sum(1)

    @property
    def most(self) -> np.ndarray:
        return self.biases + np.maximum(*self._products).sum(1)

    @property
    def _products(self) -> tuple[np.ndarray, np.ndarray]:
        return self.weights * self.read[0], self.weights * self.read[1]


def _overflows(found: _Weighted, layer: Layer, scales: ScaleTable) -> bool:
    """Whether some sum, shifted left where its multiplier is above 1, leaves an int32."""
    ratio = scales[layer.source].scale[0] / scales[layer.name].scale[0]
    multiplier = found.steps * ratio
    most = np.maximum(-found.least, found.most) * np.where(multiplier < 1, 1, 2 * multiplier)
    return bool((most >= 2.0**31).any())


def _in_codes(layer: Layer, model: Classifier, scales: ScaleTable, relus: set[str]) -> _Weighted:
    state = model.state_dict()
    steps = torch.tensor(scales[f"{layer.name}.weight"].scale, dtype=torch.float64)
    weight = state[f"{layer.name}.weight"].flatten(1).double()
    bias = state.get(f"{layer.name}.bias")
    whole = torch.zeros_like(steps) if bias is None else (
        bias.double() / (steps * scales[layer.source].scale[0])).round()  # fmt: skip
    return _Weighted(
        (weight / steps[:, None]).round().long().numpy(), whole.long().numpy(),
        steps.float().numpy(), _ends(layer.source, scales, relus), _ends(layer.name, scales, relus),
    )  # fmt: skip


def _ends(name: str, scales: ScaleTable, relus: set[str]) -> tuple[int, int]:
    (zero,) = scales[name].zero_point
    return (0 if name in relus else -128 - zero), 127 - zero


def _of_layer(
    layer: Layer, found: _Weighted, scales: ScaleTable
) -> tuple[int, int, Witness | None]:
    """Sums looked at, channels with one that is rounded in two ways, and the first of these."""
    read, written = scales[layer.source], scales[layer.name]
    least, most = found.least, found.most
    strides = np.maximum(np.gcd.reduce(found.weights, axis=1), 1)
    # Channels of one scale whose sums are of one kind are one question.
    questions: dict[tuple[float, int, int], list[int]] = defaultdict(list)
    for channel, step in enumerate(found.steps.tolist()):
        stride = int(strides[channel])
        questions[step, stride, int(found.biases[channel]) % stride].append(channel)
    differing, witness = 0, None
    for (step, stride, rest), channels in questions.items():
        these = Scales(read.scale[0], step, written.scale[0])
        reach = int(_BEYOND * these.written / (these.read * these.weight)) + 1
        low, high = max(least[channels].min(), -reach), min(most[channels].max(), reach)
        apart = _rounded_apart(these, int(low), int(high), stride, rest, found.written)
        for channel in channels:
            own = apart[(apart >= least[channel]) & (apart <= most[channel])]
            differing += bool(len(own))
            if len(own) and witness is None:
                one = own[np.abs(own).argmin()][None]
                codes = {kernel.name: int(_cut(kernel.rounded(one, these), found.written)[0])
                         + written.zero_point[0] for kernel in KERNELS}  # fmt: skip
                witness = Witness(layer.name, channel, (int(one[0]),), codes)
    return int(((most - least) // strides + 1).sum()), differing, witness


def _rounded_apart(
    scales: Scales, low: int, high: int, stride: int, rest: int, ends: tuple[int, int]
) -> np.ndarray:
    """The sums between two, `rest` more than a multiple of `stride`, that kinds round otherwise."""
    found = []
    first = low + (rest - low) % stride
    for begin in range(first, high + 1, _CHUNK * stride):
        sums = np.arange(begin, min(begin + _CHUNK * stride, high + 1), stride, dtype=np.int64)
        codes = [_cut(kernel.rounded(sums, scales), ends) for kernel in KERNELS]
        found.append(sums[np.any([codes[0] != other for other in codes[1:]], axis=0)])
    return np.concatenate(found) if found else np.empty(0, np.int64)


def _cut(codes: np.ndarray, ends: tuple[int, int]) -> np.ndarray:
    return np.clip(codes, *ends)


def _of_add(layer: Layer, scales: ScaleTable, relus: set[str]) -> tuple[int, Witness | None]:
    """Pairs looked at, and the first that is rounded in two ways."""
    first, second = (np.arange(low, high + 1, dtype=np.int64)
                     for low, high in (_ends(n, scales, relus) for n in layer.sources))  # fmt: skip
    a, b = (pairs.ravel() for pairs in np.meshgrid(first, second, indexing="ij"))
    written = scales[layer.name]
    read = (scales[name].scale[0] for name in layer.sources)
    these = AddScales(next(read), next(read), written.scale[0], written.zero_point[0])
    codes = [_cut(kernel.rounded(a, b, these), _ends(layer.name, scales, relus)) for kernel in ADDS]
    apart = np.flatnonzero(np.any([codes[0] != other for other in codes[1:]], axis=0))
    if not len(apart):
        return len(a), None
    at = apart[0]
    said = {kernel.name: int(values[at]) + written.zero_point[0]
            for kernel, values in zip(ADDS, codes, strict=True)}  # fmt: skip
    return len(a), Witness(layer.name, None, (int(a[at]), int(b[at])), said)

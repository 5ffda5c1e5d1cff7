"""Which range of a tensor gets codes: histograms of real activations in, lowest and highest out.

Images are streamed twice, once for the ends of each tensor and once for its histogram, so that
memory doesn't grow with their number.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np
import torch
from torch import Tensor
from torch.fx import Interpreter, Node

from edgeres.compression.graph import concatenated, export_program
from edgeres.compression.quantizer import image_input, layers
from edgeres.errors import BadInput
from edgeres.models.modules import Classifier
from edgeres.training.inference import prepared
from edgeres.types import ScaleTable

_BATCH = 32
_BINS = 2048
_TAIL = 1e-4  # share of values that `percentile` clips at either end
_SHRINKS = np.linspace(1.0, 0.3, 71)
_STEPS = 255
_LARGEST = 8e6  # that codes of a float16 scale reach

Ends = tuple[float, float]


def chosen(
    model: Classifier, images: Tensor, tensors: Collection[str], method: str
) -> dict[str, Ends]:
    """The range of each tensor; those that a concatenation joins have one, of the values of all.

    Args:
        model: batch norm folded, evaluation mode.
        images: uint8 (N, 3, H, W).
        tensors: names, as `quantizer.layers` gives them, and `input`.
        method: `percentile` clips 0.01 % of the values at either end; `mse` makes the squared
            rounding and clipping error least; `entropy` loses the least information
            (Kullback-Leibler, as in Migacz 2017), both over ends shrunk alike.

    Raises:
        BadInput: as `widest`.
    """
    choose = _METHODS[method]
    ends = widest(model, images, tensors)
    counts: dict[str, np.ndarray] = {}
    first = _first(model, tensors)

    def count(name: str, x: Tensor) -> None:
        low, high = ends[name]
        if low < high:
            found = torch.histc(x.float(), _BINS, low, high).numpy()
            counts[first[name]] = counts.get(first[name], 0) + found.astype(np.float64)

    _walk(model, images, tensors, count)
    found = {n: choose(counts[n], *ends[n]) if n in counts else ends[n] for n in first.values()}
    return {name: found[first[name]] for name in ends}


def widest(model: Classifier, images: Tensor, tensors: Collection[str]) -> dict[str, Ends]:
    """The lowest and highest value of each tensor, and zero; arguments as of `chosen`.

    Raises:
        BadInput: a tensor's values are no numbers, or too large for any scale.
    """
    ends: dict[str, Ends] = {}
    first = _first(model, tensors)
    order: list[str] = []  # of the network, whatever the order of `tensors`

    def widen(name: str, x: Tensor) -> None:
        if name not in order:
            order.append(name)
        low, high = x.amin().item(), x.amax().item()
        if not (size := max(-low, high)) <= _LARGEST:
            raise BadInput(
                f"{model.spec.name}: {name} gives values of size {size:.3g}, which can't be "
                "quantized; its weights or its batch norm are broken, or its mean and std are "
                "another network's"
            )
        known = ends.get(first[name], (0.0, 0.0))
        ends[first[name]] = min(known[0], low), max(known[1], high)

    _walk(model, images, tensors, widen)
    return {name: ends[first[name]] for name in order}


def crowded(model: Classifier, images: Tensor, table: ScaleTable) -> dict[str, float]:
    """Of tensors that have one scale with others, as a concatenation joins them: how many of their
    255 steps they reach.

    Args:
        model, images: as of `chosen`.
    """
    joined = frozenset[str]().union(*concatenated(model.spec)).intersection(table)
    ends: dict[str, Ends] = dict.fromkeys(joined, (0.0, 0.0))

    def widen(name: str, x: Tensor) -> None:
        low, high = ends[name]
        ends[name] = min(low, x.amin().item()), max(high, x.amax().item())

    _walk(model, images, joined, widen)
    return {name: (high - low) / table[name].scale[0] for name, (low, high) in ends.items()}


def _first(model: Classifier, tensors: Collection[str]) -> dict[str, str]:
    """Tensor -> the first of those that a concatenation joins with it; most often itself."""
    found = {name: name for name in tensors}
    for group in concatenated(model.spec):
        names = sorted(group.intersection(found))
        found |= dict.fromkeys(names, names[0]) if names else {}
    return found


def _walk(
    model: Classifier, images: Tensor, tensors: Collection[str], look: Callable[[str, Tensor], None]
) -> None:
    walk = _Walk(model, set(tensors), look)
    with torch.no_grad():
        for part in images.split(_BATCH):
            walk.run(prepared(part, model.spec.preprocess))


class _Walk(Interpreter):
    """Runs the float network and shows each named tensor."""

    def __init__(self, model: Classifier, tensors: set[str], look: Callable[[str, Tensor], None]):
        graph = export_program(model.eval()).module()
        super().__init__(graph)
        self.extra_traceback = False  # else a refusal would get it
        names = {layer.last: layer.name for layer in layers(graph)} | {image_input(graph): "input"}
        self.names = {node: name for node, name in names.items() if name in tensors}
        self.look = look

    def run_node(self, n: Node) -> object:
        value = super().run_node(n)
        if n in self.names:
            self.look(self.names[n], value)
        return value


def _percentile(counts: np.ndarray, low: float, high: float) -> Ends:
    share = np.cumsum(counts) / counts.sum()
    edges = np.linspace(low, high, _BINS + 1)
    first = int(np.searchsorted(share, _TAIL, side="right"))
    last = int(np.searchsorted(share, 1 - _TAIL))
    # A tensor that starts at 0 (after a ReLU) has its tail at the other end only.
    return (low if low == 0 else float(edges[first])), float(edges[min(last + 1, _BINS)])


def _squared_error(counts: np.ndarray, low: float, high: float) -> Ends:
    centres = _centres(low, high)

    def error(shrink: float) -> float:
        step = shrink * (high - low) / _STEPS
        kept = centres.clip(shrink * low, shrink * high)
        rounded = np.rint(kept / step) * step
        return float((counts * (rounded - centres) ** 2).sum())

    return _best(error, low, high)


def _divergence(counts: np.ndarray, low: float, high: float) -> Ends:
    centres = _centres(low, high)
    # Half of what a ReLU gives is exactly zero, and exact whatever the ends: it must not decide.
    zero = min(int(-low / (high - low) * _BINS), _BINS - 2)
    counts = counts.copy()
    counts[zero] = counts[zero + 1]

    def error(shrink: float) -> float:
        inside = (centres >= shrink * low) & (centres <= shrink * high)
        if not inside.any():
            return float("inf")
        wanted = counts[inside].copy()
        kept = wanted.copy()
        wanted[0] += counts[: inside.argmax()].sum()  # what is clipped gets the last codes
        wanted[-1] += counts[len(inside) - inside[::-1].argmax() :].sum()
        codes = ((np.arange(len(kept)) * _STEPS) // len(kept)).astype(int)
        sums = np.bincount(codes, kept)
        filled = np.bincount(codes, kept > 0)
        spread = np.where(kept > 0, (sums / filled.clip(1))[codes], 0.0)
        p, q = wanted / wanted.sum(), spread / max(spread.sum(), 1e-12)
        seen = p > 0
        return float((p[seen] * np.log(p[seen] / q[seen].clip(1e-12))).sum())

    return _best(error, low, high)


def _best(error: Callable[[float], float], low: float, high: float) -> Ends:
    shrink = float(min(_SHRINKS, key=error))
    return shrink * low, shrink * high


def _centres(low: float, high: float) -> np.ndarray:
    return low + (np.arange(_BINS) + 0.5) * (high - low) / _BINS


_METHODS = {"percentile": _percentile, "mse": _squared_error, "entropy": _divergence}

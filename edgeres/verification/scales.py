"""The scale audit: is every scale and zero point in a file the one that was trained?

Operations are recognized by their weights, not by names, which every converter mangles: the int8
codes of a layer are known, so the operation that holds them is that layer. A weight that was
changed on the way is therefore found too. Those without weights are known by what they read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edgeres.compression.graph import WEIGHT_RANGES, wiring
from edgeres.models.modules import Classifier
from edgeres.targets._graph import FileGraph, FileOp
from edgeres.types import QuantParams, ScaleTable

_MOVING = ("move", "transpose", "boundary", "relu")


@dataclass(frozen=True)
class Audit:
    """What the audit found.

    Attributes:
        compared: tensors of the scale table (weights and activations).
        differing: `name: file has …, trained …` for each that is not equal or not in the file.
    """

    compared: int
    differing: tuple[str, ...]

    @property
    def equal(self) -> int:
        """How many tensors agree exactly."""
        return self.compared - len(self.differing)


def audit(graph: FileGraph, model: Classifier, scales: ScaleTable) -> Audit:
    """Compare every scale in a file with the trained one.

    Args:
        model: folded, as the file was written from.
        scales: its table; activations int8 (a file's uint8 zero points are taken back by 128).
    """
    found = file_scales(graph, model, scales)
    differing = []
    for name, trained in scales.items():
        stored = found.get(name)
        if stored is None:
            differing.append(f"{name}: not in the file (its weights or place were changed)")
        elif not same_params(stored, trained):
            differing.append(f"{name}: file has {shown(stored)}, trained {shown(trained)}")
    return Audit(len(scales), tuple(differing))


def file_scales(graph: FileGraph, model: Classifier, scales: ScaleTable) -> ScaleTable:
    """The file's scales under the trained table's names."""
    found: ScaleTable = {}
    entry = graph.input.quantization or _quantized_entry(graph)
    if entry:
        found["input"] = entry
    names = name_layers(graph, model, scales)
    for op in graph.ops:
        name = names.get(op.output)
        if name and op.output in graph.quantization:
            found[name] = graph.quantization[op.output]
        if name and op.weight_quantization is not None:
            found[f"{name}.weight"] = op.weight_quantization
    return found


def name_layers(graph: FileGraph, model: Classifier, scales: ScaleTable) -> dict[str, str]:
    """Output tensor of an operation -> the layer of the network that it is.

    A layer with weights is the operation that holds them; of several with the same ones (a batch
    norm that stands alone has the code 127 in every channel), and of those without weights, it is
    the one that reads what the layer reads.
    """
    names = _kept_float(graph, model, scales)
    unclaimed = {w.name: w for w in wiring(model.spec) if w.name not in names.values()}
    stored = {name.removesuffix(".weight"): codes(model, scales, name)
              for name in scales if name.endswith(".weight")}  # fmt: skip
    producers = _producers(graph)
    for op in graph.ops:
        if op.output in names:
            continue
        if _follows_float(op, graph) and op.inputs[0] in names:
            name = names[op.inputs[0]]
            if name not in scales:  # a runtime put the add after it into the same kernel
                name = next((w.name for w in unclaimed.values()
                             if name in w.sources and w.name in scales), name)  # fmt: skip
            names[op.output] = name
            continue
        if op.role == "relu" and op.inputs[0] in names:
            names[op.output] = names[op.inputs[0]]
            continue
        made = [_source(name, producers) for name in op.inputs]
        read = {names.get(tensor, "input" if tensor == graph.input.name else "") for tensor in made}
        if op.weight is not None:
            fits = [unclaimed[name] for name, expected in stored.items()
                    if name in unclaimed and _same(op.weight, expected)]  # fmt: skip
        else:
            fits = [wire for wire in unclaimed.values()
                    if wire.kind == op.role and read.intersection(wire.sources)]  # fmt: skip
        if fits:
            best = min(fits, key=lambda wire: len(read.symmetric_difference(wire.sources)))
            names[op.output] = best.name
            del unclaimed[best.name]
    return names


def float_by_choice(graph: FileGraph, model: Classifier, scales: ScaleTable) -> set[str]:
    """Outputs of the float operations that the recipe asked for.

    These are the layers without trained scales, known by their weights, and what is joined to them
    by float tensors: nothing is quantized between.
    """
    named = {op.output for op in graph.ops if op.weight is not None and op.floating}
    chosen = named & set(_kept_float(graph, model, scales))
    moved = {op.output for op in graph.ops if op.role == "move"} - graph.quantization.keys()
    plain = [op for op in graph.ops if op.weight is None and op.role != "boundary"
             and (op.floating or op.output in moved)]  # fmt: skip
    grown = True
    while chosen and grown:
        read = {name for op in graph.ops if op.output in chosen for name in op.inputs}
        new = {op.output for op in plain if op.output in read or chosen.intersection(op.inputs)}
        grown = not new <= chosen
        chosen |= new
    return chosen & {op.output for op in graph.ops if op.floating}


def _kept_float(graph: FileGraph, model: Classifier, scales: ScaleTable) -> dict[str, str]:
    """Output tensor -> layer, for layers with weights that stay float."""
    waiting = {
        name.removesuffix(".weight"): weight.numpy()
        for name, weight in model.state_dict().items()
        if name.endswith(".weight") and name not in scales
    }
    names: dict[str, str] = {}
    for op in graph.ops if waiting else ():
        if op.weight is None or not op.floating:
            continue
        for layer, expected in waiting.items():
            if op.weight.shape == expected.shape and np.allclose(op.weight, expected, 2e-3, 1e-6):
                names[op.output] = layer
                del waiting[layer]
                break
    return names


def _follows_float(op: FileOp, graph: FileGraph) -> bool:
    """A float layer's ReLU, the signs that keep it apart, or what quantizes its output."""
    alone = len(op.inputs) == 1 and op.inputs[0] not in graph.quantization
    return alone and op.role in ("boundary", "other", "mul", "move")


def sources(op: FileOp, graph: FileGraph, names: Mapping[str, str]) -> dict[str, str]:
    """Input tensor of an operation -> the layer whose codes it carries ("" if unknown)."""
    producers = _producers(graph)
    return {name: names.get(_source(name, producers), "") for name in op.inputs}


def codes(model: Classifier, scales: ScaleTable, name: str) -> np.ndarray:
    """A layer's weight codes (O, ...), int8 arrays, as its trained scales give them."""
    weight = model.state_dict()[name].numpy()
    scale = np.asarray(scales[name].scale, np.float32).reshape(-1, *[1] * (weight.ndim - 1))
    return np.rint(weight / scale).clip(*WEIGHT_RANGES[scales[name].dtype]).astype(np.int8)


def _producers(graph: FileGraph) -> dict[str, FileOp]:
    """Tensor -> what makes it."""
    # A fused kernel and the quantize inside it name the same tensor: the kernel made it.
    return {op.output: op for op in sorted(graph.ops, key=lambda o: o.role != "boundary")}


def _source(name: str, producers: dict[str, FileOp]) -> str:
    """The tensor whose codes a tensor carries, through what only moves codes."""
    while (op := producers.get(name)) is not None and op.role in _MOVING and op.inputs:
        name = op.inputs[0]
    return name


def _quantized_entry(graph: FileGraph) -> QuantParams | None:
    """A file with float input quantizes it first."""
    for op in graph.ops:
        if op.role == "boundary" and graph.input.name in op.inputs:
            return graph.quantization.get(op.output)
    return None


def trimmed(stored: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A kernel without zeros below and to the right of the network's; else as it is."""
    if not stored.ndim == len(shape) == 4 or stored.shape[:2] != shape[:2]:
        return stored
    height, width = shape[2:]
    if stored[:, :, height:].any() or stored[:, :, :, width:].any():
        return stored
    return stored[:, :, :height, :width]


def _same(stored: np.ndarray, expected: np.ndarray) -> bool:
    stored = trimmed(stored, expected.shape)
    return (
        stored.shape == expected.shape
        and stored.dtype == np.int8
        and bool((stored == expected).all())
    )


def same_params(stored: QuantParams, trained: QuantParams) -> bool:
    shift = 128 if stored.dtype == "uint8" and trained.dtype == "int8" else 0
    return (
        len(stored.scale) == len(trained.scale)
        and bool(
            (np.asarray(stored.scale, np.float32) == np.asarray(trained.scale, np.float32)).all()
        )
        and all(a - shift == b for a, b in zip(stored.zero_point, trained.zero_point, strict=True))
    )


def shown(params: QuantParams) -> str:
    more = "…" if len(params.scale) > 1 else ""
    return f"scale {params.scale[0]:.9g}{more} zero point {params.zero_point[0]}{more}"

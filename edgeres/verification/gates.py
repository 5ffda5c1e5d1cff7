"""What must hold of a file: measurements flow in, gates (value, limit, passed) flow out."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from edgeres import targets
from edgeres.types import Comparison, Gate

if TYPE_CHECKING:
    from edgeres.models.modules import Classifier
    from edgeres.recipe import VerifySection
    from edgeres.targets._graph import FileGraph
    from edgeres.verification.layers import LayerCheck
    from edgeres.verification.parity import Parity

COMPRESSED = ("dynamic", "palettized")  # other weights than the network's: only answers count
FINER = {"int16x8": 16}  # limits are in int8 codes; a 16-bit code is 1/256 of one


def integer_gates(graph: FileGraph, model: Classifier, chosen: Collection[str] = ()) -> list[Gate]:
    """What makes an int8 file an int8 file.

    Layers with 4-bit weights may be float: not every runtime has an integer kernel for them.

    Args:
        chosen: outputs of operations that the recipe leaves float; others must be integer.
    """
    from edgeres.compression.graph import wiring

    unpacked = {op.output for op in graph.four_bits() if op.floating}
    adds = sum(layer.kind == "add" for layer in wiring(model.spec))
    gates = [
        Gate(
            "float operators" + (" not excluded" if chosen else ""),
            len(graph.float_operators({*chosen, *unpacked})),
            "==",
            0,
        ),
        Gate("transpose operators", graph.count("transpose"), "==", 0),
    ]
    if not chosen:  # a float add may be part of a convolution's kernel
        gates.insert(1, Gate("residual adds", graph.count("add"), "==", adds))
    if graph.format == "tflite" and not chosen:
        gates.append(Gate("quantize and dequantize operators", graph.count("boundary"), "==", 0))
    if graph.format in ("tflite", "onnx"):
        integer = graph.input.quantization is not None and graph.output.quantization is not None
        gates.append(Gate("integer input and output", float(integer), "==", 1))
    return gates


def layer_gates(
    checks: tuple[LayerCheck, ...] | None, limits: VerifySection, notes: list[str]
) -> list[Gate]:
    """None of its layers may be far from what its own inputs give; `notes` gets the first.

    Args:
        checks: None where the runtime hides its tensors; nothing is asked then.
    """
    if checks is None:
        return []
    wrong = [c for c in checks if c.worst > limits.layer_codes]
    if wrong:
        notes.append(f"the first wrong layer is {wrong[0].name}: {wrong[0].worst:g} codes from "
                     "what its own inputs give")  # fmt: skip
    worst = max((c.worst for c in checks), default=float("nan"))
    return [Gate("worst layer from its own inputs", worst, "<=", limits.layer_codes, "codes")]


def difference_gates(found: Parity, precision: str, limits: VerifySection) -> list[Gate]:
    """How far the answers may be from the network's; compressed weights are other weights."""
    if precision in COMPRESSED:
        return []
    if targets.is_integer(precision):
        finer = FINER.get(precision, 1)
        worst, mean = limits.worst_codes * finer, limits.mean_codes * finer
        return [
            Gate("worst difference", found.worst, "<=", worst, "codes"),
            Gate("mean difference", found.mean, "<=", mean, "codes"),
        ]
    limit = limits.half_tolerance if precision == "fp16" else limits.float_tolerance
    return [Gate("worst difference", found.worst, "<=", limit, "logits")]


def batch_gate(found: Parity, precision: str, limits: VerifySection) -> Gate:
    """An image's answer may not depend on the images beside it (float sums have another order)."""
    if targets.is_integer(precision):
        return Gate("worst difference in a batch", found.worst, "<=", 1, "codes")
    limit = limits.half_tolerance if precision == "fp16" else limits.float_tolerance
    return Gate("worst difference in a batch", found.worst, "<=", limit, "logits")


def required(target: str) -> Mapping[str, tuple[Comparison, float | None]]:
    """What every certificate of a target's file asks, if something here runs the file.

    Returns:
        gate -> its comparison, and its limit where no recipe may choose one; where a recipe leaves
        layers float, the gate is called "float operators not excluded".
    """
    module, precision = targets.load(target)
    found: dict[str, tuple[Comparison, float | None]] = {
        "file unchanged since export": ("==", 1),
        "wrong or missing notes in the file": ("==", 0),
        "parts that are not the network's": ("==", 0),
        "top-1 agreement": (">=", None),
    }
    if precision not in COMPRESSED:
        found["worst difference"] = ("<=", None)
    if getattr(module, "ANY_BATCH", False):
        found["worst difference in a batch"] = ("<=", 1 if targets.is_integer(precision) else None)
    if targets.is_integer(precision):
        found |= {
            "float operators": ("==", 0),
            "transpose operators": ("==", 0),
            "scales that differ from training": ("==", 0),
            "mean difference": ("<=", None),
        }
    return found

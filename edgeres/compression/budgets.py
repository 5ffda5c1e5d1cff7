"""What a pruned network may cost: a network and a number in, a `Budget` out.

Every budget is a limit on a function of the layers' shapes, so one search serves them all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from edgeres.errors import BadInput
from edgeres.models import shapes as layer_shapes
from edgeres.models.latency import LatencyTable
from edgeres.models.shapes import LayerShape

Shapes = Sequence[LayerShape]


@dataclass(frozen=True)
class Budget:
    """A limit on what a network may cost.

    Attributes:
        key: of the recipe, for messages.
        limit: in the unit of `cost`.
        cost: the layers' shapes -> a number; a sum over layers, and perhaps a constant.
        shown: such a number -> text, as a person would write it in the recipe.
    """

    key: str
    limit: float
    cost: Callable[[Shapes], float]
    shown: Callable[[float], str]

    def at(self, limit: float) -> Budget:
        """The same with another limit."""
        return replace(self, limit=limit)


def macs(shapes: Shapes, share: float) -> Budget:
    """At most `share` of these layers' multiply-accumulates."""
    return _share("prune.macs", layer_shapes.macs, shapes, share)


def parameters(shapes: Shapes, share: float) -> Budget:
    """At most `share` of these layers' trained parameters."""
    return _share("prune.params", layer_shapes.parameters, shapes, share)


def size(target: str, limit_bytes: float) -> Budget:
    """At most so many bytes in the int8 file, by `file_bytes`.

    Raises:
        BadInput: nothing is known of this target's files.
    """
    if target not in _FILE:
        raise BadInput(f"prune.target: the size of {target} files can't be told in advance; "
                       f"use {' or '.join(_FILE)}")  # fmt: skip
    return Budget("prune.size", limit_bytes, lambda shapes: file_bytes(shapes, target),
                  lambda value: f"{value / 1e3:.1f}KB")  # fmt: skip


def latency(table: LatencyTable, limit_ns: float) -> Budget:
    """At most so many nanoseconds, by a table of measured layers."""
    return Budget("prune.latency", limit_ns, table.predict, lambda value: f"{value / 1e6:.3g}ms")


# target -> bytes per output channel (bias, scales, zero points), per operation (names, shapes,
# options) and per file (metadata, labels); fitted to files of ResNet-8 and ResNet-20.
_FILE = {"tflite-int8": (24, 650, 450), "onnx-int8": (24, 200, 2350)}


def file_bytes(shapes: Shapes, target: str) -> float:
    """What an int8 file will weigh: a byte per weight, and what surrounds them."""
    per_channel, per_operation, fixed = _FILE[target]
    channels = sum(shape.cout for shape in shapes if shape.weights)
    weights = sum(shape.weights for shape in shapes)
    operations = sum(shape.kind != "norm" for shape in shapes)
    return weights + per_channel * channels + per_operation * operations + fixed


def _share(key: str, cost: Callable[[Shapes], float], shapes: Shapes, share: float) -> Budget:
    whole = cost(shapes)
    return Budget(key, share * whole, cost, lambda value: f"{value / whole:.2f}")

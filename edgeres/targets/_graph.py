"""A model file as verification sees it, whatever its format: operations, tensors, scales."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from edgeres.types import QuantParams, TensorSpec, to_json

if TYPE_CHECKING:
    import numpy as np

Role = Literal["conv", "linear", "add", "mul", "sigmoid", "pool", "concat", "move", "boundary",
               "transpose", "relu", "other"]  # fmt: skip
"""What an operation does. "move" rearranges codes (pad, reshape, max pool); "boundary" quantizes or
dequantizes; "relu" cuts off codes that a layer wrote; "other" is anything this vocabulary doesn't
name."""


@dataclass(frozen=True)
class FileOp:
    """One operation of a file.

    Attributes:
        kind: the format's own operator name, e.g. `CONV_2D` or `QLinearConv`.
        name: what the file calls it, for messages.
        inputs: names of the tensors it computes from (constants left out).
        weight: (O, I, kH, kW) or (O, I), codes if quantized; None for operations without weights.
        floating: it computes in floating point.
        weight_quantization: how the weight's codes map to real values.
        shape: of its output with batch 1, in PyTorch's order (1, C, H, W) or (1, C); () if unknown.
        constant_bytes: size of the weights, biases and tables stored for it.
        stride: of a convolution, (height, width); only TFLite's reader says it.
    """

    kind: str
    role: Role
    name: str
    inputs: tuple[str, ...]
    output: str
    floating: bool
    weight: np.ndarray | None = None
    weight_quantization: QuantParams | None = None
    shape: tuple[int, ...] = ()
    constant_bytes: int = 0
    stride: tuple[int, int] = (1, 1)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image; 0 where there are no weights or no known shape."""
        if self.weight is None or not self.shape:
            return 0
        return math.prod(self.shape[1:]) * math.prod(self.weight.shape[1:])


@dataclass(frozen=True)
class FileGraph:
    """A whole file.

    Attributes:
        quantization: tensor name -> how its codes map to real values (quantized activations only).
        partitions: how many pieces the runtime's accelerator delegate cut it into; None if unknown.
        metadata: what the file says of itself, e.g. `edgeres.labels`.
        requires: the oldest runtime that can run it, e.g. `TensorFlow Lite 2.3`; "" if unknown.
        versions: operator (or operator set) -> the version that the file uses.
        delegated: operator -> what else than the runtime has to compute it.
        any_batch: the file leaves open how many images it takes at once.
        also: further inputs and outputs, which `input` and `output` aren't.
    """

    format: str
    ops: tuple[FileOp, ...]
    input: TensorSpec
    output: TensorSpec
    quantization: Mapping[str, QuantParams] = field(default_factory=dict)
    partitions: int | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    requires: str = ""
    versions: Mapping[str, int] = field(default_factory=dict)
    delegated: Mapping[str, str] = field(default_factory=dict)
    any_batch: bool = False
    also: tuple[tuple[Literal["input", "output"], TensorSpec], ...] = ()

    def operators(self) -> dict[str, int]:
        """How often each operator occurs."""
        return dict(Counter(op.kind for op in self.ops))

    def float_operators(self, chosen: Collection[str] = ()) -> list[str]:
        """`KIND name` of each operation that computes in floating point.

        Args:
            chosen: outputs of those that are meant to, which are left out.
        """
        return [f"{op.kind} {op.name}" for op in self.ops
                if op.floating and op.output not in chosen]  # fmt: skip

    def four_bits(self) -> list[FileOp]:
        """The layers whose weights are stored in 4 bits."""
        return [op for op in self.ops
                if op.weight_quantization and op.weight_quantization.dtype == "int4"]  # fmt: skip

    def count(self, role: Role) -> int:
        """How many operations have a role."""
        return sum(op.role == role for op in self.ops)

    def precision(self) -> str:
        """What the file is, as targets' names end: by layers' answers, else by their weights."""
        layers = [op for op in self.ops if op.role in ("conv", "linear")]
        codes = Counter(self.quantization[op.output].dtype for op in layers
                        if op.output in self.quantization)  # fmt: skip
        if self.four_bits():
            return "int4"
        if codes or self.quantization:
            most = codes.most_common(1)
            return "int16x8" if most and most[0][0].endswith("int16") else "int8"
        if any("lut_to_dense" in op.kind for op in self.ops):
            return "palettized"
        weights = Counter(str(op.weight.dtype) for op in layers if op.weight is not None)
        kind = weights.most_common(1)[0][0] if weights else self.input.dtype
        return {"float16": "fp16", "float32": "fp32"}.get(kind, "dynamic")

    def integer_share(self) -> dict[str, float]:
        """Share of operators, multiply-accumulates and stored bytes that are computed in integers.

        Operators that only move, quantize or dequantize codes aren't counted.
        """
        working = [op for op in self.ops if op.role not in ("move", "boundary", "transpose")]

        def share(amount: Callable[[FileOp], int]) -> float:
            whole = sum(map(amount, working))
            return sum(amount(op) for op in working if not op.floating) / whole if whole else 0.0

        return {
            "operators": share(lambda op: 1),
            "macs": share(lambda op: op.macs),
            "bytes": share(lambda op: op.constant_bytes),
        }


def described(graph: FileGraph) -> dict[str, object]:
    """A file as JSON-ready facts: sums first, then every operation in execution order."""
    counted = [op for op in graph.ops if op.weight is not None and op.role in ("conv", "linear")]
    sized = all(op.shape and min(op.shape) > 0 for op in counted)
    return {
        "operators": graph.operators(),
        "float_operators": graph.float_operators(),
        "integer_share": graph.integer_share(),
        "transposes": graph.count("transpose"),
        "residual_adds": sum(op.role == "add" and len(op.inputs) > 1 for op in graph.ops),
        "partitions": graph.partitions,
        "macs": sum(op.macs for op in graph.ops) if sized else 0,
        "any_batch": graph.any_batch,
        "also": [{"end": end, **to_json(spec)} for end, spec in graph.also],
        "constant_bytes": sum(op.constant_bytes for op in graph.ops),
        "four_bits": len(graph.four_bits()),
        "requires": graph.requires,
        "versions": dict(graph.versions),
        "delegates": dict(graph.delegated),
        "metadata": dict(graph.metadata),
        "layers": [
            {"kind": op.kind, "role": op.role, "name": op.name, "floating": op.floating,
             "inputs": list(op.inputs), "output": op.output, "shape": list(op.shape),
             "macs": op.macs, "constant_bytes": op.constant_bytes} for op in graph.ops
        ],
    }  # fmt: skip

"""What a .tflite file says: `ModelT` in, `FileGraph` out; nothing is run.

Foreign files come through here too: every size, index and name in them may be anything.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgeres.errors import BadInput
from edgeres.network import tflite_file as file
from edgeres.targets import _tflite_custom
from edgeres.targets import _tflite_metadata as metadata
from edgeres.targets._graph import FileGraph, FileOp, Role
from edgeres.targets._tflite_versions import newer, oldest_runtime
from edgeres.types import QuantParams, TensorSpec

if TYPE_CHECKING:
    import numpy as np
    from ai_edge_litert import schema_py_generated as schema

_ROLES: dict[str, Role] = {
    "CONV_2D": "conv", "DEPTHWISE_CONV_2D": "conv", "FULLY_CONNECTED": "linear", "ADD": "add",
    "MUL": "mul", "LOGISTIC": "sigmoid", "CONCATENATION": "concat",
    "MEAN": "pool", "AVERAGE_POOL_2D": "pool", "PAD": "move",
    "PADV2": "move", "RESHAPE": "move", "MAX_POOL_2D": "move", "TRANSPOSE": "transpose",
    "QUANTIZE": "boundary", "DEQUANTIZE": "boundary",
}  # fmt: skip
_FLOATING = ("float32", "float16", "float64", "bfloat16", "float8_e4m3fn", "float8_e5m2")
# What converters and runtimes tell one another, and the standard metadata, which is no text.
_FOR_RUNTIMES = (metadata.RUNTIME, metadata.STANDARD, "keep_stablehlo_constant",
                 "CONVERSION_METADATA")  # fmt: skip


def graph_of(model: schema.ModelT, path: Path) -> FileGraph:
    """Turn a file's objects into a `FileGraph` (`path` is for messages).

    Raises:
        BadInput: the file contradicts itself, or isn't a network with one input and one output.
    """
    try:
        main = model.subgraphs[0]
        counts = [len(v) if v is not None else 0 for v in (main.inputs, main.outputs)]
        if counts != [1, 1]:
            raise BadInput(f"{path}: has {counts[0]} inputs and {counts[1]} outputs; "
                           "an image classifier has one of each")  # fmt: skip
        ops: list[FileOp] = []
        quantization: dict[str, QuantParams] = {}
        seen: set[int] = set()  # buffers: what several operations share is counted once
        for number, subgraph in enumerate(model.subgraphs):
            tensors = [file.stored(model, i, t, number) for i, t in enumerate(subgraph.tensors)]
            ops += _operations(model, subgraph, tensors, seen)
            quantization |= {t.name: t.quantization for t in tensors
                             if t.quantization and not t.constant}  # fmt: skip
            if number == 0:
                first, last = _io(tensors[main.inputs[0]]), _io(tensors[main.outputs[0]])
        notes, versions = metadata.notes(model), metadata.versions(model)
        # Tools that change a file forget this note, so what the operators need counts too.
        release = newer(notes.get(metadata.RUNTIME, ""), oldest_runtime(versions))
        requires = f"TensorFlow Lite {release}" if release else ""
        told = {k: v for k, v in notes.items() if k not in _FOR_RUNTIMES}
        return FileGraph("tflite", tuple(ops), first, last, quantization, None, told, requires,
                         versions, _tflite_custom.delegated(model))  # fmt: skip
    except BadInput:
        raise
    except Exception as error:  # indices that point nowhere, sizes that don't fit
        raise file.damaged(path, error) from error


def _operations(
    model: schema.ModelT, subgraph: schema.SubGraphT, tensors: list[file.Stored], seen: set[int]
) -> list[FileOp]:
    ops = []
    unpacked: dict[int, file.Stored] = {}  # a DEQUANTIZE's output -> the constant that it unpacks
    for number, op in enumerate(subgraph.operators):
        indices = [int(i) for i in op.inputs if i >= 0] if op.inputs is not None else []
        inputs = [unpacked.get(i, tensors[i]) for i in indices]
        outputs = [tensors[i] for i in op.outputs] if op.outputs is not None else []
        kind = file.kind(model, op)
        if kind == "DEQUANTIZE" and inputs[0].constant:
            unpacked[int(op.outputs[0])] = inputs[0]
        size = sum(len(model.buffers[b].data) for b in
                   {t.buffer for t in inputs if t.constant} - seen)  # fmt: skip
        if kind != "DEQUANTIZE":  # what that unpacks belongs to the operation that uses it
            seen |= {t.buffer for t in inputs if t.constant}
        else:
            size = 0
        options = op.builtinOptions
        stride = getattr(options, "strideH", 1), getattr(options, "strideW", 1)
        ops.append(_operation(kind, number, inputs, outputs, size, stride))
    return ops


def _operation(
    kind: str, number: int, inputs: list[file.Stored], outputs: list[file.Stored], size: int,
    stride: tuple[int, int],
) -> FileOp:  # fmt: skip
    role = _ROLES.get(kind, "other")
    output = outputs[0].name if outputs else ""
    floating = role != "boundary" and any(t.dtype in _FLOATING for t in (*inputs, *outputs))
    stored = inputs[1] if role in ("conv", "linear") and len(inputs) > 1 else None
    weight = _pytorch_weight(kind, stored.data) if stored and stored.data is not None else None
    return FileOp(
        kind,
        role,
        f"#{number} {output}",
        tuple(t.name for t in inputs if not t.constant),
        output,
        floating,
        weight,
        _of_weight(stored.quantization) if stored and weight is not None else None,
        _pytorch_shape(outputs[0].shape) if outputs else (),
        size,
        stride,
    )


def _pytorch_weight(kind: str, data: np.ndarray) -> np.ndarray:
    if data.ndim != 4:
        return data
    # (1, kH, kW, O) of a depthwise convolution, else (O, kH, kW, I)
    return data.transpose((3, 0, 1, 2) if kind == "DEPTHWISE_CONV_2D" else (0, 3, 1, 2))


def _of_weight(params: QuantParams | None) -> QuantParams | None:
    """Per channel means per output channel, which PyTorch puts first."""
    if params is None or params.axis is None:
        return params
    return QuantParams(params.scale, params.zero_point, params.dtype, 0)


def _pytorch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """With batch 1, channels second; () unless every other size is known."""
    if len(shape) not in (2, 4) or any(n < 1 for n in shape[1:]):
        return ()
    return (1, shape[3], shape[1], shape[2]) if len(shape) == 4 else (1, shape[1])


def _io(tensor: file.Stored) -> TensorSpec:
    shape = tensor.shape
    layout = "NC"
    if len(shape) == 4:  # some converters keep PyTorch's order
        layout = "NCHW" if shape[1] in (1, 3) and shape[3] not in (1, 3) else "NHWC"
    return TensorSpec(tensor.name, shape, tensor.dtype, layout, tensor.quantization)

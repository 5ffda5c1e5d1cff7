"""What is changed in a .tflite file's objects after conversion, and the proofs that it may be.

Every function changes a `ModelT` in place.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from edgeres.network import tflite_file as file

if TYPE_CHECKING:
    import numpy as np
    from ai_edge_litert import schema_py_generated as schema

_RELUS = (1, 3)  # ActivationFunctionType RELU, RELU6


def zero_padding(model: schema.ModelT) -> None:
    """Write PAD for PADV2 where both give the same numbers.

    A max pool is padded with the smallest value there is, by PADV2, which XNNPACK doesn't take: the
    network falls apart in two. PAD, which it takes, fills with real 0. That is the same

    - where PADV2 fills with 0 (an integer tensor's zero point), and
    - where it fills with the smallest value, between a ReLU and a max pool each of whose windows
      has at least one pixel: nothing after a ReLU is below 0, so the maximum stays what it was.
    """
    graph = model.subgraphs[0]
    for op in graph.operators:
        if file.kind(model, op) == "PADV2" and _may_be_zero(model, graph, op):
            _become_pad(model, op)


def expose(model: schema.ModelT) -> list[int]:
    """Make every computed tensor an output of the main graph; returns their indices in that order.

    What is computed from constants alone (unpacked weights) stays inside: the runtime does that
    while loading.
    """
    graph = model.subgraphs[0]
    known = {i for i, t in enumerate(graph.tensors) if file.constant(model, t) is not None}
    indices: list[int] = []
    for op in graph.operators:
        outputs = [int(i) for i in op.outputs if i >= 0]
        if all(int(i) in known for i in op.inputs if i >= 0):
            known.update(outputs)
        else:
            indices += [i for i in outputs if i not in indices]
    graph.outputs = indices
    model.signatureDefs = None  # they describe the outputs that were
    return indices


def wide_strided(model: schema.ModelT) -> None:
    """Write int8 1x1 convolutions with stride 2 as 2x2 ones, whose further weights are 0.

    They give the same codes. LiteRT's GPU accelerator computes the first kind as if its stride were
    1 where an addition follows (docs/runtimes.md). Of an odd size they stay: the larger window
    would reach over the edge.
    """
    import numpy as np

    graph = model.subgraphs[0]
    for op in graph.operators:
        if file.kind(model, op) != "CONV_2D":
            continue
        image, weight = (graph.tensors[i] for i in op.inputs[:2])
        options = op.builtinOptions
        strides = (options.strideH, options.strideW)
        plain = options.dilationHFactor == options.dilationWFactor == 1
        even = not any(int(size) % 2 for size in image.shape[1:3])
        if not (even and plain):
            continue
        if strides != (2, 2) or list(weight.shape[1:3]) != [1, 1] or weight.type != 9:
            continue
        stored = file.constant(model, weight)
        assert stored is not None
        made, _, _, read = map(int, weight.shape)
        wide = np.zeros((made, 2, 2, read), np.int8)
        wide[:, 0, 0] = stored.view(np.int8).reshape(made, read)
        other = copy.copy(weight)  # another operation may read the old one
        buffer = type(model.buffers[weight.buffer])()
        buffer.data = wide.reshape(-1).view(np.uint8)
        model.buffers.append(buffer)
        other.buffer, other.shape = len(model.buffers) - 1, np.array(wide.shape, np.int32)
        graph.tensors.append(other)
        op.inputs = np.array([op.inputs[0], len(graph.tensors) - 1, *op.inputs[2:]], np.int32)


def end_at(model: schema.ModelT, tensor: str) -> bool:
    """Make a tensor the main graph's only output, and take out what comes after it.

    False, and nothing is changed, where no operation of the main graph makes one of that name.
    """
    graph = model.subgraphs[0]
    for number, op in enumerate(graph.operators):
        for index in map(int, op.outputs):
            if index >= 0 and file.tensor_name(index, graph.tensors[index]) == tensor:
                graph.operators = graph.operators[: number + 1]
                graph.outputs = [index]
                model.signatureDefs = None  # they describe the outputs that were
                drop_unused(model)
                return True
    return False


def _may_be_zero(model: schema.ModelT, graph: schema.SubGraphT, op: schema.OperatorT) -> bool:
    import numpy as np

    source, amounts, fill = (graph.tensors[i] for i in op.inputs)
    dtype = {0: np.float32, 7: np.int16, 9: np.int8}.get(source.type)
    stored, pads = file.constant(model, fill), file.constant(model, amounts)
    if dtype is None or stored is None or pads is None or amounts.type != 2:
        return False
    value = stored.view(dtype).item()
    if value == _zero(source):
        return True
    info: Any = np.finfo(dtype) if dtype is np.float32 else np.iinfo(dtype)
    pools = [o for o in graph.operators if op.outputs[0] in o.inputs]
    return (
        value <= info.min
        and _after_relu(graph, op.inputs[0])
        and op.outputs[0] not in graph.outputs
        and all(file.kind(model, o) == "MAX_POOL_2D" for o in pools)
        and all(_sees_pixels(o.builtinOptions, pads.view(np.int32).reshape(-1, 2)) for o in pools)
    )


def _zero(tensor: schema.TensorT) -> float:
    q = tensor.quantization
    return int(q.zeroPoint[0]) if q is not None and q.zeroPoint is not None else 0


def _after_relu(graph: schema.SubGraphT, index: int) -> bool:
    producer = next((o for o in graph.operators if index in o.outputs), None)
    options = producer.builtinOptions if producer is not None else None
    return getattr(options, "fusedActivationFunction", 0) in _RELUS


def _sees_pixels(pool: schema.Pool2DOptionsT, pads: np.ndarray) -> bool:
    """Whether no window of a pool lies in the padding alone; `pads` is (4, 2), NHWC."""
    return max(pads[1]) < pool.filterHeight and max(pads[2]) < pool.filterWidth


def _become_pad(model: schema.ModelT, op: schema.OperatorT) -> None:
    from ai_edge_litert import schema_py_generated as schema

    # PAD and PADV2 learned the same types with the same version numbers.
    op.opcodeIndex = _code(model, "PAD", model.operatorCodes[op.opcodeIndex].version)
    op.inputs = op.inputs[:2]
    op.builtinOptionsType = schema.BuiltinOptions.PadOptions
    op.builtinOptions = schema.PadOptionsT()


def _code(model: schema.ModelT, name: str, version: int) -> int:
    from ai_edge_litert import schema_py_generated as schema

    number = getattr(schema.BuiltinOperator, name)
    for index, code in enumerate(model.operatorCodes):
        if file.code_kind(code) == name and code.version == version:
            return index
    code = schema.OperatorCodeT()
    code.builtinCode, code.version = number, version
    code.deprecatedBuiltinCode = min(number, 127)
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def drop_unused(model: schema.ModelT) -> None:
    """Take out what the converter and the rewrites left behind: operator codes, tensors, buffers.

    A runtime without an operator refuses a file that lists it, used or not; and what a file holds
    should be accounted for (`_tflite_structure`).
    """
    import numpy as np

    (graph,) = model.subgraphs
    codes = sorted({op.opcodeIndex for op in graph.operators})
    model.operatorCodes = [model.operatorCodes[i] for i in codes]
    named = [m for s in model.signatureDefs or () for m in (*s.inputs, *s.outputs)]
    lists = [(part, field) for part in (graph, *graph.operators) for field in ("inputs", "outputs")]
    tensors = sorted({int(i) for part, field in lists for i in getattr(part, field)}
                     | {m.tensorIndex for m in named})  # fmt: skip
    places = {index: place for place, index in enumerate(i for i in tensors if i >= 0)}
    for op in graph.operators:
        op.opcodeIndex = codes.index(op.opcodeIndex)
    for part, field in lists:  # -1 stands for an input that is left out
        moved = [places.get(int(i), -1) for i in getattr(part, field)]
        setattr(part, field, np.array(moved, np.int32))
    for entry in named:
        entry.tensorIndex = places[entry.tensorIndex]
    graph.tensors = [graph.tensors[i] for i in places]
    holders = [*graph.tensors, *(model.metadata or ())]
    buffers = sorted({0, *(holder.buffer for holder in holders)})  # 0 is every file's empty one
    for holder in holders:
        holder.buffer = buffers.index(holder.buffer)
    model.buffers = [model.buffers[i] for i in buffers]

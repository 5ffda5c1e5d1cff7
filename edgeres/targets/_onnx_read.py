"""An ONNX model as a `FileGraph`: roles, scales and weights of its operations."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgeres.errors import BadInput
from edgeres.network import onnx_file as file
from edgeres.targets._graph import FileGraph, FileOp, Role
from edgeres.types import QuantParams, TensorSpec

if TYPE_CHECKING:
    import numpy as np
    import onnx

ROLES: dict[str, Role] = {
    "QLinearConv": "conv", "Conv": "conv", "FusedConv": "conv", "ConvInteger": "conv",
    "QGemm": "linear", "Gemm": "linear", "MatMul": "linear", "FusedGemm": "linear",
    "QLinearMatMul": "linear", "MatMulInteger": "linear",
    "QLinearAdd": "add", "Add": "add", "QLinearMul": "mul", "Mul": "mul",
    "QLinearConcat": "concat", "Concat": "concat",
    "QLinearSigmoid": "sigmoid", "Sigmoid": "sigmoid", "QLinearGlobalAveragePool": "pool",
    "QLinearAveragePool": "pool", "GlobalAveragePool": "pool", "AveragePool": "pool",
    "ReduceMean": "pool", "Reshape": "move", "Flatten": "move", "MaxPool": "move",
    "Squeeze": "move", "Unsqueeze": "move", "Pad": "move", "Identity": "move",
    "Transpose": "transpose", "QuantizeLinear": "boundary", "DequantizeLinear": "boundary",
    "DynamicQuantizeLinear": "boundary", "Cast": "boundary",
}  # fmt: skip
# operator -> positions of weight, scale, zero point (or None); of output scale, zero point
_INTEGER: dict[str, tuple[tuple[int, int, int] | None, tuple[int, int]]] = {
    "QLinearConv": ((3, 4, 5), (6, 7)), "QGemm": ((3, 4, 5), (7, 8)),
    "QLinearMatMul": ((3, 4, 5), (6, 7)), "QLinearAdd": (None, (6, 7)),
    "QLinearMul": (None, (6, 7)), "QLinearGlobalAveragePool": (None, (3, 4)),
    "QLinearAveragePool": (None, (3, 4)), "QLinearSigmoid": (None, (3, 4)),
    "QLinearConcat": (None, (0, 1)), "QLinearLeakyRelu": (None, (3, 4)),
    "QLinearSoftmax": (None, (3, 4)),
}  # fmt: skip
_INTEGER_OUTPUT_UNSCALED = ("ConvInteger", "MatMulInteger")  # int32 sums


def graph(path: Path, kind: str, model: onnx.ModelProto, stored: onnx.ModelProto) -> FileGraph:
    """Describe `model`, the form of `stored` that a runtime executes.

    Raises:
        BadInput: its first input or output is not a tensor.
    """
    constants = file.constant_values(model)
    packed = file.unpacked(model)
    scales = _boundary_scales(stored)
    codes = {v.name for v in file.inputs(stored) if _is_integer(v)}
    sizes = file.constant_bytes(model)
    found = file.shapes(model)
    ops = tuple(
        _operation(node, constants, packed, scales, codes, found, size)
        for node, size in zip(model.graph.node, sizes, strict=True)
    )
    inputs, outputs = ([tensor_spec(path, value, scales) for value in values]
                       for values in (file.inputs(stored), stored.graph.output))  # fmt: skip
    sizes_in = file.inputs(stored)[0].type.tensor_type.shape.dim
    return FileGraph(
        kind, ops, inputs[0], outputs[0], scales, metadata=file.metadata(stored),
        requires=f"onnxruntime {version}" if (version := file.oldest_runtime(stored)) else "",
        versions=file.versions(stored), any_batch=bool(sizes_in) and not sizes_in[0].dim_value,
        also=(*(("input", spec) for spec in inputs[1:]), *(("output", s) for s in outputs[1:])),
    )  # fmt: skip


def tensor_spec(
    path: Path, value: onnx.ValueInfoProto, scales: dict[str, QuantParams]
) -> TensorSpec:
    """An input or output; a size that the file leaves open is 1 (batch) or -1."""
    import onnx

    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type") or not tensor.elem_type:
        raise BadInput(f"{path}: '{value.name}' is not a tensor; edgeres reads image networks")
    dims = [d.dim_value or (-1 if i else 1) for i, d in enumerate(tensor.shape.dim)]
    dtype = str(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    layout = "NC"
    if len(dims) == 4:
        layout = "NHWC" if dims[3] in (1, 3) and dims[1] not in (1, 3) else "NCHW"
    quantization = scales.get(value.name) if _is_integer(value) else None
    return TensorSpec(value.name, tuple(dims), dtype, layout, quantization)


def params(
    constants: dict[str, np.ndarray], names: Sequence[str], axis: int | None = None
) -> QuantParams | None:
    """Scale and zero point (0 if left out), None where they are computed at run time."""
    import numpy as np

    scale = constants.get(names[0]) if names else None
    zero = constants.get(names[1]) if len(names) > 1 and names[1] else np.zeros(1, np.uint8)
    if scale is None or zero is None or not scale.size or scale.size % zero.size:
        return None
    values = tuple(float(s) for s in scale.reshape(-1))
    zeros = tuple(int(z) for z in zero.reshape(-1))
    return QuantParams(values, zeros * (len(values) // len(zeros)), str(zero.dtype),
                       axis if len(values) > 1 else None)  # fmt: skip


def _boundary_scales(stored: onnx.ModelProto) -> dict[str, QuantParams]:
    """Scales of the tensors that the file itself quantizes, takes or gives as codes."""
    constants = file.constant_values(stored)
    scales: dict[str, QuantParams] = {}
    for node in stored.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] not in constants:
            name, names = node.input[0], node.input[1:]
        elif node.op_type == "QuantizeLinear":
            name, names = node.output[0], node.input[1:]
        elif node.op_type in _INTEGER:
            scales |= _ends(node, constants)
            continue
        else:
            continue
        found = params(constants, names)
        if found:
            scales[name] = found
    return scales


def _ends(node: onnx.NodeProto, constants: dict[str, np.ndarray]) -> dict[str, QuantParams]:
    """What an integer operator says of its first input and of its output."""
    first = 2 if node.op_type == "QLinearConcat" else 0
    named = {node.input[first]: (first + 1, first + 2), node.output[0]: _INTEGER[node.op_type][1]}
    found = {name: params(constants, [file.input_name(node, i) for i in positions])
             for name, positions in named.items()}  # fmt: skip
    return {name: known for name, known in found.items() if known}


def _operation(
    node: onnx.NodeProto, constants: dict[str, np.ndarray], packed: dict[str, tuple[str, ...]],
    scales: dict[str, QuantParams], codes: set[str], found: dict[str, tuple[int, ...]],
    stored_bytes: int,
) -> FileOp:  # fmt: skip
    """One node; adds its output to `scales` and, if integer, to `codes`."""
    kind = node.op_type
    role = ROLES.get(kind, "other")
    data = tuple(i for i in node.input if i and i not in constants and i not in packed)
    output = next((o for o in node.output if o), "")
    weight, weight_params = None, None
    if kind in _INTEGER:
        weight_at, _ = _INTEGER[kind]
        own = _ends(node, constants).get(output)
        if own:
            scales[output] = own
        if weight_at:
            weight = layer_weight(node, constants.get(file.input_name(node, weight_at[0])))
            weight_params = params(constants, [file.input_name(node, i) for i in weight_at[1:]], 0)
            stored = constants.get(file.input_name(node, weight_at[0]))
            if weight_params and stored is not None and stored.dtype.name == "int4":
                weight_params = dataclasses.replace(weight_params, dtype="int4")
        integer = not (kind == "QGemm" and not own)  # without an output scale it answers in float
    else:
        integer = kind in _INTEGER_OUTPUT_UNSCALED or kind == "QuantizeLinear"
        integer = integer or (role in ("move", "transpose") and bool(data) and data[0] in codes)
        if kind == "Clip" and data[0] in codes:
            role, integer = "relu", True
        if integer and role in ("move", "relu") and data[0] in scales:
            scales.setdefault(output, scales[data[0]])
        if role in ("conv", "linear"):
            name, *of_codes = packed.get(file.input_name(node, 1), (file.input_name(node, 1),))
            weight = layer_weight(node, constants.get(name))
            weight_params = params(constants, of_codes, 0)
    if integer:
        codes.add(output)
    floating = not integer and kind != "QGemm" and role != "boundary"
    return FileOp(kind, role, node.name or output, data, output, floating, weight, weight_params,
                  found.get(output, ()), stored_bytes)  # fmt: skip


def layer_weight(node: onnx.NodeProto, weight: np.ndarray | None) -> np.ndarray | None:
    """A stored weight as PyTorch has it: (O, I, kH, kW) or (O, I)."""
    if weight is None or weight.ndim < 2:
        return None
    weight = plain_codes(weight)
    by_columns = "MatMul" in node.op_type or (
        "Gemm" in node.op_type and not file.attribute(node, "transB", 0)
    )
    return weight.T if by_columns and weight.ndim == 2 else weight


def plain_codes(weight: np.ndarray) -> np.ndarray:
    """Codes of 4 bits as numpy has them, int8."""
    import numpy as np

    return weight.astype(np.int8) if weight.dtype.name == "int4" else weight


def _is_integer(value: onnx.ValueInfoProto) -> bool:
    import onnx

    kinds = onnx.TensorProto
    return value.type.tensor_type.elem_type in (
        kinds.UINT8, kinds.INT8, kinds.UINT16, kinds.INT16, kinds.INT4, kinds.UINT4,
    )  # fmt: skip

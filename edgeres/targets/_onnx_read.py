"""An ONNX model as a `FileGraph`: roles, scales, weights, shapes and versions, ours or foreign."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeres.errors import BadInput
from edgeres.targets._graph import FileGraph, FileOp, Role
from edgeres.types import QuantParams, TensorSpec

if TYPE_CHECKING:
    import numpy as np

ROLES: dict[str, Role] = {
    "QLinearConv": "conv", "Conv": "conv", "FusedConv": "conv", "ConvInteger": "conv",
    "QGemm": "linear", "Gemm": "linear", "MatMul": "linear", "FusedGemm": "linear",
    "QLinearMatMul": "linear", "MatMulInteger": "linear",
    "QLinearAdd": "add", "Add": "add", "QLinearMul": "mul", "Mul": "mul",
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
    "QLinearLeakyRelu": (None, (3, 4)), "QLinearSoftmax": (None, (3, 4)),
}  # fmt: skip
_INTEGER_OUTPUT_UNSCALED = ("ConvInteger", "MatMulInteger")  # int32 sums
# Operator set, file format version -> the oldest onnxruntime that loads them: tried with each
# release from 1.15 on; earlier ones from onnxruntime.ai/docs/reference/compatibility.html.
_RUNTIMES = (
    (7, 3, "1.0"), (11, 6, "1.0"), (12, 6, "1.3"), (13, 7, "1.6"), (14, 7, "1.8"), (15, 8, "1.10"),
    (16, 8, "1.12"), (17, 8, "1.13"), (18, 8, "1.14"), (19, 9, "1.15"), (20, 9, "1.17"),
    (21, 10, "1.18"), (22, 10, "1.21"), (23, 11, "1.23"),
)  # fmt: skip


def load(path: Path) -> Any:
    """The file as a ModelProto, with data that it keeps in other files beside it.

    Raises:
        BadInput: not an ONNX file; no input or output; data missing or outside its folder.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(path)
    except (DecodeError, ValueError, TypeError) as error:
        raise BadInput(f"{path}: not an ONNX file ({type(error).__name__})") from error
    except (OSError, onnx.checker.ValidationError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadInput(f"{path}: can't be read with its external data ({reason[:200]})") from error
    if not model.graph.output or not inputs(model):
        raise BadInput(f"{path}: not a network (it has no input or no output)")
    return model


def contents(path: Path, model: Any) -> bytes:
    """A loaded model as one piece.

    Raises:
        BadInput: more than 2 GB, which is no model for a device.
    """
    try:
        return bytes(model.SerializeToString())
    except Exception as error:  # protobuf's own error differs between its implementations
        raise BadInput(f"{path}: larger than 2 GB; edgeres reads models for devices") from error


def inputs(model: Any) -> list[Any]:
    """What the caller must give (old files list their weights as inputs too)."""
    stored = {i.name for i in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in stored]


def graph(path: Path, kind: str, model: Any, stored: Any) -> FileGraph:
    """Describe `model`, the form of `stored` that a runtime executes.

    Raises:
        BadInput: its first input or output is not a tensor.
    """
    constants = constant_values(model)
    scales = _boundary_scales(stored)
    first, last = inputs(stored)[0], stored.graph.output[0]
    ends = [tensor_spec(path, value, scales) for value in (first, last)]
    codes = {v.name for v in inputs(stored) if _is_integer(v)}
    sizes = constant_bytes(model)
    found = shapes(model)
    ops = tuple(
        _operation(node, constants, scales, codes, found, size)
        for node, size in zip(model.graph.node, sizes, strict=True)
    )
    return FileGraph(
        kind, ops, ends[0], ends[1], scales, metadata=metadata(stored),
        requires=f"onnxruntime {version}" if (version := _oldest_runtime(stored)) else "",
        versions=versions(stored),
    )  # fmt: skip


def metadata(model: Any) -> dict[str, str]:
    """What the file says of itself."""
    return {p.key: p.value for p in model.metadata_props}


def versions(model: Any) -> dict[str, int]:
    """Operator set -> version."""
    return {o.domain or "ai.onnx": o.version for o in model.opset_import}


def constant_values(model: Any) -> dict[str, np.ndarray]:
    """Name -> stored array, of initializers, Constant nodes and casts of them."""
    import onnx

    values = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
            values[node.output[0]] = onnx.numpy_helper.to_array(node.attribute[0].t)
        elif node.op_type == "Cast" and node.input[0] in values:  # float16 on a CPU without it
            values[node.output[0]] = values[node.input[0]]
    return values


def constant_bytes(model: Any) -> list[int]:
    """Bytes stored for each node; what several share counts at the first."""
    values = constant_values(model)
    counted: set[int] = set()
    sizes = []
    for node in model.graph.node:
        own = {id(values[name]): values[name].nbytes for name in node.input if name in values}
        sizes.append(sum(size for key, size in own.items() if key not in counted))
        counted |= own.keys()
    return sizes


def shapes(model: Any) -> dict[str, tuple[int, ...]]:
    """Tensor -> its shape with batch 1, where ONNX's own inference finds one.

    onnxruntime's operators are unknown to it, so it sees the standard ones that they stand for.
    """
    import onnx

    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    for tensor in plain.graph.initializer:
        if tensor.data_type != onnx.TensorProto.INT64:  # shapes and axes are needed, weights aren't
            _forget_values(tensor)
    for value in inputs(plain):
        dims = value.type.tensor_type.shape.dim
        if dims and not dims[0].dim_value:
            dims[0].dim_value = 1
    for value in plain.graph.output:
        value.type.tensor_type.ClearField("shape")
    for node in plain.graph.node:
        _standard(node)
    try:
        inferred = onnx.shape_inference.infer_shapes(plain, data_prop=True).graph
    except Exception:  # onnx raises what its C++ code throws; a file without shapes is still read
        return {}
    return {
        value.name: tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
        for value in (*inferred.input, *inferred.value_info, *inferred.output)
        if all(d.dim_value > 0 for d in value.type.tensor_type.shape.dim)
    }


def tensor_spec(path: Path, value: Any, scales: dict[str, QuantParams]) -> TensorSpec:
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


def params(constants: dict[str, Any], names: Any, axis: int | None = None) -> QuantParams | None:
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


def attribute(node: Any, name: str, default: int) -> int:
    """An integer attribute."""
    return next((int(a.i) for a in node.attribute if a.name == name), default)


def _boundary_scales(stored: Any) -> dict[str, QuantParams]:
    """Scales of the tensors that the file itself quantizes or takes as codes."""
    constants = constant_values(stored)
    scales: dict[str, QuantParams] = {}
    for node in stored.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] not in constants:
            name = node.input[0]
        elif node.op_type == "QuantizeLinear":
            name = node.output[0]
        else:
            continue
        found = params(constants, node.input[1:])
        if found:
            scales[name] = found
    return scales


def _operation(
    node: Any, constants: dict[str, Any], scales: dict[str, QuantParams], codes: set[str],
    found: dict[str, tuple[int, ...]], stored_bytes: int,
) -> FileOp:  # fmt: skip
    """One node; adds its output to `scales` and, if integer, to `codes`."""
    kind = node.op_type
    role = ROLES.get(kind, "other")
    data = tuple(i for i in node.input if i and i not in constants)
    output = next((o for o in node.output if o), "")
    weight, weight_params = None, None
    if kind in _INTEGER:
        weight_at, output_at = _INTEGER[kind]
        own = params(constants, [_input(node, i) for i in output_at])
        if own:
            scales[output] = own
        if weight_at:
            weight = layer_weight(node, constants.get(_input(node, weight_at[0])))
            weight_params = params(constants, [_input(node, i) for i in weight_at[1:]], 0)
        integer = not (kind == "QGemm" and not own)  # without an output scale it answers in float
    else:
        integer = kind in _INTEGER_OUTPUT_UNSCALED or kind == "QuantizeLinear"
        integer = integer or (role in ("move", "transpose") and bool(data) and data[0] in codes)
        if role in ("conv", "linear"):
            weight = layer_weight(node, constants.get(_input(node, 1)))
    if integer:
        codes.add(output)
    floating = not integer and kind != "QGemm" and role != "boundary"
    return FileOp(kind, role, node.name or output, data, output, floating, weight, weight_params,
                  found.get(output, ()), stored_bytes)  # fmt: skip


def layer_weight(node: Any, weight: Any) -> Any:
    """A stored weight as PyTorch has it: (O, I, kH, kW) or (O, I)."""
    if weight is None or weight.ndim < 2:
        return None
    by_columns = "MatMul" in node.op_type or (
        "Gemm" in node.op_type and not attribute(node, "transB", 0)
    )
    return weight.T if by_columns and weight.ndim == 2 else weight


def _input(node: Any, position: int) -> str:
    return str(node.input[position]) if position < len(node.input) else ""


def _is_integer(value: Any) -> bool:
    import onnx

    kinds = onnx.TensorProto
    return value.type.tensor_type.elem_type in (
        kinds.UINT8, kinds.INT8, kinds.UINT16, kinds.INT16, kinds.INT4, kinds.UINT4,
    )  # fmt: skip


def _standard(node: Any) -> None:
    """Turn an integer operator into the float one of the same shapes, in place."""
    kept = {
        "QLinearConv": ("Conv", (0, 3)), "FusedConv": ("Conv", (0, 1)),
        "QLinearAdd": ("Add", (0, 3)), "QLinearMul": ("Mul", (0, 3)), "QGemm": ("Gemm", (0, 3)),
        "QLinearMatMul": ("MatMul", (0, 3)), "FusedGemm": ("Gemm", (0, 1)),
        "QLinearGlobalAveragePool": ("GlobalAveragePool", (0,)),
        "QLinearAveragePool": ("AveragePool", (0,)), "QLinearSigmoid": ("Sigmoid", (0,)),
    }.get(node.op_type)  # fmt: skip
    if kept is None:
        return
    names = [_input(node, position) for position in kept[1]]
    node.op_type, node.domain = kept[0], ""
    del node.input[:]
    node.input.extend(names)


def _forget_values(tensor: Any) -> None:
    for content in ("raw_data", "float_data", "int32_data", "double_data", "string_data"):
        tensor.ClearField(content)


def _oldest_runtime(model: Any) -> str:
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    return next((runtime for operators, format_version, runtime in _RUNTIMES
                 if opset <= operators and model.ir_version <= format_version), "")  # fmt: skip

"""A Core ML program as a `FileGraph`: quantize and dequantize fused as the device's compiler does.

An int8 program is written as float operations between dequantize and quantize. Here such an
operation is one integer kernel: it reads the codes that are dequantized for it and its output is
the tensor of codes that is quantized from it.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from typing import TYPE_CHECKING

from edgeres.targets._graph import FileGraph, FileOp, Role
from edgeres.targets._mil_package import Package, numpy_dtype
from edgeres.types import QuantParams, TensorSpec

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from coremltools.converters.mil.mil import Operation, Var

_ROLES: dict[str, Role] = {
    "conv": "conv", "linear": "linear", "matmul": "linear", "add": "add", "mul": "mul",
    "sigmoid": "sigmoid", "concat": "concat", "reduce_mean": "pool",
    "avg_pool": "pool", "relu": "move", "reshape": "move", "squeeze": "move", "max_pool": "move",
    "pad": "move", "transpose": "transpose", "quantize": "boundary", "dequantize": "boundary",
    "cast": "boundary",
}  # fmt: skip
# operation -> its argument that names axes
_AXES = {"transpose": "perm", "reduce_mean": "axes", "squeeze": "axes",
         "expand_dims": "axes", "concat": "axis"}  # fmt: skip
_UNPACKS = "constexpr_"  # how operations are named that make a weight from what is stored for it
_MOVES_CODES = ("reshape", "squeeze", "max_pool", "pad", "transpose")


def graph(package: Package) -> FileGraph:
    """The program as verification sees it."""
    function = package.function
    scales: dict[str, QuantParams] = {}
    ops = []
    for op in function.operations:
        if op.op_type == "const":
            continue
        output = op.outputs[0]
        if op.op_type == "quantize":
            scales[output.name] = _params(op)
        elif op.op_type in _MOVES_CODES and op.inputs["x"].name in scales:
            scales[output.name] = scales[op.inputs["x"].name]
        ops.append(_operation(op))
    first, last = next(iter(function.inputs.values())), function.outputs[0]
    if package.classifier:
        ops.append(FileOp("classify", "boundary", "classify", (last.name,), "classLabel", False))
    return FileGraph("coreml", tuple(ops), _io(first), _io(last), scales,
                     metadata=package.metadata, requires=package.requires,
                     versions=package.versions)  # fmt: skip


def visible(found: FileGraph) -> set[str]:
    """The tensors that a fused program still has: codes, and what float kernels read and give."""
    computing = [op for op in found.ops if op.role not in ("boundary", "move", "transpose")]
    names = {name for op in computing for name in (op.output, *op.inputs)}
    return names | set(found.quantization) | {found.output.name}


def inside_kernels(package: Package) -> set[str]:
    """The values that an integer kernel doesn't round to float16: it never writes them.

    They lie between the codes that it reads and those that it writes; the weight is one of them.
    """
    kernels = [op for op in package.function.operations
               if op.op_type != "const" and _is_integer_kernel(op)]  # fmt: skip
    return {name for op in kernels for name in _passed(op)}


def batchwise(op: Operation, known: Container[str]) -> bool:
    """Whether an operation treats the images of a batch one by one (then many run at once)."""
    output = op.outputs[0]
    arguments = [
        v for a in op.inputs.values() for v in (a if isinstance(a, (list, tuple)) else [a])
    ]
    data = [v for v in arguments if v is not None and v.val is None and v.name not in known]
    if any(tuple(v.shape[:1]) != (1,) for v in (output, *data)):
        return False
    if len({len(v.shape) for v in data}) != 1:
        return False
    if op.op_type in _AXES:
        axes = op.inputs.get(_AXES[op.op_type])
        rank = max(len(output.shape), len(data[0].shape))
        listed = [] if axes is None else [a % rank for a in _integers(axes.val)]
        return listed[0] == 0 if op.op_type == "transpose" else bool(listed) and 0 not in listed
    if op.op_type == "pad":
        pads = _integers(op.inputs["pad"].val)
        return len(pads) < 2 * len(output.shape) or not any(pads[:2])
    if op.op_type == "matmul":
        return data == [op.inputs["x"]] and not op.inputs["transpose_x"].val
    return True


def _integers(value: npt.ArrayLike) -> list[int]:
    import numpy as np

    return [int(v) for v in np.reshape(value, -1)]


def _is_integer_kernel(op: Operation) -> bool:
    found = _operation(op)
    return found.role not in ("boundary", "move", "transpose", "other") and not found.floating


def _passed(op: Operation) -> Iterator[str]:
    """Every value between an integer kernel's codes."""
    value = op.outputs[0]
    yield value.name
    for reader in value.child_ops:
        if reader.op_type == "relu":
            yield reader.outputs[0].name
    weight = op.inputs.get("weight")
    for source in _data(op) + ([] if weight is None else [weight]):
        yield source.name
        while source.op is not None and source.op.op_type in ("reshape", "squeeze"):
            source = source.op.inputs["x"]
            yield source.name


def _operation(op: Operation) -> FileOp:
    kind, role = op.op_type, _ROLES.get(op.op_type, "other")
    role = "boundary" if kind.startswith(_UNPACKS) else role
    output, data = op.outputs[0], _data(op)
    shape = tuple(int(d) for d in output.shape or ())
    names = tuple(v.name for v in data)
    fused = _quantized_output(output)
    sources = tuple(_quantized_source(v) for v in data)
    integer = fused is not None and bool(sources) and None not in sources
    if kind == "max_pool" and integer:  # it reads codes and gives codes, like a layer
        return FileOp(kind, role, output.name, _known(sources), fused or "", False, shape=shape)
    if role in ("boundary", "move", "transpose", "other"):
        return FileOp(kind, role, output.name, names, output.name, role == "other", shape=shape)
    weight, quantization, size = _weight(op.inputs.get("weight"))
    integer = integer and (weight is None or quantization is not None)
    inputs = tuple(s or name for s, name in zip(sources, names, strict=True))
    bias = op.inputs.get("bias")
    size += bias.val.nbytes if bias is not None and bias.val is not None else 0
    return FileOp(kind, role, output.name, inputs, fused or output.name, not integer,
                  weight, quantization, shape, size)  # fmt: skip


def _data(op: Operation) -> list[Var]:
    """The inputs that an operation computes from: neither constants nor stored weights."""
    arguments = [a for name, a in op.inputs.items() if name not in ("weight", "bias")]
    listed = [v for a in arguments for v in (a if isinstance(a, (list, tuple)) else [a])]
    return [v for v in listed if v is not None and v.val is None]


def _known(names: tuple[str | None, ...]) -> tuple[str, ...]:
    return tuple(name for name in names if name is not None)


def _quantized_output(var: Var) -> str | None:
    """The quantize behind a value, through its ReLU: the tensor the fused kernel writes."""
    while len(var.child_ops) == 1 and var.child_ops[0].op_type == "relu":
        var = var.child_ops[0].outputs[0]
    readers = var.child_ops
    return readers[0].outputs[0].name if readers and readers[0].op_type == "quantize" else None


def _quantized_source(var: Var) -> str | None:
    """The codes a value is dequantized from, if it is."""
    while var.op is not None and var.op.op_type in ("reshape", "squeeze"):
        var = var.op.inputs["x"]
    return var.op.inputs["input"].name if var.op and var.op.op_type == "dequantize" else None


def _weight(var: Var) -> tuple[np.ndarray | None, QuantParams | None, int]:
    """A stored weight (codes if quantized, real values else), its scales, its size in bytes."""
    if var is None or (var.val is None and var.op is None):
        return None, None, 0
    kind = var.op.op_type if var.op is not None else "const"
    if not kind.startswith(_UNPACKS):
        return var.val, None, 0 if var.val is None else var.val.nbytes
    inputs: Mapping[str, Var] = var.op.inputs
    if kind != "constexpr_affine_dequantize":
        return var.op.materialized_val_inference(), None, _stored_bytes(var.op)
    codes, scale, zero = (inputs[n].val for n in ("quantized_data", "scale", "zero_point"))
    size = sum(v.nbytes for v in (codes, scale, zero))
    return codes, _affine(scale, zero, int(inputs["axis"].val)), size


def _stored_bytes(op: Operation) -> int:
    """Bytes of what a weight is unpacked from, through all the operations that do so in turn."""
    size = 0
    for var in op.inputs.values():
        if var is None:
            continue
        if var.op is not None and var.op.op_type.startswith(_UNPACKS):
            size += _stored_bytes(var.op)
        elif var.val is not None and hasattr(var.val, "nbytes"):
            bits = var.dtype.get_bitwidth() if hasattr(var.dtype, "get_bitwidth") else 8
            size += -(-var.val.size * bits // 8)
    return size


def _params(op: Operation) -> QuantParams:
    zero = op.inputs.get("zero_point")
    dtype = str(op.inputs["output_dtype"].val)
    return _affine(op.inputs["scale"].val, zero.val if zero is not None else 0, None, dtype)


def _affine(
    scale: npt.ArrayLike, zero: npt.ArrayLike, axis: int | None, dtype: str = "int8"
) -> QuantParams:
    import numpy as np

    scales = tuple(float(s) for s in np.reshape(scale, -1))
    zeros = np.asarray(zero).reshape(-1)
    values = tuple(int(z) for z in zeros) * (len(scales) // len(zeros))
    return QuantParams(scales, values, dtype, axis if len(scales) > 1 else None)


def _io(var: Var) -> TensorSpec:
    shape = tuple(int(d) for d in var.shape)
    return TensorSpec(var.name, shape, numpy_dtype(var), "NCHW" if len(shape) == 4 else "NC")

"""What an ONNX file holds, ours or foreign: stored arrays, shapes, versions, notes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edgeres.disk import require_regular
from edgeres.errors import BadInput

if TYPE_CHECKING:
    import numpy as np
    import onnx

_MOST_BYTES = 8 << 30
_SMALL = 1 << 20  # bytes that are never too many
# Operator set, file format version -> the oldest onnxruntime that loads them: tried with each
# release from 1.15 on; earlier ones from onnxruntime.ai/docs/reference/compatibility.html.
_RUNTIMES = (
    (7, 3, "1.0"), (11, 6, "1.0"), (12, 6, "1.3"), (13, 7, "1.6"), (14, 7, "1.8"), (15, 8, "1.10"),
    (16, 8, "1.12"), (17, 8, "1.13"), (18, 8, "1.14"), (19, 9, "1.15"), (20, 9, "1.17"),
    (21, 10, "1.18"), (22, 10, "1.21"), (23, 11, "1.23"),
)  # fmt: skip


def load(path: Path) -> onnx.ModelProto:
    """The file as a ModelProto, with data that it keeps in other files beside it.

    Raises:
        BadInput: not an ONNX file; no input or output; data missing or outside its folder.
    """
    import onnx
    from google.protobuf.message import DecodeError

    require_regular(path, _MOST_BYTES)
    try:
        model = onnx.load(path, load_external_data=False)
        _require_bounded(path, model)
        onnx.load_external_data_for_model(model, str(path.parent))
    except (DecodeError, ValueError, TypeError) as error:
        raise BadInput(f"{path}: not an ONNX file ({type(error).__name__})") from error
    except (OSError, onnx.checker.ValidationError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadInput(f"{path}: can't be read with its external data ({reason[:200]})") from error
    if not model.graph.output or not inputs(model):
        raise BadInput(f"{path}: not a network (it has no input or no output)")
    return model


def _require_bounded(path: Path, model: onnx.ModelProto) -> None:
    """Tensors may all name the same bytes of another file, each to get a copy."""
    sizes = {p: p.stat().st_size for p in _stored_beside(path, model)}
    whole = max(sizes.values(), default=0)
    claimed = 0
    for entries in ({e.key: e.value for e in t.external_data} for t in _tensors(model.graph)):
        if entries:
            length = entries.get("length", "")
            claimed += min(int(length), whole) if length.isdecimal() else whole
    if claimed > _MOST_BYTES or claimed > 2 * sum(sizes.values()) + _SMALL:
        raise BadInput(f"{path}: its external data of {sum(sizes.values()):,} bytes would become "
                       f"{claimed:,}")  # fmt: skip


def beside(path: Path) -> list[Path]:
    """The files that a file keeps weights in: those that exist, below its own folder."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, ValueError, TypeError, OSError):
        return []  # `load` says what is wrong
    return _stored_beside(path, model)


def _stored_beside(path: Path, model: onnx.ModelProto) -> list[Path]:
    home = path.parent.resolve()
    names = {entry.value for tensor in _tensors(model.graph)
             for entry in tensor.external_data if entry.key == "location"}  # fmt: skip
    found = ((home / name) for name in sorted(names) if name and "\0" not in name)
    return [path.parent / p.relative_to(home) for p in found
            if p.is_file() and p.resolve().is_relative_to(home)]  # fmt: skip


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every stored tensor, also of branches and loops."""
    yield from graph.initializer
    for attribute in (a for node in graph.node for a in node.attribute):
        yield from (attribute.t, *attribute.tensors)
        for inner in (attribute.g, *attribute.graphs):
            if inner.node:
                yield from _tensors(inner)


def contents(path: Path, model: onnx.ModelProto) -> bytes:
    """A loaded model as one piece.

    Raises:
        BadInput: more than 2 GB, which is no model for a device.
    """
    try:
        return bytes(model.SerializeToString())
    except Exception as error:  # protobuf's own error differs between its implementations
        raise BadInput(f"{path}: larger than 2 GB; edgeres reads models for devices") from error


def inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """What the caller must give (old files list their weights as inputs too)."""
    stored = {i.name for i in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in stored]


def metadata(model: onnx.ModelProto) -> dict[str, str]:
    """What the file says of itself."""
    return {p.key: p.value for p in model.metadata_props}


def versions(model: onnx.ModelProto) -> dict[str, int]:
    """Operator set -> version."""
    return {o.domain or "ai.onnx": o.version for o in model.opset_import}


def oldest_runtime(model: onnx.ModelProto) -> str:
    """The oldest onnxruntime that loads it; empty if none is known to."""
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    return next((runtime for operators, format_version, runtime in _RUNTIMES
                 if opset <= operators and model.ir_version <= format_version), "")  # fmt: skip


def constant_values(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Name -> stored array, of initializers, Constant nodes and casts of them."""
    import onnx

    values = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
            values[node.output[0]] = onnx.numpy_helper.to_array(node.attribute[0].t)
        elif node.op_type == "Cast" and node.input[0] in values:  # float16 on a CPU without it
            values[node.output[0]] = values[node.input[0]]
    return values


def constant_bytes(model: onnx.ModelProto) -> list[int]:
    """Bytes stored for each node; what several share counts at the first.

    What a node unpacks (`unpacked`) or casts belongs to the one that uses it.
    """
    values, packed = constant_values(model), unpacked(model)
    counted: set[int] = set()
    sizes = []
    for node in model.graph.node:
        if any(name in packed or name in values for name in node.output):
            sizes.append(0)
            continue
        names = [n for name in node.input for n in packed.get(name, (name,))]
        own = {id(values[name]): _stored_bytes(values[name]) for name in names if name in values}
        sizes.append(sum(size for key, size in own.items() if key not in counted))
        counted |= own.keys()
    return sizes


def unpacked(model: onnx.ModelProto) -> dict[str, tuple[str, ...]]:
    """Tensor -> the stored codes, scale and zero point that a DequantizeLinear makes it from.

    A QuantizeLinear before it, of a stored weight, is looked through: then the weight comes first.
    """
    values, found = constant_values(model), dict[str, tuple[str, ...]]()
    for node in model.graph.node:
        known = all(not name or name in values for name in node.input[1:])
        first = found.get(node.input[0], (node.input[0],)) if node.input else ("",)
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and first[0] in values and known:
            found[node.output[0]] = (first[0], *node.input[1:])
    return found


def _stored_bytes(values: np.ndarray) -> int:
    """Bytes in the file: numpy has no smaller numbers than of a byte."""
    name = values.dtype.name
    bits = (
        4 if name in ("int4", "uint4", "float4_e2m1fn") else 2 if name in ("int2", "uint2") else 0
    )
    return -(-values.size * bits // 8) if bits else int(values.nbytes)


def shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
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


def _standard(node: onnx.NodeProto) -> None:
    """Turn an integer operator into the float one of the same shapes, in place."""
    if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
        node.domain = ""  # onnxruntime's own have more types, and the same shapes
    kept = {
        "QLinearConv": ("Conv", (0, 3)), "FusedConv": ("Conv", (0, 1)),
        "QLinearAdd": ("Add", (0, 3)), "QLinearMul": ("Mul", (0, 3)), "QGemm": ("Gemm", (0, 3)),
        "QLinearMatMul": ("MatMul", (0, 3)), "FusedGemm": ("Gemm", (0, 1)),
        "QLinearGlobalAveragePool": ("GlobalAveragePool", (0,)),
        "QLinearAveragePool": ("AveragePool", (0,)), "QLinearSigmoid": ("Sigmoid", (0,)),
    }.get(node.op_type)  # fmt: skip
    if kept is None:
        return
    names = [input_name(node, position) for position in kept[1]]
    node.op_type, node.domain = kept[0], ""
    del node.input[:]
    node.input.extend(names)


def _forget_values(tensor: onnx.TensorProto) -> None:
    for content in ("raw_data", "float_data", "int32_data", "double_data", "string_data"):
        tensor.ClearField(content)


def attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    """An integer attribute."""
    return next((int(a.i) for a in node.attribute if a.name == name), default)


def input_name(node: onnx.NodeProto, position: int) -> str:
    """The name of an input; empty where the node has none."""
    return str(node.input[position]) if position < len(node.input) else ""

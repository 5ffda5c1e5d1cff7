"""An ONNX file as a list of calls and plain arrays, and what follows from constants alone."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from edgeres.errors import BadInput
from edgeres.network import onnx_file
from edgeres.network._walk import as_shape, require_ends

if TYPE_CHECKING:
    import onnx

BATCH = -(1 << 40)
"""How large a batch is, in arithmetic of shapes."""

_MOST_NODES = 20_000
_MOST_MADE = 1 << 20  # numbers that a shape's arithmetic makes
_OLDEST = 7  # operator set, since which shapes are broadcast as numpy does
_OWN_DOMAINS = ("", "ai.onnx")
# What something in a module of PyTorch is called already.
_RESERVED = frozenset((*dir(nn.Module()), "input", "spec", "_steps", "weight", "bias",
                       "running_mean", "running_var"))  # fmt: skip
_SCOPES = "pkg.torch.onnx.name_scopes"
_DYNAMIC = ("DynamicQuantizeLinear", "ConvInteger", "MatMulInteger", "MatMulNBits")


@dataclass(frozen=True)
class Call:
    """One node.

    Attributes:
        kind: `Conv`; of another operator set `com.microsoft.FusedConv`.
        label: for messages: its own name, or what it makes.
        inputs: "" where one is left out.
        scope: dotted name of the module it stands in, as far as the file tells.
        whole: no other node stands in it.
    """

    kind: str
    label: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    scope: str
    whole: bool

    def input(self, position: int) -> str:
        """The name of an input; "" where it is left out."""
        return self.inputs[position] if position < len(self.inputs) else ""


@dataclass(frozen=True)
class Program:
    """A whole file.

    Attributes:
        image, answer: names of its one input and its one output.
        shape: of the image; 0 is an axis that isn't fixed.
        image_type: as numpy calls it: float32, or int8 or uint8 of a file of integers.
        opset: version of the standard operators.
        constants: stored tensors by their names.
        metadata: what the file says of itself.
    """

    calls: tuple[Call, ...]
    image: str
    shape: tuple[int, ...]
    answer: str
    opset: int
    constants: Mapping[str, np.ndarray]
    metadata: Mapping[str, str]
    image_type: str = "float32"


def read(path: Path) -> Program:
    """Read a file.

    Raises:
        BadInput: it isn't one, is quantized without scales of its own for its activations, doesn't
            have one input and one output, or is damaged.
    """
    model = onnx_file.load(path)
    try:
        return _program(model, str(path))
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        said = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise BadInput(f"{path}: a damaged ONNX file ({said})") from error


def _program(model: onnx.ModelProto, where: str) -> Program:
    import onnx

    graph = model.graph
    if len(graph.node) > _MOST_NODES:
        raise BadInput(f"{where}: has more than {_MOST_NODES:,} operations")
    if dynamic := {n.op_type for n in graph.node if n.op_type in _DYNAMIC}:
        raise BadInput(f"{where}: is quantized, and finds scales while it runs "
                       f"({', '.join(sorted(dynamic))}); give the float network that it was made "
                       "from")  # fmt: skip
    images = onnx_file.inputs(model)
    require_ends(where, len(images), len(graph.output))
    opset = next((o.version for o in model.opset_import if o.domain in _OWN_DOMAINS), 0)
    if opset < _OLDEST:
        raise BadInput(f"{where}: is of operator set {opset}, older than {_OLDEST}; convert it "
                       "with onnx.version_converter")  # fmt: skip
    if any(function.domain in _OWN_DOMAINS for function in model.functions):
        raise BadInput(f"{where}: gives standard operators another meaning")
    tensor = images[0].type.tensor_type
    kind = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
    kind = "float32" if kind == "float" else kind
    if kind not in ("float32", "int8", "uint8"):
        raise BadInput(f"{where}: takes {kind}; a network here takes float32 images: export it "
                       "in float32")  # fmt: skip
    declared = graph.output[0].type.tensor_type
    if declared.HasField("shape") and len(declared.shape.dim) != 2:
        gives = as_shape(tuple(max(0, d.dim_value) for d in declared.shape.dim))
        raise BadInput(f"{where}: gives {gives}; a classifier gives (N, classes)")
    constants = {_text(t.name): array(t) for t in graph.initializer}
    calls = _calls(graph.node)
    names = [_text(images[0].name), *(_text(t.name) for t in graph.initializer),
             *(o for call in calls for o in call.outputs if o)]  # fmt: skip
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise BadInput(f"{where}: two things in it are called '{twice[0][:80]}'")
    shape = tuple(max(0, d.dim_value) for d in tensor.shape.dim)
    return Program(calls, names[0], shape, _text(graph.output[0].name), opset, constants,
                   onnx_file.metadata(model), kind)  # fmt: skip


def array(tensor: onnx.TensorProto) -> np.ndarray:
    """A stored tensor.

    Raises:
        ValueError: it holds more or fewer numbers than its shape says.
    """
    import onnx

    if min(tensor.dims, default=0) < 0:
        raise ValueError(f"'{tensor.name[:80]}' has a negative size")
    found = onnx.numpy_helper.to_array(tensor)
    if found.shape != tuple(tensor.dims) or found.dtype.kind not in "fiubV":
        raise ValueError(f"'{tensor.name[:80]}' holds no numbers of its shape")
    return found if found.dtype.kind in "iub" else found.astype(np.float32)


def _calls(nodes: Sequence[onnx.NodeProto]) -> tuple[Call, ...]:
    scopes = [_scope(node) for node in nodes]
    said = [s for s, node in zip(scopes, nodes, strict=True) if s and node.op_type != "Constant"]
    crowded = {s for s, count in Counter(said).items() if count > 1}
    for scope in set(said):
        parts = scope.split(".")
        crowded.update(".".join(parts[:n]) for n in range(1, len(parts)))
    return tuple(
        Call(
            n.op_type if n.domain in _OWN_DOMAINS else f"{_text(n.domain)}.{_text(n.op_type)}",
            _text(n.name or next(iter(n.output), ""))[:80], tuple(map(_text, n.input)),
            tuple(map(_text, n.output)),
            dict(map(_attribute, n.attribute)), scope, scope not in crowded,
        )
        for n, scope in zip(nodes, scopes, strict=True)
    )  # fmt: skip


def _attribute(attribute: onnx.AttributeProto) -> tuple[str, object]:
    import onnx

    kinds = onnx.AttributeProto
    if attribute.type in (kinds.GRAPH, kinds.GRAPHS):
        return attribute.name, None
    value = onnx.helper.get_attribute_value(attribute)
    return attribute.name, array(value) if attribute.type == kinds.TENSOR else value


# Names.


def _text(value: str | bytes) -> str:
    """A name, which protobuf gives as bytes where it is no UTF-8."""
    return value if isinstance(value, str) else value.decode("utf-8", "backslashreplace")


def _scope(node: onnx.NodeProto) -> str:
    """What torch.onnx says of the module that a node stands in, else what its name tells."""
    said = next((p.value for p in node.metadata_props if p.key == _SCOPES), None)
    if said is not None:
        return dotted((["", *re.findall(r"'([^']*)'", _text(said)[:5000])])[:-1][-1])
    name = _text(node.name)[:1000]
    if not name.startswith("/"):
        return dotted(name.rpartition("/")[0] or name)
    path, last = "", ""
    for part in name.split("/")[1:-1]:  # /layer1/layer1.0/conv1/Conv
        inner = part[len(last) + 1 :] if last and part.startswith(last + ".") else part
        path, last = f"{path}.{inner}" if path else inner, part
    return dotted(path)


def dotted(name: str, keep_last: bool = False) -> str:
    """Any text as a module's name: parts of letters, digits, `_` and `-` with dots between.

    Args:
        keep_last: the last part is a tensor's.
    """
    parts = [p for p in re.split(r"[./:]+", re.sub(r"[^\w./:-]", "_", name[:1000], flags=re.ASCII))
             if p]  # fmt: skip
    last = [parts.pop()] if keep_last and parts else []
    parts = [f"{p}_" if p in _RESERVED else p for p in parts]
    whole = ".".join([*parts, *last])
    if len(whole) > 90 or len(parts) > 20:
        whole = "_".join([*parts[-3:], *last])[-60:].lstrip("-")
    return f"_{whole}" if whole[:1].isdigit() or whole[:1] == "-" else whole


# Constants.


def fold(call: Call, given: list[np.ndarray | None]) -> np.ndarray | None:
    """What a node makes of constants; None: that isn't known.

    Args:
        given: None where an input is left out.

    Raises:
        ValueError, IndexError, TypeError: the node is wrong.
        MemoryError: it would become large.
    """
    known = _FOLDS.get(call.kind)
    if known is None:
        return None
    with np.errstate(all="ignore"):
        return known(call, given)


def axes(call: Call, given: np.ndarray | None) -> list[int] | None:
    """Axes, as an attribute or as an input."""
    said = call.attributes.get("axes") if given is None else given.reshape(-1).tolist()
    return None if said is None else [int(a) for a in said]


def _require_small(count: int) -> None:
    if count > _MOST_MADE:
        raise MemoryError(f"{count:,} numbers")


def _first(given: list[np.ndarray | None], position: int = 0) -> np.ndarray:
    found = given[position] if position < len(given) else None
    if found is None:
        raise ValueError("an input is left out")
    return found


def _constant(call: Call, _: list[np.ndarray | None]) -> np.ndarray:
    ((kind, value),) = call.attributes.items()
    if kind == "value":
        return np.asarray(value)
    if kind not in ("value_float", "value_floats", "value_int", "value_ints"):
        raise ValueError(f"a constant of {kind}")
    return np.asarray(value, np.float32 if "float" in kind else np.int64)


def _filled(call: Call, given: list[np.ndarray | None]) -> np.ndarray:
    shape = [int(n) for n in _first(given)]
    _require_small(math.prod(shape))
    return np.full(shape, np.asarray(call.attributes.get("value", np.float32(0))).item())


def _cast(call: Call, given: list[np.ndarray | None]) -> np.ndarray:
    import onnx

    to = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(call.attributes["to"]))
    found = _first(given)
    return found.astype(to) if to.kind in "iub" else found.astype(np.float32)


def _arithmetic(
    operation: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> Callable[..., np.ndarray]:
    def made(_: Call, given: list[np.ndarray | None]) -> np.ndarray:
        left, right = _first(given), _first(given, 1)
        _require_small(math.prod(np.broadcast_shapes(left.shape, right.shape)))
        return np.asarray(operation(left, right)).astype(left.dtype)

    return made


def _divide(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.trunc(left / right) if left.dtype.kind in "iu" else left / right


def _where(_: Call, given: list[np.ndarray | None]) -> np.ndarray:
    parts = [_first(given, i) for i in range(3)]
    _require_small(math.prod(np.broadcast_shapes(*(part.shape for part in parts))))
    return np.where(parts[0].astype(bool), *parts[1:])


def _gather(call: Call, given: list[np.ndarray | None]) -> np.ndarray:
    data, positions = _first(given), _first(given, 1)
    _require_small(data.size * max(1, positions.size))
    return np.take(data, positions, axis=call.attributes.get("axis", 0))


def _concat(call: Call, given: list[np.ndarray | None]) -> np.ndarray:
    parts = [_first(given, i) for i in range(len(given))]
    _require_small(sum(part.size for part in parts))
    return np.concatenate(parts, call.attributes["axis"])


def _slice(call: Call, given: list[np.ndarray | None]) -> np.ndarray:
    data = _first(given)
    said = [g.reshape(-1).tolist() if g is not None else None for g in given[1:]]
    if not said:
        said = [call.attributes["starts"], call.attributes["ends"], call.attributes.get("axes")]
    starts, ends, along, steps = (*said, None, None)[:4]
    if starts is None or ends is None:
        raise ValueError("a slice without ends")
    cut = [slice(None)] * data.ndim
    for i, start in enumerate(starts):
        axis = along[i] if along else i
        cut[axis] = slice(start, ends[i], steps[i] if steps else 1)
    return data[tuple(cut)]


def _reshape(call: Call, given: list[np.ndarray | None]) -> np.ndarray:
    data, target = _first(given), _first(given, 1).tolist()
    if not call.attributes.get("allowzero"):
        target = [data.shape[i] if n == 0 else n for i, n in enumerate(target)]
    return data.reshape(target)


def _squeeze(call: Call, given: list[np.ndarray | None]) -> np.ndarray:
    along = axes(call, given[1] if len(given) > 1 else None)
    return np.squeeze(_first(given), None if along is None else tuple(along))


def _unsqueeze(call: Call, given: list[np.ndarray | None]) -> np.ndarray:
    return np.expand_dims(
        _first(given), tuple(axes(call, given[1] if len(given) > 1 else None) or [])
    )


def _transpose(call: Call, given: list[np.ndarray | None]) -> np.ndarray:
    return _first(given).transpose(call.attributes.get("perm"))


_FOLDS: dict[str, Callable[[Call, list[np.ndarray | None]], np.ndarray]] = {
    "Constant": _constant, "Identity": lambda call, given: _first(given), "Cast": _cast,
    "ConstantOfShape": _filled,
    "Add": _arithmetic(np.add), "Sub": _arithmetic(np.subtract), "Mul": _arithmetic(np.multiply),
    "Div": _arithmetic(_divide), "Equal": _arithmetic(np.equal), "Where": _where, "Gather": _gather,
    "Concat": _concat, "Slice": _slice,
    "Reshape": _reshape, "Squeeze": _squeeze, "Unsqueeze": _unsqueeze, "Transpose": _transpose,
    "Shape": lambda call, given: np.asarray(_first(given).shape, np.int64),
}  # fmt: skip

"""An .onnx file exactly as it is stored: each node in PyTorch's terms, and what is left over.

Q/DQ and integer operators alike. A weight's DequantizeLinear belongs to the layer that reads it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeres.errors import BadInput
from edgeres.network import onnx_file
from edgeres.targets import _onnx_read
from edgeres.targets._structure import Details, Step, Structure, notes_left_over

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from google.protobuf.message import Message

    from edgeres.targets import Source
    from edgeres.types import QuantParams

_KINDS = {
    "Conv": "conv", "QLinearConv": "conv", "Gemm": "linear", "QGemm": "linear", "Add": "add",
    "QLinearAdd": "add", "Mul": "mul", "QLinearMul": "mul", "Sigmoid": "sigmoid",
    "QLinearSigmoid": "sigmoid", "Concat": "concat", "QLinearConcat": "concat",
    "Relu": "relu", "Clip": "relu", "GlobalAveragePool": "mean",
    "QLinearGlobalAveragePool": "mean", "MaxPool": "max_pool", "Reshape": "reshape",
    "Flatten": "reshape", "QuantizeLinear": "quantize", "DequantizeLinear": "dequantize",
    "Cast": "cast", "Neg": "neg", "FusedConv": "conv",
}  # fmt: skip
_WINDOW = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides", "ceil_mode",
           "storage_order")  # fmt: skip
_ATTRIBUTES = {
    "Conv": _WINDOW, "QLinearConv": _WINDOW, "MaxPool": _WINDOW,
    "FusedConv": (*_WINDOW, "activation"),
    "Gemm": ("alpha", "beta", "transA", "transB"), "QGemm": ("alpha", "transA", "transB"),
    "Reshape": ("allowzero",), "Flatten": ("axis",), "Cast": ("to",),
    "QuantizeLinear": ("axis", "saturate"), "DequantizeLinear": ("axis",),
    "QLinearGlobalAveragePool": ("channels_last",), "Concat": ("axis",),
    "QLinearConcat": ("axis",),
}  # fmt: skip
# What an attribute must be where anything else is another operation.
_FIXED = {"auto_pad": b"NOTSET", "ceil_mode": 0, "storage_order": 0, "alpha": 1.0, "beta": 1.0,
          "transA": 0, "channels_last": 0, "saturate": 1, "activation": b"Relu"}  # fmt: skip
# operator -> positions of (data, scale, zero point) of what it reads, the same of its output (the
# data is the output itself), and of weight, scale, zero point and bias
_INTEGER: dict[str, tuple[tuple[tuple[int, int, int], ...], tuple[int, int], tuple[int, ...]]] = {
    "QLinearConv": (((0, 1, 2),), (6, 7), (3, 4, 5, 8)),
    "QGemm": (((0, 1, 2),), (7, 8), (3, 4, 5, 6)),
    "QLinearAdd": (((0, 1, 2), (3, 4, 5)), (6, 7), ()),
    "QLinearMul": (((0, 1, 2), (3, 4, 5)), (6, 7), ()),
    "QLinearSigmoid": (((0, 1, 2),), (3, 4), ()),
    "QLinearGlobalAveragePool": (((0, 1, 2),), (3, 4), ()),
    "QLinearConcat": (((2, 3, 4),), (0, 1), ()),  # and as many more as it joins
}  # fmt: skip
# attribute -> the one field of it that may be set
_FIELD = {
    "auto_pad": "s", "activation": "s", "alpha": "f", "beta": "f",
    **dict.fromkeys(("dilations", "kernel_shape", "pads", "strides"), "ints"),
    **dict.fromkeys(("group", "ceil_mode", "storage_order", "transA", "transB", "axis", "to",
                     "allowzero", "saturate", "channels_last"), "i"),
}  # fmt: skip
# operator -> the fewest and the most inputs
_ARITY = {
    "Conv": (2, 3), "Gemm": (2, 3), "Add": (2, 2), "Mul": (2, 2), "Sigmoid": (1, 1),
    "Concat": (2, 99), "QLinearConcat": (8, 302), "Relu": (1, 1), "Clip": (2, 3),
    "GlobalAveragePool": (1, 1), "MaxPool": (1, 1),
    "Reshape": (2, 2),
    "Flatten": (1, 1), "QuantizeLinear": (3, 3), "DequantizeLinear": (3, 3), "Cast": (1, 1),
    "Neg": (1, 1), "QLinearConv": (8, 9), "QGemm": (9, 9), "QLinearAdd": (8, 8),
    "QLinearMul": (8, 8), "QLinearSigmoid": (5, 5), "QLinearGlobalAveragePool": (5, 5),
    "FusedConv": (2, 4),
}  # fmt: skip
# Operators of real numbers; MaxPool, Reshape and Flatten move either kind.
_REAL = ("Conv", "FusedConv", "Gemm", "Add", "Mul", "Sigmoid", "Concat", "GlobalAveragePool",
         "Relu", "Clip", "Cast", "Neg", "QuantizeLinear")  # fmt: skip
_MOVING = ("MaxPool", "Reshape", "Flatten")
_BATCH = "batch"
_OWN = "com.microsoft"  # onnxruntime's operators
_OWN_OPERATORS = {"FusedConv", *_INTEGER} - {"QLinearConv"}
_FIELDS = {
    "model": ("ir_version", "producer_name", "producer_version", "graph", "opset_import",
              "metadata_props"),
    "graph": ("node", "name", "initializer", "input", "output"),
    "node": ("input", "output", "name", "op_type", "domain", "attribute"),
    "constant": ("dims", "data_type", "name", "raw_data"),
}  # fmt: skip


@dataclass(frozen=True)
class Form:
    """What a target's files look like from outside.

    Attributes:
        opsets: domain -> the versions that are known to hold.
        ends: numpy type of the images and of the answers.
        version: of the format.
    """

    opsets: Mapping[str, tuple[int, ...]]
    ends: str
    version: int = 9


def structure(path: Path, source: Source, form: Form) -> Structure:
    """The file's own graph.

    Args:
        source: what it must have been written from: its notes say that.

    Raises:
        BadInput: not an ONNX file.
    """
    import onnx
    from google.protobuf.message import DecodeError

    data = path.read_bytes()
    try:
        model = onnx.ModelProto.FromString(data)
    except (DecodeError, ValueError, TypeError) as error:
        raise BadInput(f"{path}: not an ONNX file ({type(error).__name__})") from error
    try:
        left_over = [*_container(model, data, form), *_ends(model, source, form),
                     *notes_left_over(onnx_file.metadata(model), source.metadata)]  # fmt: skip
        return _Reader(model).structure(left_over)
    except MemoryError:
        raise
    except Exception as error:  # a part may be missing, of another type or of another size
        kind = type(error).__name__
        raise BadInput(f"{path}: a damaged ONNX file ({kind}); export it again") from error


class _Reader:
    """The nodes of one graph."""

    def __init__(self, model: onnx.ModelProto):
        import onnx

        self.graph = model.graph
        self.constants: dict[str, np.ndarray] = {
            i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer
        }
        self.casts = _unpacked(model.graph, self.constants)
        # what a constant is dequantized to -> its node
        self.weights: dict[str, onnx.NodeProto] = {}
        self.used: set[str] = set()
        self.codes = {i.name for i in model.graph.input if i.type.tensor_type.elem_type in (2, 3)}
        self.quantization: dict[str, QuantParams] = {}
        self.strange: list[str] = []

    def structure(self, left_over: list[str]) -> Structure:
        steps = tuple(step for node in self.graph.node for step in self._steps(node))
        self.strange += [f"the constant {name[:80]!r} is not used"
                         for name in self.constants if name not in self.used]  # fmt: skip
        self.strange += [
            f"nothing reads the weight {name[:80]!r}"
            for name in self.weights
            if name not in self.used
        ]
        made = [
            *(i.name for i in self.graph.initializer),
            *(v.name for v in self.graph.input),
            *(name for node in self.graph.node for name in node.output),
        ]
        if len(set(made)) != len(made):
            self.strange.append("two of its tensors have one name")
        return Structure(steps, self.graph.input[0].name, self.graph.output[0].name,
                         self.quantization, (*left_over, *self.strange), batch=None)  # fmt: skip

    def _steps(self, node: onnx.NodeProto) -> Iterator[Step]:
        kind, name = node.op_type, f"{node.op_type} {node.name or node.output[0]}"[:120]
        self.used.update(node.input)
        if kind == "Cast" and node.output[0] in self.casts and len(node.output) == 1:
            self.strange += [f"{name}: {p}" for p in self._problems(node)]
            return
        data = tuple(i for i in node.input
                     if i and i not in self.constants and i not in self.weights)  # fmt: skip
        if kind == "DequantizeLinear" and not data and len(node.output) == 1:
            self.weights[node.output[0]] = node
            problems = list(self._problems(node))
            self.strange += [f"{name}: {p}" for p in problems]
            return
        output = node.output[0]
        problems = [*self._problems(node)]
        ends = kind == "Clip" and len(node.input) == 2  # a ReLU of codes
        if kind in _REAL and not ends and any(i in self.codes for i in data):
            problems.append("computes real numbers from codes")
        if kind == "DequantizeLinear" and not self.codes.issuperset(data):
            problems.append("dequantizes what isn't codes")
        if ends and not self.codes.issuperset(data):
            problems.append("cuts real numbers off below only")
        moved = (ends or kind in _MOVING) and self.codes.issuperset(data)
        if kind in _INTEGER or kind == "QuantizeLinear" or moved:
            self.codes.add(output)
        if len(node.output) != 1:
            problems.append(f"has {len(node.output)} outputs")
        known = _KINDS.get(kind) if not problems else None
        self.strange += [f"{name}: {p}" for p in problems]
        if known is None:
            yield Step("unknown", name, data, output)
            return
        found = self._details(node, name)
        if node.op_type == "FusedConv":
            yield from _fused(node, Step("conv", name, data[:1], output, **found), data)
        else:
            yield Step(known, name, data, output, **found)  # type: ignore[arg-type]

    def _problems(self, node: onnx.NodeProto) -> Iterator[str]:
        """What a node says that isn't read here."""
        own = node.op_type in _OWN_OPERATORS
        if node.domain not in ((_OWN,) if own else ("", "ai.onnx")):
            yield f"is of the domain {node.domain[:40]!r}"
        for key in _unexpected(node, "node"):
            yield f"the field {key} isn't expected"
        allowed = _ATTRIBUTES.get(node.op_type, ())
        for key, value in _attributes(node).items():
            if key not in allowed:
                yield f"the attribute {key[:40]} isn't expected"
            elif node.op_type in ("Concat", "QLinearConcat") and value != 1:
                yield f"joins along the axis {value}"
            elif key in _FIXED and value != _FIXED[key]:
                yield f"its {key} is {value!r:.40}"
        for a in node.attribute:
            field = _FIELD.get(a.name)
            if field and {f.name for f, _ in a.ListFields()} - {"name", "type", field}:
                yield f"its {a.name[:40]} holds more than {field}"
        low, high = _ARITY.get(node.op_type, (0, 99))
        if not low <= len(node.input) <= high:
            yield f"has {len(node.input)} inputs"
        if len(node.attribute) != len(_attributes(node)):
            yield "an attribute is there twice"

    def _details(self, node: onnx.NodeProto, name: str) -> Details:
        kind, attributes = node.op_type, _attributes(node)
        found: Details = {}
        if kind in _INTEGER:
            found |= self._integer(node, name)
        elif kind in ("Conv", "Gemm", "FusedConv"):
            found |= self._weighted(node, name)
        elif kind in ("QuantizeLinear", "DequantizeLinear"):
            codes = node.output[0] if kind == "QuantizeLinear" else node.input[0]
            self._codes(codes, node.input[1:], name)
        elif kind == "Clip" and len(node.input) == 2:
            found["fill"] = float(self._constant(node, 1, name).item())
            self.quantization[node.output[0]] = self.quantization[node.input[0]]
        elif kind == "Clip":
            low, most = (float(self._constant(node, i, name).reshape(-1)[0]) for i in (1, 2))
            if low:
                self.strange.append(f"{name}: cuts its output off at {low:g}")
            found["most"] = most
        elif kind == "Cast":
            found["dtype"] = _type_name(attributes.get("to", 0))
        elif kind == "Flatten":
            found["shape"] = (0, -1) if attributes.get("axis", 1) == 1 else ()
        elif kind == "Reshape":
            shape = tuple(int(n) for n in self._constant(node, 1, name).reshape(-1))
            found["shape"] = () if attributes.get("allowzero", 0) and 0 in shape else shape
        if kind in ("Conv", "QLinearConv", "FusedConv", "MaxPool"):
            found |= _window(attributes, found.get("weight"))
        weight = found.get("weight")
        if weight is not None and _KINDS[kind] == "linear" and not attributes.get("transB", 0):
            found["weight"] = weight.T
        return found

    def _weighted(self, node: onnx.NodeProto, name: str) -> Details:
        """Weight, its scales, and bias of a layer that computes with real numbers."""
        found: Details = {}
        maker = self.weights.get(node.input[1])
        if maker is not None:
            found["weight"] = _onnx_read.plain_codes(self.constants[maker.input[0]])
            found["weight_quantization"] = _onnx_read.params(self.constants, maker.input[1:], 0)
            across = node.op_type == "Gemm" and not _attributes(node).get("transB", 0)
            if len(maker.input[1:]) < 2 or _attributes(maker).get("axis", 1) != int(across):
                self.strange.append(f"{name}: its weights' scale isn't that of its outputs")
        elif node.input[1] in self.constants:
            found["weight"] = self.constants[node.input[1]]
        if onnx_file.input_name(node, 2):
            found["bias"] = self._constant(node, 2, name)
        return found

    def _integer(self, node: onnx.NodeProto, name: str) -> Details:
        """Scales of what an integer operator reads and writes; its weights and biases."""
        reads, written, weighted = _INTEGER[node.op_type]
        if node.op_type == "QLinearConcat":
            reads = tuple((i, i + 1, i + 2) for i in range(2, len(node.input), 3))
        for position, *params in reads:
            self._codes(node.input[position], [node.input[i] for i in params], name)
        self._codes(node.output[0], [onnx_file.input_name(node, i) for i in written], name)
        if not weighted:
            return {}
        at, *params, bias = weighted
        found: Details = {"weight": _onnx_read.plain_codes(self._constant(node, at, name))}
        names = [onnx_file.input_name(node, i) for i in params]
        quantization = _onnx_read.params(self.constants, names, 0)
        if quantization and onnx_file.input_name(node, at) in self.casts:
            quantization = dataclasses.replace(quantization, dtype="int4")
        found["weight_quantization"] = quantization
        if onnx_file.input_name(node, bias):
            found["bias"] = self._constant(node, bias, name)
        return found

    def _codes(self, tensor: str, names: Sequence[str], name: str) -> None:
        """Take note of a tensor's scale; a second one has to be the first one."""
        whole = len(names) == 2 and all(names)
        params = _onnx_read.params(self.constants, list(names)) if whole else None
        if params is None or len(params.scale) != 1:
            self.strange.append(f"{name}: the scale of {tensor[:80]!r} isn't one constant")
        elif self.quantization.setdefault(tensor, params) != params:
            self.strange.append(f"{name}: reads {tensor[:80]!r} with another scale than it has")

    def _constant(self, node: onnx.NodeProto, position: int, name: str) -> np.ndarray:
        import numpy as np

        found = self.constants.get(onnx_file.input_name(node, position))
        if found is None:
            self.strange.append(f"{name}: what should be a constant is computed")
            return np.zeros(0)
        return found


def _unpacked(graph: onnx.GraphProto, constants: dict[str, np.ndarray]) -> set[str]:
    """Names of weights that a Cast makes of stored 4-bit codes; adds them to the constants."""
    import onnx

    found = set()
    for node in graph.node:
        if node.op_type == "Cast" and _attributes(node).get("to") == onnx.TensorProto.INT8:
            stored = constants.get(onnx_file.input_name(node, 0))
            if stored is not None and stored.dtype.name == "int4" and node.output[0]:
                constants.setdefault(node.output[0], stored)
                found.add(node.output[0])
    return found


def _fused(node: onnx.NodeProto, conv: Step, data: tuple[str, ...]) -> Iterator[Step]:
    """onnxruntime's convolution with a ReLU, an addend or both as the operations that it is."""
    relu = "activation" in _attributes(node)
    if len(data) == 1:
        yield dataclasses.replace(conv, relu=relu)
        return
    sums = f"{conv.output} before its addend"
    yield dataclasses.replace(conv, output=sums)
    yield Step("add", conv.name, (sums, *data[1:]), conv.output, relu=relu)


def _window(attributes: Mapping[str, Any], weight: np.ndarray | None) -> Details:
    """Kernel, stride, dilation, padding and groups of a convolution or max pool."""
    kernel, stride, dilation = (tuple(attributes.get(key, (1, 1)))
                                for key in ("kernel_shape", "strides", "dilations"))  # fmt: skip
    if weight is not None and "kernel_shape" not in attributes:
        kernel = tuple(weight.shape[2:])
    if weight is not None and kernel != tuple(weight.shape[2:]):
        raise ValueError("its kernel is not its weights'")
    groups = int(attributes.get("group", 1))
    return {"kernel": kernel, "stride": stride, "dilation": dilation,
            "padding": tuple(attributes.get("pads", (0, 0, 0, 0))), "groups": groups}  # fmt: skip


def _container(model: onnx.ModelProto, data: bytes, form: Form) -> Iterator[str]:
    """What a file may hold beside its nodes, and bytes that are no part of it."""
    import onnx

    opsets = [(o.domain, o.version) for o in model.opset_import]
    known = all(version in form.opsets.get(domain, ()) for domain, version in opsets)
    if not known or len(opsets) != len(form.opsets) or len(dict(opsets)) != len(opsets):
        yield f"its operator sets are {opsets!r:.120}"
    if model.ir_version != form.version:
        yield f"its format's version is {model.ir_version}"
    for part, kind in ((model, "model"), (model.graph, "graph")):
        for key in _unexpected(part, kind):
            yield f"the {kind} has {key}"
    names = [i.name for i in model.graph.initializer]
    if len(set(names)) != len(names):
        yield "two constants have one name"
    for tensor in model.graph.initializer:
        for key in _unexpected(tensor, "constant"):
            yield f"the constant {tensor.name[:80]!r} has {key}"
    for entry in model.metadata_props:
        if len([p for p in model.metadata_props if p.key == entry.key]) > 1:
            yield f"the note {entry.key[:80]!r} is there twice"
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    plain.DiscardUnknownFields()
    if plain.SerializeToString(deterministic=True) != data:
        yield "it has parts that ONNX doesn't define, or bytes between its parts"


def _ends(model: onnx.ModelProto, source: Source, form: Form) -> Iterator[str]:
    """One input of images, one output of answers, any batch."""
    spec = source.model.spec
    px = spec.preprocess.size_px
    for what, values, name, sizes in (
        ("input", model.graph.input, "input", (3, px, px)),
        ("output", model.graph.output, "logits", (spec.classes,)),
    ):
        if len(values) != 1:
            yield f"it has {len(values)} {what}s"
        for value in values:
            tensor = value.type.tensor_type
            first, *rest = tensor.shape.dim
            parts = ((value, {"name", "type"}), (value.type, {"tensor_type"}),
                     *((dim, {"dim_value", "dim_param"}) for dim in tensor.shape.dim))  # fmt: skip
            if any({f.name for f, told in part.ListFields() if told != ""} - fields
                   for part, fields in parts):  # fmt: skip
                yield f"its {what} {value.name[:40]!r} says more than its type and shape"
            if value.name != name:
                yield f"its {what} is called {value.name[:40]!r}"
            if first.dim_param != _BATCH or _sizes(rest) != sizes:
                yield f"its {what} {value.name[:40]!r} has another shape than the network's"
            if _type_name(tensor.elem_type) != form.ends:
                yield f"its {what} {value.name[:40]!r} is of another type than {form.ends}"


def _sizes(dims: Iterable[onnx.TensorShapeProto.Dimension]) -> tuple[int, ...]:
    return tuple(int(d.dim_value) for d in dims)


def _unexpected(part: Message, kind: str) -> list[str]:
    """Fields of a part that are set and not known; an empty text is none."""
    known: Collection[str] = _FIELDS[kind]
    return [f.name for f, value in part.ListFields() if f.name not in known and value != ""]


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """Name -> value (integers, floats, texts as bytes, lists of them)."""
    import onnx

    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


def _type_name(number: int) -> str:
    import onnx

    known = {onnx.TensorProto.FLOAT: "float32", onnx.TensorProto.FLOAT16: "float16",
             onnx.TensorProto.UINT8: "uint8"}  # fmt: skip
    return known.get(number, f"type {number}")

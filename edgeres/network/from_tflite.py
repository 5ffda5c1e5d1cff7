"""From TFLite: anybody's file of floats or int8 in, a network and its tensors out; nothing runs it.

An operation becomes the ONNX call that says the same (`from_onnx` reads those), with channels
second: a table from the one's to the other's. What isn't in it is refused by name.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeres.disk import read_bounded
from edgeres.errors import BadInput
from edgeres.network import _litert, _onnx, from_onnx
from edgeres.network import tflite_file as file
from edgeres.network._integers import Stored
from edgeres.network._onnx import Call, Program
from edgeres.network._walk import Imported, Normalization, require_ends
from edgeres.types import QuantParams

if TYPE_CHECKING:
    from ai_edge_litert import schema_py_generated as schema

_MOST_BYTES = 1 << 30
_MOST_OPERATIONS = 20_000
_TO_SECOND = (0, 3, 1, 2)
_RELUS: Mapping[int, float | None] = {1: None, 3: 6.0}  # ActivationFunctionType -> where it ends
_METADATA = ("edgeres.preprocess",)


def from_tflite(
    path: Path, size_px: int, given: Normalization | None = None, *, compare: bool = False
) -> Imported:
    """Read a TFLite file.

    Args:
        size_px, given: as `from_onnx.from_onnx` takes them.
        compare: ask LiteRT, too, in a process of its own.

    Raises:
        BadInput: it isn't a network of one image and one vector of logits, or an operation isn't
            known; it is named. Or LiteRT's answers to a few images aren't those of what was read.
    """
    content = read_bounded(path, _MOST_BYTES, "TFLite file for a device")
    walk = _Walk(str(path), file.load(content, path))
    try:
        program, stored = walk.run()
    except BadInput:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError,
            MemoryError) as error:  # fmt: skip
        raise file.damaged(path, error) from error

    def ask(images: np.ndarray) -> np.ndarray:
        asked = content if walk.cut is None or stored is None else _ended_at(walk)
        return _litert.answers(asked, images.transpose(0, 2, 3, 1))

    return from_onnx.of_program(path, program, size_px, given, ask if compare else None, stored)


def _ended_at(walk: _Walk) -> bytes:
    """The file without its softmax."""
    walk.model.subgraphs[0].outputs = np.asarray([walk.cut], np.int32)
    walk.model.signatureDefs = None  # they describe the output that was
    return file.pack(walk.model)


@dataclass
class _Walk:
    """One walk over a file's operations.

    Attributes:
        tensors: of the main graph, by their index.
        values: index -> its name in the program.
    """

    where: str
    model: schema.ModelT
    tensors: list[file.Stored] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    scales: dict[str, QuantParams] = field(default_factory=dict)
    biases: dict[str, np.ndarray] = field(default_factory=dict)
    strange: list[str] = field(default_factory=list)
    values: dict[int, str] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)  # by a softmax
    cut: int | None = None  # what that reads
    readers: dict[int, list[str]] = field(default_factory=lambda: defaultdict(list))
    around: dict[int, list[int]] = field(default_factory=dict)  # what max pools pad

    def run(self) -> tuple[Program, Stored | None]:
        graph = self.model.subgraphs[0]
        ends = [[] if v is None else [int(i) for i in v] for v in (graph.inputs, graph.outputs)]
        require_ends(self.where, *map(len, ends))
        if len(graph.operators) > _MOST_OPERATIONS or len(self.model.subgraphs) > 1:
            raise BadInput(f"{self.where}: has more than {_MOST_OPERATIONS:,} operations, or more "
                           "than one graph")  # fmt: skip
        self.tensors = [file.stored(self.model, i, t) for i, t in enumerate(graph.tensors)]
        image = self.tensor(ends[0][0])
        self.values[ends[0][0]] = "image"
        self._scaled(ends[0][0])
        for op in graph.operators:
            for index in () if op.inputs is None else op.inputs:
                self.readers[int(index)].append(file.kind(self.model, op))
        for op in graph.operators:
            self._step(op)
        if len(image.shape) != 4 or image.dtype not in ("float32", "int8", "uint8"):
            raise BadInput(f"{self.where}: takes {image.dtype} {list(image.shape)}; a network here "
                           "takes images (1, H, H, 3), float32 or codes of 8 bits")  # fmt: skip
        shape = (0, *(image.shape[i] for i in _TO_SECOND[1:]))  # LiteRT is asked one by one
        names = Counter(call.scope for call in self.calls)
        alone = {scope for scope, count in names.items() if scope and count == 1
                 and not any(other.startswith(f"{scope}.") for other in names)}  # fmt: skip
        calls = tuple(replace(call, whole=call.scope in alone) for call in self.calls)
        program = Program(calls, "image", shape, self.values.get(ends[1][0], ""), 17,
                          self.constants, self._notes(), image.dtype)  # fmt: skip
        stored = Stored(self.scales, self.biases, tuple(self.strange), logits=True)
        return program, stored if self.scales else None

    def _notes(self) -> dict[str, str]:
        """What the file says of itself, as far as it is asked for."""
        found = {}
        for entry in self.model.metadata or ():
            data = self.model.buffers[entry.buffer].data
            if file.clean(entry.name) in _METADATA and data is not None:
                found[file.clean(entry.name)] = bytes(data).decode("utf-8", "replace").rstrip("\0")
        return found

    def tensor(self, index: int) -> file.Stored:
        if not 0 <= index < len(self.tensors):
            raise IndexError(f"tensor {index}")
        return self.tensors[index]

    def _step(self, op: schema.OperatorT) -> None:
        kind = file.kind(self.model, op)
        ends = (op.inputs, op.outputs)
        inputs, outputs = ([] if v is None else [int(i) for i in v] for v in ends)
        node = _Node(self, kind, inputs, outputs, op.builtinOptions)
        known = _KINDS.get(kind)
        if known is None:
            raise node.refused("isn't known")
        try:
            known(node)
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise node.refused("with these arguments isn't known") from error

    def _scaled(self, index: int) -> None:
        """Note what a value's codes stand for."""
        tensor, name = self.tensor(index), self.values[index]
        if tensor.dtype == "float32" or name in self.ended:
            return
        q, said = tensor.quantization, f"the activation '{tensor.name[:80]}'"
        if q is None or tensor.dtype not in ("int8", "uint8"):
            self.strange.append(f"{said} is of {tensor.dtype}" + (", without a scale" if q is None
                                                                  else ""))  # fmt: skip
        elif len(q.scale) != 1:
            self.strange.append(f"{said} has a scale per channel")
        else:
            self.scales[name] = _params(q)


def _params(q: QuantParams) -> QuantParams:
    """As int8 ones."""
    if not all(np.isfinite(s) and s > 0 for s in q.scale) or len(q.zero_point) != len(q.scale):
        raise ValueError("a scale that isn't above 0")
    shift = 128 if q.dtype == "uint8" else 0
    return QuantParams(q.scale, tuple(z - shift for z in q.zero_point), "int8")


@dataclass
class _Node:
    """One operation of a file."""

    walk: _Walk
    kind: str
    inputs: list[int]
    outputs: list[int]
    options: Any  # of its kind: schema.Conv2DOptionsT, schema.AddOptionsT, …

    @property
    def label(self) -> str:
        """For messages: what it makes."""
        named = self.outputs and 0 <= self.outputs[0] < len(self.walk.tensors)
        return self.walk.tensors[self.outputs[0]].name[:80] if named else "?"

    @property
    def scope(self) -> str:
        """`net/conv1/BiasAdd;…` -> `net.conv1`."""
        told = self.label.partition(":")[2].split(";")[0]
        return _onnx.dotted(told.rpartition("/")[0] or told)

    def refused(self, why: str) -> BadInput:
        return BadInput(f"{self.walk.where}: the operation {self.kind} {why} in '{self.label}'; "
                        "docs/models.md lists those that are")  # fmt: skip

    def rank(self, position: int = 0) -> int:
        return len(self.walk.tensor(self.inputs[position]).shape)

    def value(self, position: int = 0) -> str:
        """The program's name of what it reads."""
        name = self.walk.values.get(self.inputs[position])
        if name is None:
            raise self.refused("of a constant, or what nothing before it makes, isn't known")
        if name in self.walk.ended:
            raise self.refused("behind a softmax isn't known")
        return name

    def has(self, position: int) -> bool:
        return position < len(self.inputs) and self.inputs[position] >= 0

    def constant(self, position: int) -> np.ndarray:
        """Stored numbers of an input, as they are."""
        data = self.walk.tensor(self.inputs[position]).data
        if data is None:
            raise self.refused("whose arguments aren't constant isn't known")
        return data

    def weight(self, position: int, order: tuple[int, ...], axis: int = 0) -> str:
        """The numbers that stored codes stand for, in another order, and their scales.

        Args:
            axis: of the channels that scales may be for, as the file stores them.
        """
        tensor = self.walk.tensor(self.inputs[position])
        codes, name = self.constant(position), f"c{self.inputs[position]} {self.kind}"
        if codes.dtype.kind == "f":
            self.walk.constants[name] = codes.astype(np.float32).transpose(order)
            return name
        q = tensor.quantization
        if q is None:
            raise ValueError("codes without a scale")
        params = _params(q)
        if len(q.scale) > 1 and q.axis != axis:
            raise ValueError("scales along another axis")
        shape = [-1 if i == axis else 1 for i in range(codes.ndim)] if len(q.scale) > 1 else []
        zeros, scales = (np.asarray(v).reshape(shape) for v in (q.zero_point, q.scale))
        less = (codes.astype(np.int64) - zeros).astype(np.float32)
        self.walk.constants[name] = (less * scales.astype(np.float32)).transpose(order)
        self.walk.scales[name] = QuantParams(params.scale, (0,) * len(q.scale), "int8",
                                             0 if len(q.scale) > 1 else None)  # fmt: skip
        if tensor.dtype not in ("int8", "uint8"):
            self.walk.strange.append(f"the weight '{tensor.name[:80]}' is of {tensor.dtype}")
        return name

    def bias(self, position: int) -> list[str]:
        """A stored bias, if there is one."""
        if not self.has(position):
            return []
        codes, name = self.constant(position), f"c{self.inputs[position]} {self.kind}"
        if codes.dtype.kind == "f":
            self.walk.constants[name] = codes.astype(np.float32)
            return [name]
        scales = [self.walk.tensor(i).quantization for i in self.inputs[:2]]
        steps = [np.asarray(q.scale, np.float64) for q in scales if q is not None]
        said = self.walk.tensor(self.inputs[position]).quantization
        step = steps[0] * steps[1]
        if said is not None and not np.allclose(said.scale, step, 1e-4, 0):
            self.walk.strange.append(f"the bias of '{self.label}' has another scale than its "
                                     "input's times its weight's")  # fmt: skip
        self.walk.constants[name] = (codes.astype(np.float64) * step).astype(np.float32)
        self.walk.biases[name] = codes.astype(np.int64)
        return [name]

    def emit(self, kind: str, inputs: list[str], **attributes: object) -> None:
        """A call, and another for the activation behind it."""
        (index,) = self.outputs
        result = f"t{index}"
        fused = int(getattr(self.options, "fusedActivationFunction", 0) or 0)
        if fused and fused not in _RELUS:
            raise self.refused(f"with the activation {fused} isn't known")
        made = f"{result} before" if fused else result
        self._call(kind, inputs, made, attributes)
        if fused:
            self.ended(made, result, _RELUS[fused])
        self.walk.values[index] = result
        self.walk._scaled(index)

    def ended(self, source: str, result: str, most: float | None) -> None:
        """A ReLU, or one with an end."""
        if most is None:
            self._call("Relu", [source], result, {})
        else:
            self._call("Clip", [source], result, {"min": 0.0, "max": most})

    def _call(
        self, kind: str, inputs: list[str], result: str, attributes: dict[str, object]
    ) -> None:
        call = Call(kind, self.label, tuple(inputs), (result,), attributes, self.scope, False)
        self.walk.calls.append(call)

    def window(self) -> dict[str, object]:
        options = self.options
        found: dict[str, object] = {"strides": [int(options.strideH), int(options.strideW)],
                 "auto_pad": b"SAME_UPPER" if options.padding == 0 else b"VALID"}  # fmt: skip
        if hasattr(options, "dilationHFactor"):
            found["dilations"] = [int(options.dilationHFactor), int(options.dilationWFactor)]
        return found


def _conv(node: _Node) -> None:
    count = node.walk.tensor(node.inputs[0]).shape[3]
    of = node.walk.tensor(node.inputs[1]).shape[3]
    weight = node.weight(1, _TO_SECOND)
    node.emit("Conv", [node.value(), weight, *node.bias(2)], group=count // of, **node.window())


def _depthwise(node: _Node) -> None:
    weight, groups = node.weight(1, (3, 0, 1, 2), 3), node.walk.tensor(node.inputs[0]).shape[3]
    node.emit("Conv", [node.value(), weight, *node.bias(2)], group=groups, **node.window())


def _linear(node: _Node) -> None:
    source = node.value()
    weight = node.weight(1, (0, 1))
    if len(node.walk.tensor(node.outputs[0]).shape) != 2:
        raise node.refused("to a map isn't known")
    if node.rank() != 2:
        node._call("Flatten", [source], f"{source} flat", {})
        source = f"{source} flat"
    node.emit("Gemm", [source, weight, *node.bias(2)], transB=1)


def _joined(kind: str) -> Callable[[_Node], None]:
    def made(node: _Node) -> None:
        names = []
        for position in (0, 1):
            if node.inputs[position] in node.walk.values:
                names.append(node.value(position))
                continue
            other, name = node.constant(position), f"c{node.inputs[position]} {node.kind}"
            if other.dtype.kind != "f":
                raise node.refused("of codes and a constant isn't known")
            whole = other.reshape((1,) * (4 - other.ndim) + other.shape)
            mapped = node.rank(1 - position) == 4
            node.walk.constants[name] = whole.transpose(_TO_SECOND) if mapped else other
            names.append(name)
        node.emit(kind, names)

    return made


def _pool(kind: str) -> Callable[[_Node], None]:
    def made(node: _Node) -> None:
        sides = [int(node.options.filterHeight), int(node.options.filterWidth)]
        window, pads = node.window(), node.walk.around.get(node.inputs[0])
        if pads is not None:
            if kind != "MaxPool" or window["auto_pad"] != b"VALID":
                raise node.refused("of what is padded isn't known")
            window |= {"pads": pads, "auto_pad": b"NOTSET"}
        node.emit(kind, [node.value()], kernel_shape=sides, **window)

    return made


def _mean(node: _Node) -> None:
    over = sorted(int(a) % node.rank() for a in node.constant(1).reshape(-1))
    if node.rank() != 4 or over != [1, 2]:
        raise node.refused("over other axes than height and width isn't known")
    node.emit("ReduceMean", [node.value()], axes=[2, 3], keepdims=int(bool(node.options.keepDims)))


def _pad(node: _Node) -> None:
    amounts = node.constant(1).reshape(4, 2)[list(_TO_SECOND)]
    walk, source = node.walk, node.value()
    zero = walk.tensor(node.inputs[0]).quantization
    nothing = zero.zero_point[0] if zero is not None else 0
    filled = node.constant(2).item() if node.has(2) else nothing
    if walk.readers[node.outputs[0]] != ["MAX_POOL_2D"]:
        node.emit("Pad", [source], pads=amounts.T.reshape(-1).tolist(),
                  value=float(filled - nothing))  # fmt: skip
        return
    # A max pool is padded with what is never the largest: the least there is, or 0 behind a ReLU.
    least = filled == -128 if zero is not None else filled <= float(np.finfo(np.float32).min)
    behind = any(c.outputs[0] == source and c.kind in ("Relu", "Clip") for c in walk.calls)
    if amounts[:2].any() or not (least or (behind and filled == nothing)):
        raise node.refused("in front of a max pool, with what may be the largest, isn't known")
    walk.values[node.outputs[0]] = source
    walk.around[node.outputs[0]] = amounts[2:].T.reshape(-1).tolist()


def _reshape(node: _Node) -> None:
    shape = node.walk.tensor(node.outputs[0]).shape
    if len(shape) == 4:
        shape = tuple(shape[i] for i in _TO_SECOND)
    name = f"c{node.outputs[0]} shape"
    node.walk.constants[name] = np.asarray([0, *shape[1:]], np.int64)
    source = node.value()
    before = node.walk.tensor(node.inputs[0]).shape
    if len(before) == 4 and len(shape) == 2 and before[1:3] != (1, 1):
        turned = f"t{node.outputs[0]} turned"  # a vector whose channels come last
        node._call("Transpose", [source], turned, {"perm": [0, 2, 3, 1]})
        source = turned
    node.emit("Reshape", [source, name])


def _concat(node: _Node) -> None:
    if node.rank() != 4 or int(node.options.axis) % 4 != 3:
        raise node.refused("along another axis than a map's channels isn't known")
    node.emit("Concat", [node.value(i) for i in range(len(node.inputs))], axis=1)


def _relu(most: float | None) -> Callable[[_Node], None]:
    def made(node: _Node) -> None:
        kind: tuple[str, dict[str, float]] = ("Relu", {})
        if most is not None:
            kind = "Clip", {"min": 0.0, "max": most}
        node.emit(kind[0], [node.value()], **kind[1])

    return made


def _simple(kind: str) -> Callable[[_Node], None]:
    return lambda node: node.emit(kind, [node.value()])


def _same(node: _Node) -> None:
    """A change of type: of a stored weight, of a value, or behind a softmax."""
    (source,), (result,) = node.inputs, node.outputs
    tensor = node.walk.tensor(source)
    if source not in node.walk.values and tensor.data is not None:
        if tensor.data.dtype.kind != "f":
            raise node.refused("of stored codes isn't known")
        unpacked = tensor.data.astype(np.float32)
        known = replace(node.walk.tensor(result), data=unpacked, constant=True)
        node.walk.tensors[result] = known
    elif node.walk.values.get(source) in node.walk.ended:
        node.walk.values[result] = node.walk.values[source]
    else:
        node.emit("Identity", [node.value()])


def _shape(node: _Node) -> None:
    """Arithmetic of shapes, as Keras writes it: tensors say what comes of it."""
    if any(node.walk.tensor(index).dtype != "int32" for index in node.outputs):
        raise node.refused("of anything but shapes isn't known")


def _softmax(node: _Node) -> None:
    if node.options.beta != 1:
        raise node.refused("with another temperature than 1 isn't known")
    node.walk.ended.add(f"t{node.outputs[0]}")
    node.walk.cut = node.inputs[0]
    node._call("Softmax", [node.value()], f"t{node.outputs[0]}", {"axis": -1})
    node.walk.values[node.outputs[0]] = f"t{node.outputs[0]}"


_KINDS: dict[str, Callable[[_Node], None]] = {
    "CONV_2D": _conv, "DEPTHWISE_CONV_2D": _depthwise, "FULLY_CONNECTED": _linear,
    "ADD": _joined("Add"), "MUL": _joined("Mul"), "SUB": _joined("Sub"), "DIV": _joined("Div"),
    "MAX_POOL_2D": _pool("MaxPool"), "AVERAGE_POOL_2D": _pool("AveragePool"), "MEAN": _mean,
    "PAD": _pad, "PADV2": _pad, "RESHAPE": _reshape, "SQUEEZE": _reshape,
    "EXPAND_DIMS": _reshape, "CONCATENATION": _concat, "RELU": _relu(None), "RELU6": _relu(6.0),
    "RELU_0_TO_1": _relu(1.0), "LOGISTIC": _simple("Sigmoid"), "HARD_SWISH": _simple("HardSwish"),
    "SHAPE": _shape, "STRIDED_SLICE": _shape, "PACK": _shape,
    "QUANTIZE": _same, "DEQUANTIZE": _same, "SOFTMAX": _softmax,
}  # fmt: skip

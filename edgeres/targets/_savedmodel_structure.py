"""A SavedModel exactly as stored: each operation in PyTorch's terms, and what is left over."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeres.errors import BadInput
from edgeres.targets import _savedmodel_container as container
from edgeres.targets._savedmodel_container import FLOAT, MODEL
from edgeres.targets._structure import Details, Step, Structure, fields_left_over

if TYPE_CHECKING:
    import numpy as np
    from tensorflow.core.framework import node_def_pb2

    from edgeres.targets import Source

_INT32 = 3  # DataType in types.proto
# operation -> what it is, how many inputs it has (0: `N`, and an axis), and attributes beside its
# type and shapes
_NODES: dict[str, tuple[str, int, tuple[str, ...]]] = {
    "Conv2D": ("conv", 2, ("strides", "padding", "explicit_paddings", "dilations")),
    "DepthwiseConv2dNative": ("conv", 2, ("strides", "padding", "dilations")),
    "MaxPool": ("max_pool", 1, ("ksize", "strides", "padding", "explicit_paddings")),
    "MatMul": ("linear", 2, ()), "BiasAdd": ("bias", 2, ()), "AddV2": ("add", 2, ()),
    "Mul": ("mul", 2, ()), "Sigmoid": ("sigmoid", 1, ()), "Relu": ("relu", 1, ()),
    "Relu6": ("relu", 1, ()), "Minimum": ("minimum", 2, ()),
    "Reshape": ("reshape", 2, ()), "ConcatV2": ("concat", 0, ("N",)),
    "Mean": ("mean", 2, ("keep_dims",)), "Pad": ("pad", 2, ()), "Identity": ("identity", 1, ()),
    "Const": ("const", 0, ("value",)), "Placeholder": ("image", 0, ("shape",)),
}  # fmt: skip
_OF_CONSTANTS = (
    "conv",
    "linear",
    "bias",
    "mean",
    "pad",
    "minimum",
    "reshape",
    "concat",
)  # their last input is one
_MAPS, _VECTORS = ("conv", "max_pool", "pad", "mean", "concat"), ("linear",)


def structure(path: Path, source: Source) -> Structure:
    """The folder's own graph.

    Args:
        source: what it must have been written from.

    Raises:
        BadInput: not a SavedModel, or a damaged one.
    """
    from tensorflow.core.protobuf import saved_model_pb2

    if not (path / MODEL).is_file():
        raise BadInput(f"{path}: not a SavedModel (a folder with a {MODEL})")
    data = (path / MODEL).read_bytes()
    try:  # protobuf checks types only; what else is wrong shows where it is used
        saved = saved_model_pb2.SavedModel.FromString(data)
        left_over = [*container.folder(path, source), *container.graphs(saved, source)]
        saved.DiscardUnknownFields()
        if saved.SerializeToString(deterministic=True) != data:
            left_over.append(
                f"{MODEL} holds fields of no known meaning, or isn't in export's order"
            )
        reader = _Reader(saved.meta_graphs[0].graph_def.node)
        reader.read()
        unused = [f"the constant {n[:80]!r} is not used" for n in reader.constants.keys()
                  - reader.reads.keys()]  # fmt: skip
        return Structure(tuple(reader.steps.values()), "input", reader.answer, shapes=reader.shapes,
                         left_over=(*left_over, *reader.strange, *unused), batch=None)  # fmt: skip
    except MemoryError:
        raise
    except Exception as error:
        what = type(error).__name__
        raise BadInput(f"{path}: not a TensorFlow network, or a damaged one ({what})") from error


class _Reader:
    """One graph of constants, channels last; each tensor has the name of its operation."""

    def __init__(self, nodes: Sequence[node_def_pb2.NodeDef]):
        self.nodes = nodes
        self.reads = Counter(name for node in nodes for name in node.input)
        # or a scalar of numpy's, which has the same methods
        self.constants: dict[str, np.ndarray] = {}
        self.ranks: dict[str, int] = {}
        self.steps: dict[str, Step] = {}  # by their output, in the file's order
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.answer = "logits"
        self.strange: list[str] = []

    def read(self) -> None:
        for node in self.nodes:
            name = f"{node.op[:40]} {node.name[:80]!r}"
            if node.name in self.constants or node.name in self.ranks:
                self.strange.append(f"{name}: its name is another's too")
            problem = self._problem(node)
            if problem:
                self.strange.append(f"{name}: {problem}")
                self.ranks[node.name] = 0
                self.steps[node.name] = Step("unknown", name, tuple(node.input), node.name)
                continue
            self._add(node, name)
            self.strange += [f"{name}: {said}" for said in self._declared(node)]

    def _problem(self, node: node_def_pb2.NodeDef) -> str:
        """Why a node isn't one that is read here; "" if it is."""
        for said in fields_left_over(node, ("name", "op", "input", "attr")):
            return said
        op, count, attributes = _NODES.get(node.op, ("", 0, ()))
        kind = "dtype" if op in ("const", "image") else "T"
        if not op:
            return "the network has no such operation"
        for key in sorted(node.attr.keys() - {*attributes, kind, "_output_shapes"}):
            return f"the attribute {key[:40]!r} isn't expected"
        dtype = node.attr[kind].type if kind in node.attr else FLOAT
        if dtype != FLOAT and not (op == "const" and dtype == _INT32):
            return f"it is of type {dtype}"
        if op == "concat":
            count = node.attr["N"].i + 1
            if node.attr["N"] != type(node.attr["N"])(i=count - 1):
                return "says more than how much it joins"
        if len(node.input) != count:
            return f"has {len(node.input)} inputs"
        computed = list(node.input[:-1] if op in _OF_CONSTANTS else node.input)
        if any(i not in self.ranks for i in computed):
            return "reads a constant, or what isn't computed yet"
        if any(i not in self.constants for i in node.input[len(computed) :]):
            return "what should be a constant is computed"
        ranks = {self.ranks[i] for i in computed}
        if len(ranks) > 1 or (op in _MAPS and ranks != {4}) or (op in _VECTORS and ranks != {2}):
            return "reads tensors of other ranks"  # (N, C) meets a map's last axes
        return ""

    def _add(self, node: node_def_pb2.NodeDef, name: str) -> None:
        op, stored = _NODES[node.op][0], [self.constants[i] for i in node.input
                                          if i in self.constants]  # fmt: skip
        read = tuple(i for i in node.input if i in self.ranks)
        if op == "const":
            self.constants[node.name] = self._constant(node, name)
            return
        if op == "image":
            self.ranks[node.name] = 4
            return
        self.ranks[node.name] = self.ranks[read[0]]
        if op == "identity":
            self.answer = read[0]
            if node.name != "logits":
                self.strange.append(f"{name}: does nothing")
        elif op == "bias":
            self._bias(read[0], node.name, stored[0], name)
        elif op == "minimum":
            self._end(read[0], node.name, stored[0], name)
        else:
            details = self._details(node, op, stored, name)
            self.steps[node.name] = Step(op, name, read, node.name, **details)  # type: ignore[arg-type]

    def _bias(self, read: str, output: str, bias: np.ndarray, name: str) -> None:
        """It belongs to what nobody else reads."""
        step = self.steps.get(read)
        weighted = step is not None and step.op in ("conv", "linear") and step.bias is None
        if step is None or not weighted or self.reads[read] != 1:
            self.strange.append(f"{name}: the network has no such bias")
            return
        del self.steps[read]
        self.steps[output] = dataclasses.replace(step, bias=bias, output=output)

    def _end(self, read: str, output: str, most: np.ndarray, name: str) -> None:
        """It cuts off a ReLU that nobody else reads."""
        step = self.steps.get(read)
        if step is None or step.op != "relu" or self.reads[read] != 1 or len({*most.flat}) != 1:
            self.strange.append(f"{name}: the network doesn't cut off here")
            return
        del self.steps[read]
        end = float(most.flat[0])
        self.steps[output] = dataclasses.replace(step, most=end, output=output)

    def _details(
        self, node: node_def_pb2.NodeDef, op: str, stored: list[np.ndarray], name: str
    ) -> Details:
        if op == "linear":
            return {"weight": stored[0].T}
        if op == "conv":
            weight, groups = stored[0].transpose(3, 2, 0, 1), None
            if node.op == "DepthwiseConv2dNative":  # (kH, kW, I, O / I)
                groups = stored[0].shape[2]
                weight = stored[0].transpose(2, 3, 0, 1).reshape(-1, 1, *stored[0].shape[:2])
            dilation = self._middle(_integers(node, "dilations") or [1, 1, 1, 1], name)
            return {"weight": weight, "groups": groups, "kernel": weight.shape[2:],
                    "dilation": dilation,
                    **self._window(node, name)}  # fmt: skip
        if op == "max_pool":
            kernel = self._middle(_integers(node, "ksize"), name)
            return {"kernel": kernel, **self._window(node, name)}
        if op == "mean":
            if not _boolean(node, "keep_dims"):
                self.ranks[node.name] = 2
            if sorted(int(i) % 4 for i in stored[0].reshape(-1)) != [1, 2]:
                self.strange.append(f"{name}: averages over the axes {stored[0].tolist()}")
        if op == "concat" and (stored[0].shape != () or int(stored[0]) % 4 != 3):
            self.strange.append(f"{name}: joins along the axis {stored[0].tolist()}")
        if op == "relu":
            return {"most": 6.0 if node.op == "Relu6" else math.inf}
        if op == "reshape":
            shape = tuple(int(n) for n in stored[0].reshape(-1))
            self.ranks[node.name] = len(shape)
            return {"shape": shape}
        if op == "pad":
            return {"padding": self._sides(stored[0].reshape(-1).tolist(), name)}
        return {}

    def _window(self, node: node_def_pb2.NodeDef, name: str) -> Details:
        kind = _text(node, "padding")
        found: Details = {"stride": self._middle(_integers(node, "strides"), name)}
        explicit = _integers(node, "explicit_paddings")
        if kind == "EXPLICIT":
            found["padding"] = self._sides(explicit, name)
        elif kind == "SAME":
            found["padding"] = None
        if kind not in ("EXPLICIT", "SAME", "VALID") or (kind != "EXPLICIT" and explicit):
            self.strange.append(f"{name}: its padding is {kind[:20]} {explicit}")
        return found

    def _middle(self, values: list[int], name: str) -> tuple[int, int]:
        first, height, width, last = values
        if (first, last) != (1, 1):
            self.strange.append(f"{name}: steps over images or channels")
        return height, width

    def _sides(self, values: list[int], name: str) -> tuple[int, int, int, int]:
        *images, top, bottom, left, right, before, after = values
        if images != [0, 0] or before or after:
            self.strange.append(f"{name}: pads images or channels")
        return top, left, bottom, right

    def _constant(self, node: node_def_pb2.NodeDef, name: str) -> Any:
        import numpy as np

        tensor, dtype = node.attr["value"].tensor, node.attr["dtype"].type
        sizes = [dim.size for dim in tensor.tensor_shape.dim]
        single = dtype == _INT32 and not sizes  # TensorFlow stores one by itself in another field
        held: dict[str, object] = {"int_val": list(tensor.int_val)} if single else {
            "tensor_content": tensor.tensor_content}  # fmt: skip
        plain = type(tensor)(dtype=dtype, tensor_shape=container.shape(tensor.tensor_shape, sizes),
                             **held)  # fmt: skip
        if tensor != plain:
            self.strange.append(f"{name}: isn't plain numbers of its type")
        if single:
            return np.int32(*tensor.int_val)
        values = np.frombuffer(tensor.tensor_content, "<i4" if dtype == _INT32 else "<f4")
        return values.reshape(sizes)

    def _declared(self, node: node_def_pb2.NodeDef) -> Iterator[str]:
        """The shape that TensorFlow noted when it wrote the file is the right one."""
        (told,) = node.attr["_output_shapes"].list.shape
        sizes = [dim.size for dim in told.dim]
        plain = type(node.attr["_output_shapes"])()
        plain.list.shape.append(container.shape(told, sizes))
        types = [node.attr[key] for key in ("dtype", "T") if key in node.attr]
        if node.attr["_output_shapes"] != plain or any(t != type(t)(type=t.type) for t in types):
            yield "its type or shape says more than that"
        if node.name in self.constants:
            if tuple(sizes) != self.constants[node.name].shape:
                yield f"its shape is said to be {sizes}"
            return
        images, *rest = sizes
        if images != -1 or len(sizes) != self.ranks[node.name]:
            yield f"its shape is said to be {sizes}"
        self.shapes[node.name] = shape = (rest[-1], *rest[:-1])
        if node.op in ("BiasAdd", "Identity") and shape != self.shapes.get(node.input[0], shape):
            yield f"its shape is said to be {sizes}"


def _integers(node: node_def_pb2.NodeDef, key: str) -> list[int]:
    """An attribute that is a list of whole numbers and nothing else."""
    if key not in node.attr:
        return []
    value = node.attr[key]
    numbers = list(value.list.i)
    if value != type(value)(list=type(value).ListValue(i=numbers)):
        raise ValueError(key)
    return numbers


def _text(node: node_def_pb2.NodeDef, key: str) -> str:
    value = node.attr[key]
    if value != type(value)(s=value.s):
        raise ValueError(key)
    return str(value.s.decode())


def _boolean(node: node_def_pb2.NodeDef, key: str) -> bool:
    if key not in node.attr:
        return False
    value = node.attr[key]
    if value != type(value)(b=value.b):
        raise ValueError(key)
    return bool(value.b)

"""A SavedModel as a `FileGraph`: parsed, never loaded, for a SavedModel is a program."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edgeres.errors import BadInput, EdgeresError
from edgeres.targets._graph import FileGraph, FileOp, Role
from edgeres.types import TensorSpec

if TYPE_CHECKING:
    import numpy as np
    from tensorflow.core.framework import graph_pb2, node_def_pb2, tensor_pb2, tensor_shape_pb2
    from tensorflow.core.protobuf import meta_graph_pb2

_ROLES: dict[str, Role] = {
    "Conv2D": "conv", "DepthwiseConv2dNative": "conv", "MatMul": "linear", "AddV2": "add",
    "Add": "add", "Mean": "pool", "AvgPool": "pool", "MaxPool": "move", "Relu": "move",
    "Relu6": "move", "Pad": "move", "PadV2": "move", "Reshape": "move", "Squeeze": "move",
    "ExpandDims": "move", "Mul": "mul", "Sigmoid": "sigmoid", "ConcatV2": "concat",
    "Identity": "move",
    "Transpose": "transpose", "Cast": "boundary",
}  # fmt: skip
_HARMLESS = {
    *_ROLES, "Const", "Placeholder", "NoOp", "BiasAdd", "FusedBatchNormV3", "Softmax", "Sub", "Mul",
    "RealDiv", "Rsqrt", "Sigmoid", "Tanh", "Maximum", "Minimum", "ConcatV2", "Shape", "Pack",
    "StridedSlice", "ZerosLike",
}  # fmt: skip
# What a TensorFlow 2 file calls or keeps beside its graph.
_ELSEWHERE = ("PartitionedCall", "StatefulPartitionedCall", "VarHandleOp", "VariableV2")
_TYPES = {1: "float32", 19: "float16", 4: "uint8", 6: "int8"}  # DataType in types.proto
_LARGEST = 1 << 28  # elements of a weight; a damaged shape may ask for any number


def graph(path: Path) -> FileGraph:
    """What the answer of `serving_default` is computed by.

    Raises:
        BadInput: not a SavedModel that edgeres reads, or a damaged one.
    """
    meta = _stored(path)
    try:  # protobuf checks types only; what else is wrong shows where it is used
        return _Reader(path, meta).graph()
    except EdgeresError:
        raise
    except Exception as error:
        what = type(error).__name__
        raise BadInput(f"{path}: not a TensorFlow network, or a damaged one ({what})") from error


def runnable(path: Path) -> tuple[graph_pb2.GraphDef, str, str]:
    """A file's graph, its input and its output, to be run without TensorFlow's loader, which runs
    more than the network.

    Raises:
        BadInput: it could do more than compute, as TensorFlow's operators can: write files, say.
    """
    meta = _stored(path)
    functions = {function.signature.name for function in meta.graph_def.library.function}
    strange = sorted(functions | {node.op for node in meta.graph_def.node} - _HARMLESS)
    if strange:
        raise BadInput(f"{path}: calls {strange[0][:80]!r}; edgeres runs only the operators that "
                       "networks of images are made of")  # fmt: skip
    signature = meta.signature_def["serving_default"]
    ((_, first),), ((_, last),) = signature.inputs.items(), signature.outputs.items()
    return meta.graph_def, first.name, last.name


def _stored(path: Path) -> meta_graph_pb2.MetaGraphDef:
    """The part of a SavedModel that is meant for serving, as a MetaGraphDef."""
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    file = path / "saved_model.pb"
    if not file.is_file():
        raise BadInput(f"{path}: not a SavedModel (a folder with a saved_model.pb)")
    try:
        saved = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    except DecodeError as error:
        raise BadInput(f"{path}: its saved_model.pb is damaged or something else") from error
    for meta in saved.meta_graphs:
        if "serve" in meta.meta_info_def.tags and "serving_default" in meta.signature_def:
            return meta
    raise BadInput(f"{path}: has no signature 'serving_default'")


class _Reader:
    """One graph; tensors are named by the operation that gives them, the ends by the signature."""

    def __init__(self, path: Path, meta: meta_graph_pb2.MetaGraphDef):
        self.path, self.meta = path, meta
        self.nodes = {node.name: node for node in meta.graph_def.node}
        signature = meta.signature_def["serving_default"]
        self.first, self.input = self._end("input", signature.inputs)
        self.last, self.output = self._end("output", signature.outputs)
        formats = [n.attr["data_format"].s for n in self.nodes.values() if "data_format" in n.attr]
        self.channels_last = b"NCHW" not in formats  # NHWC, the default, need not be stored
        # constants, by every name that they go by
        self.stored: dict[str, tensor_pb2.TensorProto] = {}

    def graph(self) -> FileGraph:
        ops = []
        for name in self._ordered():
            node, sources = self.nodes[name], self._sources(name)
            if node.op in _ELSEWHERE:
                raise BadInput(f"{self.path}: its network is in functions or variables "
                               f"({node.op}); edgeres reads flat graphs of constants")  # fmt: skip
            if node.op == "Const":
                self.stored[name] = node.attr["value"].tensor
            elif node.op == "Identity" and sources[0] in self.stored:
                self.stored[name] = self.stored[sources[0]]
            elif name != self.first:
                ops.append(self._operation(node, sources))
        return FileGraph(
            "savedmodel", tuple(ops), self.input, self.output, metadata=self._metadata(),
            versions={"graph": int(self.meta.graph_def.versions.producer)},
        )  # fmt: skip

    def _ordered(self) -> list[str]:
        """What the answer needs, each after what it is computed from."""
        order: dict[str, None] = {}
        opened, stack = set(), [self.last]
        while stack:
            missing = [name for name in self._sources(stack[-1]) if name not in order]
            if not missing:
                order[stack.pop()] = None
            elif stack[-1] in opened:
                raise BadInput(f"{self.path}: not a network (its operations form a circle)")
            else:
                opened.add(stack[-1])
                stack += reversed(missing)
        if self.first not in order:
            raise BadInput(f"{self.path}: not a network (its output doesn't depend on its input)")
        return list(order)

    def _sources(self, name: str) -> list[str]:
        if name == self.first:
            return []
        return [i.split(":")[0] for i in self.nodes[name].input if not i.startswith("^")]

    def _operation(self, node: node_def_pb2.NodeDef, sources: list[str]) -> FileOp:
        role = _ROLES.get(node.op, "other")
        data = [name for name in sources if name not in self.stored]
        constants = [self.stored[name] for name in sources if name in self.stored]
        if role == "add" and len(data) != 2:
            role = "other"  # a bias
        weight = None
        if role in ("conv", "linear") and len(sources) > 1 and sources[1] in self.stored:
            weight = _weight(node, self.stored[sources[1]])
        dtype = _TYPES.get(node.attr["T"].type, "")
        floating = role not in ("move", "transpose", "boundary") and dtype.startswith("float")
        return FileOp(
            node.op, role, node.name, tuple(map(self._tensor, data)), self._tensor(node.name),
            floating, weight, shape=self._shape(node),
            constant_bytes=sum(len(tensor.tensor_content) for tensor in constants),
        )  # fmt: skip

    def _shape(self, node: node_def_pb2.NodeDef) -> tuple[int, ...]:
        """What TensorFlow inferred when it wrote the file, in PyTorch's order."""
        shapes = node.attr["_output_shapes"].list.shape
        dims = _dims(shapes[0]) if shapes else ()
        if any(size < 1 for size in dims):
            return ()
        return (dims[0], dims[3], *dims[1:3]) if len(dims) == 4 and self.channels_last else dims

    def _tensor(self, name: str) -> str:
        return {self.first: self.input.name, self.last: self.output.name}.get(name, name)

    def _end(
        self, what: str, tensors: Mapping[str, meta_graph_pb2.TensorInfo]
    ) -> tuple[str, TensorSpec]:
        """The operation behind the signature's only input or output, and what it is."""
        if len(tensors) != 1:
            raise BadInput(f"{self.path}: not a network of one {what} tensor (it has "
                           f"{len(tensors)} {what}s)")  # fmt: skip
        ((key, info),) = tensors.items()
        if info.dtype not in _TYPES:
            raise BadInput(f"{self.path}: its {what} is of type {info.dtype}; edgeres reads image "
                           "networks")  # fmt: skip
        dims, layout = _dims(info.tensor_shape), "NC"
        if len(dims) == 4:
            layout = "NHWC" if dims[3] in (1, 3) and dims[1] not in (1, 3) else "NCHW"
        return info.name.split(":")[0], TensorSpec(key, dims, _TYPES[info.dtype], layout)

    def _metadata(self) -> dict[str, str]:
        notes = (self.path / "assets.extra").glob("*.txt")
        return {note.stem: note.read_bytes().decode("utf-8", "replace")
                for note in sorted(notes) if note.is_file()}  # fmt: skip


def _dims(shape: tensor_shape_pb2.TensorShapeProto) -> tuple[int, ...]:
    """A shape with batch 1; -1 for what else is open, () if its rank is unknown."""
    return tuple(dim.size if i or dim.size >= 0 else 1 for i, dim in enumerate(shape.dim))


def _weight(node: node_def_pb2.NodeDef, tensor: tensor_pb2.TensorProto) -> np.ndarray | None:
    """A stored weight in PyTorch's order; None where it isn't one."""
    import tensorflow as tf

    dims = [dim.size for dim in tensor.tensor_shape.dim]
    if len(dims) not in (2, 4) or math.prod(dims) > _LARGEST:
        return None
    values: np.ndarray = tf.make_ndarray(tensor)
    if node.op == "Conv2D":
        return values.transpose(3, 2, 0, 1)
    if node.op == "DepthwiseConv2dNative":  # (kH, kW, I, O / I)
        return values.transpose(2, 3, 0, 1).reshape(-1, 1, *dims[:2])
    return values if node.attr["transpose_b"].b else values.T

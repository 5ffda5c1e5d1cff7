"""Faults in a SavedModel's structure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from edgeres.targets import _faults

if TYPE_CHECKING:
    from tensorflow.core.framework import node_def_pb2
    from tensorflow.core.protobuf import meta_graph_pb2

_NAME = "edgeres_fault"


def cut_identity(path: Path, number: int, operand: int) -> None:
    """See `_faults`."""

    def change(meta: meta_graph_pb2.MetaGraphDef) -> None:
        nodes = meta.graph_def.node
        add = [n for n in nodes if n.op == "AddV2"][number]
        zeros = nodes.add(name=_NAME, op="ZerosLike", input=[add.input[operand]])
        zeros.attr["T"].CopyFrom(add.attr["T"])
        add.input[operand] = _NAME

    _changed(path, change)


def _own_operation(path: Path) -> None:
    """The greater of each answer and itself."""
    _changed(path, lambda meta: _behind(meta, "Maximum", twice=True))


def _mixed(path: Path) -> None:
    """The greatest answer of a batch for each of its images; for one image that is its own."""

    def change(meta: meta_graph_pb2.MetaGraphDef) -> None:
        import tensorflow as tf

        axis = meta.graph_def.node.add(name=f"{_NAME}_axis", op="Const")
        axis.attr["dtype"].type = tf.int32.as_datatype_enum
        axis.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(0, tf.int32))
        most = meta.graph_def.node.add(name=f"{_NAME}_most", op="Max")
        most.input.extend([_answer(meta).name.split(":")[0], axis.name])
        most.attr["T"].type = tf.float32.as_datatype_enum
        most.attr["Tidx"].type = tf.int32.as_datatype_enum
        most.attr["keep_dims"].b = True
        _behind(meta, "Maximum", more=most.name)

    _changed(path, change)


def _detour(path: Path) -> None:
    """Answers as double-precision numbers and back."""

    def change(meta: meta_graph_pb2.MetaGraphDef) -> None:
        import tensorflow as tf

        for source, made in ((tf.float32, tf.float64), (tf.float64, tf.float32)):
            node = _behind(meta, "Cast")
            del node.attr["T"]
            node.attr["SrcT"].type = source.as_datatype_enum
            node.attr["DstT"].type = made.as_datatype_enum

    _changed(path, change)


def _signature(path: Path) -> None:
    """Another one, whose answer is the image."""

    def change(meta: meta_graph_pb2.MetaGraphDef) -> None:
        own = meta.signature_def["serving_default"]
        meta.signature_def["other"].CopyFrom(own)
        (given,) = own.inputs.values()
        for answer in meta.signature_def["other"].outputs.values():
            answer.CopyFrom(given)

    _changed(path, change)


def _function(path: Path) -> None:
    _changed(path, lambda meta: meta.graph_def.library.function.add(
        signature={"name": _NAME}))  # fmt: skip


def _metadata(path: Path) -> None:
    _changed(path, lambda meta: meta.meta_info_def.tags.append("gpu"))


def _swapped(path: Path) -> bool:
    swapped = False

    def change(meta: meta_graph_pb2.MetaGraphDef) -> None:
        nonlocal swapped
        for node in meta.graph_def.node:
            if node.op == "ConcatV2" and not swapped:
                node.input[0], node.input[1] = node.input[1], node.input[0]
                swapped = True

    _changed(path, change)
    return swapped


PLANTERS: dict[str, Callable[[Path], bool | None]] = {
    "an operation of its own behind the answer": _own_operation,
    "images of a batch mixed": _mixed,
    "a signature of another output": _signature,
    "other standard metadata": _metadata,
    "a detour through another type": _detour,
    "a second graph or function": _function,
    _faults.SWAPPED: _swapped,
}


def _changed(path: Path, change: Callable[[meta_graph_pb2.MetaGraphDef], object]) -> None:
    from tensorflow.core.protobuf import saved_model_pb2

    file = path / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    change(saved.meta_graphs[0])
    file.write_bytes(saved.SerializeToString(deterministic=True))


def _answer(meta: meta_graph_pb2.MetaGraphDef) -> meta_graph_pb2.TensorInfo:
    (answer,) = meta.signature_def["serving_default"].outputs.values()
    return answer


def _behind(
    meta: meta_graph_pb2.MetaGraphDef, kind: str, twice: bool = False, more: str = ""
) -> node_def_pb2.NodeDef:
    """Put an operation behind the answer; the signature names what it gives."""
    import tensorflow as tf

    answer, nodes = _answer(meta), meta.graph_def.node
    source = answer.name.split(":")[0]
    node = nodes.add(name=f"{_NAME}_{len(nodes)}", op=kind, input=[source])
    node.input.extend([source] if twice else [more] if more else [])
    node.attr["T"].type = tf.float32.as_datatype_enum
    answer.name = f"{node.name}:0"
    return node

"""What a SavedModel may hold beside the nodes of its graph; anything else is named."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from edgeres.targets._structure import (
    VERSION_NOTE,
    fields_left_over,
    folder_left_over,
    notes_left_over,
)

if TYPE_CHECKING:
    from tensorflow.core.framework import graph_pb2, tensor_shape_pb2
    from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

    from edgeres.targets import Source

MODEL, NOTES = Path("saved_model.pb"), Path("assets.extra")
FLOAT = 1  # DataType in types.proto
_WORDS = re.compile(r"[\w.+-]{1,60}", re.ASCII)


def shape(
    like: tensor_shape_pb2.TensorShapeProto, sizes: list[int]
) -> tensor_shape_pb2.TensorShapeProto:
    """A TensorShapeProto."""
    made = type(like)()
    for size in sizes:
        made.dim.add().size = size
    return made


def folder(path: Path, source: Source) -> Iterator[str]:
    names = {*source.metadata, VERSION_NOTE}
    yield from folder_left_over(path, [MODEL, *(NOTES / f"{name}.txt" for name in names)])
    notes = {}
    for name in sorted(names):
        file = path / NOTES / f"{name}.txt"
        if file.is_file():
            notes[name] = file.read_bytes().decode("utf-8", "replace")
    yield from notes_left_over(notes, source.metadata)


def graphs(saved: saved_model_pb2.SavedModel, source: Source) -> Iterator[str]:
    """What a SavedModel may hold beside the nodes of its one graph."""
    import tensorflow as tf

    yield from fields_left_over(saved, ("saved_model_schema_version", "meta_graphs"))
    if saved.saved_model_schema_version != 1 or len(saved.meta_graphs) != 1:
        yield f"it has {len(saved.meta_graphs)} graphs, or is of another version"
    meta = saved.meta_graphs[0]
    yield from fields_left_over(meta, ("meta_info_def", "graph_def", "signature_def"))
    yield from fields_left_over(meta.graph_def, ("node", "versions"))
    yield from _told(meta.meta_info_def, meta.graph_def, tf)
    signatures = meta.signature_def
    for name in sorted(signatures.keys() ^ {"serving_default"}):
        yield f"it has the signature {name[:80]!r}, or lacks it"
    network = source.model.spec
    px = network.preprocess.size_px
    ends = {"inputs": ("input", [-1, px, px, 3]), "outputs": ("logits", [-1, network.classes])}
    for stored in signatures.values():
        expected = type(stored)(method_name="tensorflow/serving/predict")
        for which, (name, sizes) in ends.items():
            end = getattr(expected, which)[name]
            end.name, end.dtype = f"{name}:0", FLOAT
            end.tensor_shape.CopyFrom(shape(end.tensor_shape, sizes))
        if stored != expected:
            yield "its signature isn't the network's: one input, one output, of its sizes"
    images = [node for node in meta.graph_def.node if node.op == "Placeholder"]
    told = [(node.name, node.attr["shape"]) for node in images]
    if [(name, value == type(value)(shape=shape(value.shape, ends["inputs"][1])))
            for name, value in told] != [("input", True)]:  # fmt: skip
        yield "its graph has another input than the network"


def _told(
    info: meta_graph_pb2.MetaGraphDef.MetaInfoDef, graph: graph_pb2.GraphDef, tf: ModuleType
) -> Iterator[str]:
    """What TensorFlow notes of itself; for the one that is here, exactly that."""
    from tensorflow.python.framework.meta_graph import stripped_op_list_for_graph

    fields = ("stripped_op_list", "tags", "tensorflow_version", "tensorflow_git_version",
              "stripped_default_attrs")  # fmt: skip
    yield from fields_left_over(info, fields)
    if list(info.tags) != ["serve"] or not info.stripped_default_attrs:
        yield f"its tags are {', '.join(info.tags)[:80]}, not serve"
    for text in (info.tensorflow_version, info.tensorflow_git_version):
        if not _WORDS.fullmatch(text):
            yield "it isn't told which TensorFlow wrote it"
    yield from fields_left_over(graph.versions, ("producer",))
    if info.tensorflow_version == tf.__version__:
        if info.stripped_op_list != stripped_op_list_for_graph(graph):
            yield "its list of operators isn't TensorFlow's"
        told = (info.tensorflow_git_version, graph.versions.producer)
        if told != (tf.version.GIT_VERSION, tf.version.GRAPH_DEF_VERSION):
            yield "its producer isn't the TensorFlow that it says"
    elif {op.name for op in info.stripped_op_list.op} != {node.op for node in graph.node}:
        yield "its list of operators isn't that of its graph"

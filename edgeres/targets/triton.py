"""Model repositories for Triton Inference Server: a folder with one ONNX model, batched by Triton.

    FILE.triton/NAME/config.pbtxt     what Triton needs to know
    FILE.triton/NAME/labels.txt       class names, if the source has them
    FILE.triton/NAME/1/model.onnx     the same file as the `onnx` target's

NAME is the network's. Serve it with `tritonserver --model-repository FILE.triton`.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edgeres.disk import storage_errors
from edgeres.errors import BadInput
from edgeres.targets import Session, Source, Tracer, _schemes, onnx
from edgeres.targets._graph import FileGraph
from edgeres.targets._structure import VERSION_NOTE, Structure, folder_left_over
from edgeres.types import TensorSpec

if TYPE_CHECKING:
    from google.protobuf import message

SUMMARY = "Triton Inference Server, with ONNX"
PRECISIONS = ("fp32", "int8")
SUFFIX = ".triton"
PACKAGE = "onnxruntime"
EXTRA = None
RUNTIME = "onnxruntime"
ANY_BATCH = True
SCHEMES = {"int8": _schemes.as_trained}

_LABELS = "edgeres.labels"
_LARGEST_BATCH = 32
_QUEUE_DELAY_US = 100  # how long a request waits for others to share its batch
# message -> field -> number, type, repeated
_MESSAGES: dict[str, dict[str, tuple[int, str, bool]]] = {
    "Tensor": {"name": (1, "STRING", False), "data_type": (2, "DataType", False),
               "dims": (3, "INT64", True), "label_filename": (4, "STRING", False)},
    "DynamicBatching": {"max_queue_delay_microseconds": (2, "UINT64", False)},
    "Value": {"string_value": (1, "STRING", False)},
    "Parameter": {"key": (1, "STRING", False), "value": (2, "Value", False)},
    "ModelConfig": {"name": (1, "STRING", False), "max_batch_size": (4, "INT32", False),
                    "input": (5, "Tensor", True), "output": (6, "Tensor", True),
                    "dynamic_batching": (11, "DynamicBatching", False),
                    "parameters": (14, "Parameter", True), "backend": (17, "STRING", False)},
}  # fmt: skip
_DATA_TYPES = ("INVALID", "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32",
               "INT64", "FP16", "FP32", "FP64", "STRING", "BF16")  # fmt: skip
# A string or comment (kept), or a list written without its colon: valid, but protobuf's Python
# reader can't skip such a list where it doesn't know the field.
_LIST = re.compile(r"""("(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|\#[^\n]*)|(\w)\s*\[""")
_TYPES = {"uint8": "TYPE_UINT8", "int8": "TYPE_INT8", "float32": "TYPE_FP32",
          "float16": "TYPE_FP16"}  # fmt: skip


def export(source: Source, precision: str, path: Path) -> tuple[TensorSpec, TensorSpec]:
    """Write a .triton folder; its model takes and gives what the `onnx` file does.

    A repository of that name is replaced.

    Raises:
        BadInput: a folder of that name holds something else.
    """
    name = _name(source)
    model = path / name
    with storage_errors(path):
        if path.is_dir() and any(path.iterdir()):
            if not any(path.glob("*/config.pbtxt")):
                raise BadInput(f"{path}: holds no Triton repository; move it out of the way")
            shutil.rmtree(path)
        (model / "1").mkdir(parents=True)
        first, last = onnx.export(source, precision, model / "1/model.onnx")
        labels = source.metadata.get(_LABELS, "")
        if labels:
            (model / "labels.txt").write_text(labels.rstrip("\n") + "\n", "utf-8")
        config = _config(name, first, last, source, bool(labels))
        (model / "config.pbtxt").write_text(config, "utf-8")
    return first, last


def read(path: Path) -> FileGraph:
    """Read the ONNX model inside, and check that Triton is told what it is.

    Raises:
        BadInput: not a repository of one ONNX model, or its config.pbtxt doesn't fit the model.
    """
    file = _inner(path)
    graph = onnx.read(file)
    config = _parsed(file.parents[1] / "config.pbtxt")
    for told, actual in ((config.input, graph.input), (config.output, graph.output)):
        if [_told(t) for t in told] != [_actual(actual, config.max_batch_size > 0)]:
            raise BadInput(f"{path}: config.pbtxt doesn't describe '{actual.name}' of {file.name} "
                           f"({actual.dtype} {list(actual.shape)}); export it again")  # fmt: skip
    return dataclasses.replace(graph, metadata=_agreed(graph.metadata, config, file.parents[1]))


def _agreed(inside: Mapping[str, str], config: message.Message, folder: Path) -> dict[str, str]:
    """Notes of the model and of config.pbtxt; one that they don't agree on is no note at all."""
    outside = {entry.key: entry.value.string_value for entry in config.parameters}
    notes = {k: v for k, v in {**inside, **outside}.items()
             if inside.get(k, v) == v == outside.get(k, v)}  # fmt: skip
    labels = folder / "labels.txt"
    if labels.is_file() and labels.read_text("utf-8", "replace").rstrip("\n") != notes.get(_LABELS):
        notes.pop(_LABELS, None)
    return notes


def structure(path: Path, source: Source, precision: str) -> Structure:
    """The model inside as it is stored (`_structure`), and the folder around it.

    Raises:
        BadInput: not a repository of one ONNX model.
    """
    file = _inner(path)
    inner = onnx.structure(file, source, precision)
    return dataclasses.replace(inner, left_over=(*inner.left_over, *_around(path, file, source)))


def _around(path: Path, file: Path, source: Source) -> Iterator[str]:
    """What of the repository isn't what `export` writes."""
    graph, name = onnx.read(file), _name(source)
    folder = path / name
    labels = source.metadata.get(_LABELS, "")
    notes = {**source.metadata, **({VERSION_NOTE: graph.metadata[VERSION_NOTE]}
                                   if VERSION_NOTE in graph.metadata else {})}  # fmt: skip
    told = dataclasses.replace(source, metadata=notes)
    texts = {folder / "config.pbtxt": _config(name, graph.input, graph.output, told, bool(labels))}
    if labels:
        texts[folder / "labels.txt"] = labels.rstrip("\n") + "\n"
    expected = (folder / "1/model.onnx", *texts)
    yield from folder_left_over(path, (place.relative_to(path) for place in expected))
    for place, text in texts.items():
        if not place.is_file() or place.read_bytes() != text.encode():
            yield f"{place.name} isn't the network's"


def session(path: Path, threads: int = 1) -> Session | None:
    """Load the model inside in onnxruntime, as Triton's backend does."""
    return onnx.session(_inner(path), threads)


def tracer(path: Path) -> Tracer | None:
    """Load the model inside so that every tensor can be seen."""
    return onnx.tracer(_inner(path))


def _name(source: Source) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", source.model.spec.name).strip(".") or "model"


def _inner(path: Path) -> Path:
    """The newest version of the one model in a repository."""
    configs = sorted(path.glob("*/config.pbtxt")) if path.is_dir() else []
    if len(configs) != 1:
        raise BadInput(f"{path}: not a Triton repository of one model "
                       f"({len(configs)} folders with a config.pbtxt)")  # fmt: skip
    versions = [f for f in configs[0].parent.glob("*/model.onnx")
                if f.parent.name.isascii() and f.parent.name.isdigit()]  # fmt: skip
    if not versions:
        raise BadInput(f"{configs[0].parent}: has no version folder with a model.onnx")
    return max(versions, key=lambda f: int(f.parent.name))


def _config(name: str, first: TensorSpec, last: TensorSpec, source: Source, labels: bool) -> str:
    from google.protobuf import text_format

    config = _schema()()
    config.name, config.backend, config.max_batch_size = name, "onnxruntime", _LARGEST_BATCH
    for tensors, spec in ((config.input, first), (config.output, last)):
        tensors.add(name=spec.name, data_type=_TYPES[spec.dtype], dims=spec.shape[1:])
    if labels:
        config.output[0].label_filename = "labels.txt"
    config.dynamic_batching.max_queue_delay_microseconds = _QUEUE_DELAY_US
    for key, value in sorted(source.metadata.items()):
        config.parameters.add(key=key).value.string_value = value
    return text_format.MessageToString(config)


def _parsed(path: Path) -> message.Message:
    """config.pbtxt as far as edgeres knows it; fields that it doesn't know are skipped."""
    from google.protobuf import text_format

    try:
        text = _LIST.sub(lambda m: m[1] or f"{m[2]}: [", path.read_text("utf-8"))
        return text_format.Parse(text, _schema()(), allow_unknown_field=True)
    except (text_format.ParseError, ValueError, OSError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BadInput(f"{path}: not a Triton configuration ({reason})") from error


def _told(tensor: message.Message) -> tuple[str, str, tuple[int, ...]]:
    kind = tensor.data_type
    known = _DATA_TYPES[kind] if 0 <= kind < len(_DATA_TYPES) else str(kind)
    return tensor.name, f"TYPE_{known}", tuple(tensor.dims)


def _actual(spec: TensorSpec, batched: bool) -> tuple[str, str, tuple[int, ...]]:
    return spec.name, _TYPES.get(spec.dtype, spec.dtype), spec.shape[1:] if batched else spec.shape


@functools.cache
def _schema() -> type[message.Message]:
    """The part of Triton's `ModelConfig` that is written here, as a message class.

    Names, numbers and types as in model_config.proto
    (github.com/triton-inference-server/common/blob/main/protobuf/model_config.proto).
    """
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(
        name="edgeres/triton.proto", package="edgeres.triton", syntax="proto3"
    )
    kinds = file.enum_type.add(name="DataType")
    for number, kind in enumerate(_DATA_TYPES):
        kinds.value.add(name=f"TYPE_{kind}", number=number)
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind, repeated) in fields.items():
            own = kind if kind in _MESSAGES or kind == "DataType" else ""
            code = "ENUM" if own == "DataType" else "MESSAGE" if own else kind
            message.field.add(
                name=field, number=number, type=f"TYPE_{code}",
                label="LABEL_REPEATED" if repeated else "LABEL_OPTIONAL",
                type_name=f".edgeres.triton.{own}" if own else None,
            )  # fmt: skip
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("edgeres.triton.ModelConfig"))

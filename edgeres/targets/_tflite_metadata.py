"""What a .tflite file says of itself: our own entries, and the standard ones of Android's tools.

The standard part (a `ModelMetadata` flatbuffer with the mark M001, and a zip of the label file
behind the model) follows tensorflow_lite_support/metadata/metadata_schema.fbs, version 1.0.0. With
it Android Studio, ML Kit and the Task Library normalize the image and name the classes. The Task
Library takes float32 and uint8 images only: fp32, fp16 and dynamic files, not int8 ones.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from typing import TYPE_CHECKING

from edgeres.network import tflite_file as file
from edgeres.targets._tflite_versions import oldest_runtime

if TYPE_CHECKING:
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    from edgeres.targets import Source

STANDARD, RUNTIME = "TFLITE_METADATA", "min_runtime_version"
_LABELS = "labels.txt"
_IMAGE, _RGB, _FEATURE, _NORMALIZATION, _AXIS_LABELS = 2, 1, 1, 1, 2  # the schema's enumerations
_FIRST_DAY = (1980, 1, 1, 0, 0, 0)  # of a zip: the same network must give the same bytes


def describe(model: schema.ModelT, source: Source) -> None:
    """Write what is known of a network into its file's objects, in place."""
    _put(model, RUNTIME, oldest_runtime(versions(model)).ljust(16, "\0").encode())
    _put(model, STANDARD, standard(source))
    for name, text in source.metadata.items():
        _put(model, name, text.encode("utf-8", "replace"))


def with_labels(data: bytes, source: Source) -> bytes:
    """A file with its class names in a zip at its end, where Android's tools look for them."""
    labels = class_names(source)
    if not labels:
        return data
    whole = io.BytesIO(data)
    with zipfile.ZipFile(whole, "a") as archive:  # stored, not compressed: readers map it
        text = "\n".join(labels).encode("utf-8", "replace")
        archive.writestr(zipfile.ZipInfo(_LABELS, _FIRST_DAY), text)
    return whole.getvalue()


def class_names(source: Source) -> list[str]:
    """The network's class names; none if they don't fit its outputs (readers would refuse them)."""
    text = source.metadata.get("edgeres.labels", "")
    names = text.split("\n") if text else []
    return names if len(names) == source.model.spec.classes else []


def notes(model: schema.ModelT) -> Mapping[str, str]:
    """A file's metadata entries that are text."""
    found = {}
    for entry in model.metadata or ():
        data = model.buffers[entry.buffer].data
        try:
            text = bytes(data if data is not None else b"").decode("utf-8")
        except UnicodeDecodeError:
            continue
        found[file.clean(entry.name)] = text.rstrip("\0")  # converters pad theirs
    return found


def versions(model: schema.ModelT) -> dict[str, int]:
    """Operator -> the newest version of it that a file lists."""
    found: dict[str, int] = {}
    for code in model.operatorCodes or ():
        kind = file.code_kind(code)
        found[kind] = max(found.get(kind, 1), int(code.version))
    return found


def _put(model: schema.ModelT, name: str, data: bytes) -> None:
    import numpy as np
    from ai_edge_litert import schema_py_generated as schema

    for entry in model.metadata or ():
        if entry.name == name.encode():  # the converter's; its buffer is used again
            model.buffers[entry.buffer].data = np.frombuffer(data, np.uint8)
            return
    entry = schema.MetadataT()
    entry.name, entry.buffer = name.encode(), file.add_buffer(model, data)
    model.metadata = [*(model.metadata or ()), entry]


def standard(source: Source) -> bytes:
    """The `ModelMetadata` flatbuffer; each table's fields are in the schema's order."""
    import flatbuffers

    spec, b = source.model.spec, flatbuffers.Builder(1024)
    size = _table(b, _Uint(spec.preprocess.size_px), _Uint(spec.preprocess.size_px))
    content = _table(b, _Byte(_IMAGE), _table(b, _Byte(_RGB), size))
    scaled = ([255 * v for v in part] for part in (spec.preprocess.mean, spec.preprocess.std))
    normalization = _table(b, *(_floats(b, values) for values in scaled))
    units = _tables(b, _table(b, _Byte(_NORMALIZATION), normalization))
    texts = b.CreateString("image"), b.CreateString("RGB, each value a byte before normalization")
    first = _table(b, *texts, None, content, units)

    files = None
    if class_names(source):
        texts = b.CreateString(_LABELS), b.CreateString("Class names, one a line")
        files = _tables(b, _table(b, *texts, _Byte(_AXIS_LABELS)))
    content = _table(b, _Byte(_FEATURE), _table(b))
    texts = b.CreateString("logits"), b.CreateString("One score per class, before softmax")
    last = _table(b, *texts, None, content, None, None, files)

    graph = _table(b, None, None, _tables(b, first), _tables(b, last))
    licence = source.metadata.get("edgeres.licence", "").encode("utf-8", "replace")
    b.Finish(_table(b, b.CreateString(spec.name), None, None, _tables(b, graph), None,
                    b.CreateString(licence) if licence else None, None, b.CreateString("1.0.0")),
             file_identifier=b"M001")  # fmt: skip
    return bytes(b.Output())


class _Byte(int):
    """A field of one byte."""


class _Uint(int):
    """A field of four bytes."""


def _table(builder: flatbuffers.Builder, *fields: int | None) -> int:
    """A table of scalars and offsets of what was built before; None leaves a field out."""
    builder.StartObject(len(fields))
    for slot, value in enumerate(fields):
        if isinstance(value, _Byte):
            builder.PrependUint8Slot(slot, value, 0)
        elif isinstance(value, _Uint):
            builder.PrependUint32Slot(slot, value, 0)
        elif value is not None:
            builder.PrependUOffsetTRelativeSlot(slot, value, 0)
    return builder.EndObject()


def _tables(builder: flatbuffers.Builder, *offsets: int) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()


def _floats(builder: flatbuffers.Builder, values: list[float]) -> int:
    builder.StartVector(4, len(values), 4)
    for value in reversed(values):
        builder.PrependFloat32(value)
    return builder.EndVector()

"""What a .mlpackage may hold beside its operations; anything else is named."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from edgeres.targets import _mil_package as packages
from edgeres.targets._structure import (
    VERSION_NOTE,
    fields_left_over,
    folder_left_over,
    notes_left_over,
    plain,
)

if TYPE_CHECKING:
    from coremltools.proto import MIL_pb2, Model_pb2

    from edgeres.targets import Source

_VERSION, _OPSET, _MAIN = 8, "CoreML7", "main"
# What coremltools notes of itself, and in what form.
_WORDS = re.compile(r"[\w.+:=-]{1,60}", re.ASCII)
_TOOLS = {f"com.github.apple.coremltools.{k}" for k in ("version", "source", "source_dialect")}
_BUILD = ["coremltools-component-torch", "coremltools-source-dialect", "coremltools-version"]


def standard(source: Source, precision: str) -> dict[str, str]:
    """The format's own metadata, which Xcode and apps show."""
    said, spec = source.metadata, source.model.spec
    origin = f" (from {said['edgeres.origin']})" if "edgeres.origin" in said else ""
    return {
        "shortDescription": f"{spec.name}, {precision}: {spec.preprocess.size_px} px images, "
        f"{spec.classes} classes{origin}",
        "license": said.get("edgeres.licence", ""), "versionString": said.get(VERSION_NOTE, ""),
    }  # fmt: skip


def package(path: Path) -> Iterator[str]:
    """The folder: the model, its weights, and a manifest that names these two."""
    yield from folder_left_over(path, (packages.MANIFEST, packages.MODEL, packages.WEIGHTS))
    if (path / packages.MANIFEST).read_bytes() != packages.manifest().encode():
        yield "Manifest.json isn't that of a package with one model and its weights"


def beyond(path: Path, spec: Model_pb2.Model) -> Iterator[str]:
    """Bytes of the model's file that no part of the model accounts for."""
    known = type(spec)()
    known.CopyFrom(spec)
    known.DiscardUnknownFields()
    if known.SerializeToString(deterministic=True) != (path / packages.MODEL).read_bytes():
        yield f"{packages.MODEL.name} holds fields of no known meaning, or isn't in export's order"


def model(
    spec: Model_pb2.Model, source: Source, precision: str, proto: ModuleType
) -> Iterator[str]:
    """Everything around the one block of operations."""
    network = source.model.spec
    px = network.preprocess.size_px
    read = "FLOAT32" if precision == "int8" else "FLOAT16"
    ends = {"input": ("input", (1, 3, px, px), read),
            "output": ("logits", (1, network.classes), "FLOAT16")}  # fmt: skip
    if spec.specificationVersion != _VERSION:
        yield f"its specification is version {spec.specificationVersion}, not {_VERSION}"
    yield from fields_left_over(spec, ("specificationVersion", "description", "mlProgram"))
    yield from fields_left_over(spec.description, ("input", "output", "metadata"))
    for end, (name, shape, dtype) in ends.items():
        expected = proto.Model_pb2.FeatureDescription(name=name)
        array = expected.type.multiArrayType
        array.shape.extend(shape)
        array.dataType = array.ArrayDataType.Value(dtype)
        if list(getattr(spec.description, end)) != [expected]:
            yield f"its description has another {end} than the network"
    yield from _told(spec.description.metadata, source, precision)
    yield from _program(spec.mlProgram, ends["input"], ends["output"][0], proto.MIL_pb2)


def _told(metadata: Model_pb2.Metadata, source: Source, precision: str) -> Iterator[str]:
    """Notes: the format's own, ours, coremltools'."""
    expected = standard(source, precision)
    yield from fields_left_over(metadata, (*expected, "userDefined"))
    for key, text in expected.items():
        found = getattr(metadata, key)
        version = key == "versionString" and plain(found)  # another edgeres may have written it
        if found != text and not version:
            yield f"the standard metadata ({key}) isn't the network's"
    notes = dict(metadata.userDefined)
    for key in sorted(_TOOLS & notes.keys()):
        if not _WORDS.fullmatch(notes.pop(key)):
            yield f"coremltools' note {key} is another"
    yield from notes_left_over(notes, source.metadata)


def _program(program: MIL_pb2.Program, image: tuple[str, tuple[int, ...], str], answer: str,
             mil: ModuleType) -> Iterator[str]:  # fmt: skip
    """One function with one block, which reads the image and gives the answer."""
    yield from fields_left_over(program, ("version", "functions", "attributes"))
    if program.version != 1 or list(program.functions) != [_MAIN]:
        yield f"its program's functions are {_listed(program.functions)}, not {_MAIN}"
    for function in program.functions.values():
        yield from fields_left_over(function, ("inputs", "opset", "block_specializations"))
        name, shape, dtype = image
        expected = mil.NamedValueType(name=name)
        tensor = expected.type.tensorType
        tensor.dataType, tensor.rank = mil.DataType.Value(dtype), len(shape)
        for size in shape:
            tensor.dimensions.add().constant.size = size
        if list(function.inputs) != [expected]:
            yield "its function has another input than the network"
        if [function.opset, *function.block_specializations] != [_OPSET, _OPSET]:
            yield f"its function has blocks for {_listed(function.block_specializations)}"
        for block in function.block_specializations.values():
            yield from fields_left_over(block, ("outputs", "operations"))
            if list(block.outputs) != [answer]:
                yield f"its outputs are {_listed(block.outputs)}, not {answer}"
    yield from _build(program.attributes, mil)


def _build(attributes: Mapping[str, MIL_pb2.Value], mil: ModuleType) -> Iterator[str]:
    """With what it was made; a palettized program doesn't say."""
    if list(attributes) not in ([], ["buildInfo"]):
        yield f"its program has the attributes {_listed(attributes)}"
    for value in attributes.values():
        found = [(_text(pair.key), _text(pair.value))
                 for pair in value.immediateValue.dictionary.values]  # fmt: skip
        again = mil.Value()
        for end in (again.type.dictionaryType.keyType, again.type.dictionaryType.valueType):
            end.tensorType.dataType = mil.DataType.STRING
        for pair in found:
            entry = again.immediateValue.dictionary.values.add()
            for side, text in zip((entry.key, entry.value), pair, strict=True):
                side.type.tensorType.dataType = mil.DataType.STRING
                side.immediateValue.tensor.strings.values.append(text)
        fine = all(_WORDS.fullmatch(text) for _, text in found)
        if value != again or not fine or sorted(key for key, _ in found) != _BUILD:
            yield "its build information isn't coremltools'"


def _text(value: MIL_pb2.Value) -> str:
    return "".join(value.immediateValue.tensor.strings.values)


def _listed(names: Iterable[str]) -> str:
    return packages.printable(", ".join(sorted(names))) or "none"

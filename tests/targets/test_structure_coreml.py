"""A Core ML package that isn't exactly the network is found, by name."""

from __future__ import annotations

import os
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeres.errors import BadInput
from edgeres.models.resnet import fold_batchnorm
from edgeres.targets import Source, coreml, scales_for
from edgeres.targets import _mil_package as packages
from edgeres.verification.structure import mismatches

NOTES = {"edgeres.version": "0.1", "edgeres.labels": "a\nb", "edgeres.licence": "MIT"}
_FLOAT16, _FLOAT32, _STRING = 10, 11, 2  # MIL's types


@pytest.fixture(scope="module")
def exported(quantized: tuple, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple]:
    model, folded, table = quantized
    found = {}
    for precision in coreml.PRECISIONS:
        integer = precision == "int8"
        scales = scales_for("coreml-int8", table) if integer else None
        source = Source(folded if integer else fold_batchnorm(model), scales, NOTES)
        path = tmp_path_factory.mktemp(precision) / "network.mlpackage"
        coreml.export(source, precision, path)
        found[precision] = (path, source)
    return found


def problems(path: Path, source: Source, precision: str) -> tuple[str, ...]:
    stored = coreml.structure(path, source, precision)
    return mismatches(stored, source.model, source.scales, precision)


@pytest.fixture
def changed(exported: dict, tmp_path: Path) -> Callable[..., str]:
    """Apply a change to a copy of a package and say what is found then."""

    def change(precision: str, edit: Callable[[Any], None]) -> str:
        whole, source = exported[precision]
        path = tmp_path / "network.mlpackage"
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(whole, path)
        spec = packages.specification(path, coreml._coremltools())
        edit(spec)
        (path / packages.MODEL).write_bytes(spec.SerializeToString(deterministic=True))
        try:
            return "\n".join(problems(path, source, precision))
        except BadInput as error:
            return str(error)

    return change


def block(spec: Any) -> Any:
    (function,) = spec.mlProgram.functions.values()
    return function.block_specializations["CoreML7"]


def find(spec: Any, kind: str, nth: int = 0) -> Any:
    return [op for op in block(spec).operations if op.type == kind][nth]


def constant(spec: Any, op: Any, argument: str) -> Any:
    """The stored value of an operation's argument."""
    name = op.inputs[argument].arguments[0].name
    (found,) = (o for o in block(spec).operations if o.outputs[0].name == name)
    return found.attributes["val"].immediateValue.tensor


def insert(spec: Any, kind: str, read: str, name: str, **more: str) -> None:
    """An operation behind the one that makes `read`, whose output is of the same type."""
    operations = block(spec).operations
    maker = next(o for o in operations if o.outputs[0].name == read)
    copy = type(maker)()
    copy.CopyFrom(find(spec, "relu"))
    copy.type = kind
    copy.inputs["x"].arguments[0].name = read
    for key, value in more.items():
        copy.inputs[key].arguments.add().name = value
    copy.outputs[0].CopyFrom(maker.outputs[0])
    copy.outputs[0].name = copy.attributes["name"].immediateValue.tensor.strings.values[0] = name
    at = [*operations].index(maker) + 1
    rest = [*operations][at:]
    del operations[at:]
    operations.append(copy)
    operations.extend(rest)


@pytest.mark.parametrize("precision", coreml.PRECISIONS)
def test_untouched(exported: dict, precision: str) -> None:
    path, source = exported[precision]
    stored = coreml.structure(path, source, precision)
    assert len(stored.steps) > 20
    assert not problems(path, source, precision)


def overrules(spec: Any) -> None:
    """The answer also depends on another feature."""
    operations = block(spec).operations
    last = operations[-1]
    insert(spec, "add", last.outputs[0].name, "more", y=last.outputs[0].name)
    block(spec).outputs[0] = "more"
    rename(spec, last.outputs[0].name, "before")
    rename(spec, "more", "logits")


def rename(spec: Any, old: str, new: str) -> None:
    block(spec).outputs[:] = [new if n == old else n for n in block(spec).outputs]
    for op in block(spec).operations:
        ends = [*op.outputs, *(a for argument in op.inputs.values() for a in argument.arguments)]
        for end in ends:
            if end.name == old:
                end.name = new
        if op.attributes["name"].immediateValue.tensor.strings.values[0] == old:
            op.attributes["name"].immediateValue.tensor.strings.values[0] = new


def float_island(spec: Any) -> None:
    """To float32 and back, in front of the second convolution."""
    conv = find(spec, "conv", 1)
    read = conv.inputs["x"].arguments[0].name
    for kind in ("fp16", "fp32"):
        text = type(conv)()
        text.CopyFrom(next(o for o in block(spec).operations if o.type == "const" and
                           o.outputs[0].type.tensorType.dataType == _STRING))  # fmt: skip
        text.outputs[0].name = f"to_{kind}"
        text.attributes["name"].immediateValue.tensor.strings.values[0] = f"to_{kind}"
        text.attributes["val"].immediateValue.tensor.strings.values[0] = kind
        block(spec).operations.insert(0, text)
    insert(spec, "cast", read, "wide", dtype="to_fp32")
    find_named(spec, "wide").outputs[0].type.tensorType.dataType = _FLOAT32
    insert(spec, "cast", "wide", "narrow", dtype="to_fp16")
    find_named(spec, "narrow").outputs[0].type.tensorType.dataType = _FLOAT16
    conv.inputs["x"].arguments[0].name = "narrow"


def find_named(spec: Any, name: str) -> Any:
    (found,) = (op for op in block(spec).operations if op.outputs[0].name == name)
    return found


def unused(spec: Any) -> None:
    insert(spec, "relu", find(spec, "relu").outputs[0].name, "spare")


def no_relu(spec: Any) -> None:
    op = find(spec, "relu")
    for other in block(spec).operations:
        for argument in other.inputs.values():
            for end in argument.arguments:
                if end.name == op.outputs[0].name:
                    end.name = op.inputs["x"].arguments[0].name
    block(spec).operations.remove(op)


def more_relu(spec: Any) -> None:
    first = find(spec, "reduce_mean").outputs[0].name
    insert(spec, "relu", first, "more")
    reader = next(o for o in block(spec).operations if o.type in ("reshape", "quantize")
                  and first in (o.inputs[k].arguments[0].name for k in o.inputs))  # fmt: skip
    key = "input" if reader.type == "quantize" else "x"
    reader.inputs[key].arguments[0].name = "more"


def sets(kind: str, argument: str, values: Any, nth: int = 0) -> Callable[[Any], None]:
    def edit(spec: Any) -> None:
        tensor = constant(spec, find(spec, kind, nth), argument)
        stored = getattr(tensor, tensor.WhichOneof("value"))
        if isinstance(values, bytes):
            stored.values = values
        else:
            stored.values[:] = values

    return edit


def described(path: str, value: Any) -> Callable[[Any], None]:
    def edit(spec: Any) -> None:
        *parents, last = path.split(".")
        at = spec.description
        for name in parents:
            at = at[int(name)] if name.isdigit() else getattr(at, name)
        setattr(at, last, value)

    return edit


def second_function(spec: Any) -> None:
    functions = spec.mlProgram.functions
    functions["other"].CopyFrom(functions["main"])


def second_block(spec: Any) -> None:
    (function,) = spec.mlProgram.functions.values()
    function.block_specializations["CoreML8"].CopyFrom(block(spec))


def second_output(spec: Any) -> None:
    block(spec).outputs.append(find(spec, "relu").outputs[0].name)
    spec.description.output.add().CopyFrom(spec.description.output[0])


def image_input(spec: Any) -> None:
    kind = spec.description.input[0].type
    kind.imageType.width = kind.imageType.height = 16


def class_names(spec: Any) -> None:
    spec.description.predictedFeatureName = "logits"


def note(spec: Any) -> None:
    spec.description.metadata.userDefined["edgeres.labels"] = "b\na"


def foreign_note(spec: Any) -> None:
    spec.description.metadata.userDefined["com.apple.coreml.model.preview.type"] = "imageClassifier"


def built(spec: Any) -> None:
    pairs = spec.mlProgram.attributes["buildInfo"].immediateValue.dictionary.values
    pairs[0].value.immediateValue.tensor.strings.values[0] = "run\nthis"


def other_form(spec: Any) -> None:
    spec.mlProgram.docString = "more"


@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize(("edit", "named"), [
    (unused, "nothing reads"), (overrules, "the network has no add"),
    (float_island, "of type float32"), (more_relu, "has no ReLU|isn't quantized"),
    (sets("conv", "strides", [1, 2]), "stride|types"), (sets("conv", "pad", [1, 1, 0, 2]), "pad"),
    (sets("conv", "pad_type", ["same_lower"]), "padding"), (sets("conv", "dilations", [2, 2]), "."),
    (sets("reduce_mean", "axes", [-3, -1]), "."), (sets("conv", "groups", [16], 1), "."),
    (described("metadata.shortDescription", "other"), "shortDescription"),
    (described("metadata.author", "me"), "author"), (described("metadata.license", "GPL"), "lice"),
    (described("input.0.shortDescription", "x"), "input"),
    (described("output.0.type.isOptional", True), "output"),
    (described("input.0.name", "image"), "input"), (class_names, "predictedFeatureName"),
    (second_function, "functions"), (second_block, "CoreML8"), (second_output, "outputs"),
    (image_input, "input"), (note, "labels"), (foreign_note, "preview"), (built, "build"),
    (other_form, "docString|gram"),
    (lambda spec: setattr(spec, "isUpdatable", True), "isUpdatable"),
    (lambda spec: setattr(spec, "specificationVersion", 9), "version 9"),
])  # fmt: skip
def test_a_change_is_named(changed: Callable, precision: str, edit: Callable, named: str) -> None:
    said = changed(precision, edit)
    assert re.search(named, said), said


def test_a_relu_less(changed: Callable) -> None:
    assert "has no ReLU" in changed("fp16", no_relu)


def test_other_scales(changed: Callable) -> None:
    for edit, named in (
        (sets("quantize", "scale", b"\x00\x3c", 2), "scale"),
        (sets("dequantize", "scale", b"\x00\x3c", 2), "another scale"),
        (sets("quantize", "zero_point", b"\x00", 1), "zero point"),
    ):
        assert named in changed("int8", edit)


def blob(path: Path, spec: Any, name: str) -> tuple[int, int]:
    """Where the values of a constant lie in the weights' file, and how many bytes they have."""
    offset = find_named(spec, name).attributes["val"].blobFileValue.offset
    data = (path / packages.WEIGHTS).read_bytes()
    size = int.from_bytes(data[offset + 8 : offset + 16], "little")
    return offset + 64, size


@pytest.mark.parametrize("precision", coreml.PRECISIONS)
@pytest.mark.parametrize("change", ["step", "much"])
def test_one_bias(exported: dict, tmp_path: Path, precision: str, change: str) -> None:
    whole, source = exported[precision]
    path = tmp_path / "network.mlpackage"
    shutil.copytree(whole, path)
    spec = packages.specification(path, coreml._coremltools())
    place, _ = blob(path, spec, find(spec, "conv", 1).inputs["bias"].arguments[0].name)
    data = bytearray((path / packages.WEIGHTS).read_bytes())
    bias = np.frombuffer(data, np.float16, 1, place + 10)  # channel 5
    bias[0] = np.nextafter(bias[0], np.float16(9)) if change == "step" else 2.0**14
    (path / packages.WEIGHTS).write_bytes(data)
    assert "the bias of channel 5 is" in "\n".join(problems(path, source, precision))


def add_file(path: Path) -> None:
    (path / "Data/com.apple.CoreML/weights/more.bin").write_bytes(b"more")


def add_folder(path: Path) -> None:
    (path / "Data/other").mkdir()


def add_link(path: Path) -> None:
    (path / "Data/other").symlink_to("/etc/hostname")


def weights_by_link(path: Path) -> None:
    weights = path / packages.WEIGHTS
    weights.rename(path.parent / "elsewhere")
    weights.symlink_to(path.parent / "elsewhere")


def folder_by_link(path: Path) -> None:
    (path / "Data").rename(path.parent / "elsewhere")
    (path / "Data").symlink_to(path.parent / "elsewhere", target_is_directory=True)


def trailing(file: Path, data: bytes) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        (path / file).write_bytes((path / file).read_bytes() + data)

    return edit


@pytest.mark.parametrize(("edit", "named"), [
    (add_file, "more.bin"), (add_folder, "Data/other"), (add_link, "Data/other"),
    (weights_by_link, "weight.bin"), (folder_by_link, "'Data' doesn't belong"),
    (trailing(packages.MODEL, b"\xfa\x7f\x03abc"), "model.mlmodel"),
    (trailing(packages.WEIGHTS, b"more"), "weights' file"),
    (trailing(packages.WEIGHTS, bytes(64)), "weights' file"),
    (trailing(packages.MANIFEST, b"\n"), "Manifest.json"),
])  # fmt: skip
def test_another_folder(exported: dict, tmp_path: Path, edit: Callable, named: str) -> None:
    whole, source = exported["int8"]
    path = tmp_path / "network.mlpackage"
    shutil.copytree(whole, path)
    edit(path)
    assert named in "\n".join(problems(path, source, "int8"))


def meaning(path: Path) -> Any:
    """A model without the versions of what wrote it, which may be any."""
    spec = packages.specification(path, coreml._coremltools())
    told = spec.description.metadata
    told.versionString = ""
    for key in [*told.userDefined]:
        if "version" in key or "coremltools" in key:
            del told.userDefined[key]
    spec.mlProgram.attributes.clear()
    return spec


@pytest.mark.parametrize("precision", coreml.PRECISIONS)
def test_every_flipped_bit_is_found(exported: dict, tmp_path: Path, precision: str) -> None:
    whole, source = exported[precision]
    path = tmp_path / "network.mlpackage"
    shutil.copytree(whole, path)
    files = [packages.MANIFEST, packages.MODEL, packages.WEIGHTS]
    places = [(f, at) for f in files for at in range((path / f).stat().st_size)]
    chance = random.Random(precision)
    missed = []
    for file, at in chance.sample(places, int(os.environ.get("EDGERES_FLIPS", "25"))):
        right = (path / file).read_bytes()
        wrong = bytearray(right)
        wrong[at] ^= 1 << chance.randrange(8)
        (path / file).write_bytes(wrong)
        try:
            found = problems(path, source, precision)
            if not found and (file != packages.MODEL or meaning(path) != meaning(whole)):
                missed.append((str(file), at))
        except BadInput:
            pass
        (path / file).write_bytes(right)
    assert not missed

"""A file is exactly the known graph, or what isn't is named."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from conftest import images

from edgeres import targets
from edgeres.errors import BadInput
from edgeres.models.resnet import fold_batchnorm
from edgeres.network import tflite_file as tflite
from edgeres.targets import _faults
from edgeres.training.inference import prepared
from edgeres.verification.structure import mismatches

METADATA = {
    "edgeres.version": "0.1", "edgeres.origin": "test 1", "edgeres.licence": "Apache-2.0",
    "edgeres.labels": "\n".join(f"class {i}" for i in range(10)),
}  # fmt: skip
NAMES = [n for n in targets.names() if n.split("-")[0] in ("tflite", "onnx", "qoperator",
                                                           "tensorrt", "triton")]  # fmt: skip
Written = tuple[Path, targets.Source, str]


@pytest.fixture(scope="module")
def files(
    quantized: tuple, four_bits: tuple, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Written]:
    """A target's name -> its file, what it was written from, and its precision; made once."""
    made: dict[str, Written] = {}

    def file(name: str) -> Written:
        if name not in made:
            target, precision = targets.load(name)
            model, folded, scales = four_bits if precision == "int4" else quantized
            table = targets.scales_for(name, scales) if targets.is_integer(precision) else None
            source = targets.Source(folded if table else fold_batchnorm(model), table, METADATA)
            path = tmp_path_factory.mktemp(name) / f"m{target.SUFFIX}"
            target.export(source, precision, path)
            made[name] = path, source, precision
        return made[name]

    return file


def wrong(path: Path, source: targets.Source, precision: str) -> list[str]:
    _, target = targets.of_file(path)
    stored = target.structure(path, source, precision)
    return list(mismatches(stored, source.model, source.scales, precision))


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_its_network_and_no_other(
    name: str, files: Callable[[str], Written], tmp_path: Path
) -> None:
    path, source, precision = files(name)
    assert wrong(path, source, precision) == []
    weight = source.model.state_dict()["layer2.0.conv2.bias"]
    before = weight.clone()
    weight[3] += 1.0
    try:
        found = wrong(path, source, precision)
    finally:
        weight.copy_(before)
    assert any("layer2.0.conv2: the bias of channel 3" in sentence for sentence in found)


@pytest.mark.parametrize("name", ["tflite-int8", "tflite-fp32", "onnx-int8", "onnx-fp16",
                                  "qoperator-int8", "tensorrt-int8", "triton-int8"])  # fmt: skip
@pytest.mark.parametrize("fault", _faults.SILENT)
def test_faults_that_no_answer_shows_are_named(
    name: str, fault: str, files: Callable[[str], Written], tmp_path: Path
) -> None:
    path, source, precision = files(name)
    changed = tmp_path / path.name
    if path.is_dir():
        import shutil

        shutil.copytree(path, changed)
    else:
        changed.write_bytes(path.read_bytes())
    if not _faults.plant(fault, changed):
        pytest.skip("this format has no place for it")
    assert wrong(changed, source, precision)


def of_tflite(change: Callable[[Any], None]) -> Callable[[bytes], bytes]:
    def changed(data: bytes) -> bytes:
        model = tflite.load(data, Path("m"))
        behind = data[len(tflite.pack(model)) :]
        change(model)
        return tflite.pack(model) + behind

    return changed


def of_onnx(change: Callable[[Any], None]) -> Callable[[bytes], bytes]:
    def changed(data: bytes) -> bytes:
        model = onnx.ModelProto.FromString(data)
        change(model)
        return model.SerializeToString(deterministic=True)

    return changed


def first(model: Any, kind: str) -> Any:
    return next(op for op in model.subgraphs[0].operators if tflite.kind(model, op) == kind)


def node(model: Any, kind: str, at: int = 0) -> Any:
    return [n for n in model.graph.node if n.op_type == kind][at]


def bias_by_one(model: Any) -> None:
    buffer = model.buffers[model.subgraphs[0].tensors[first(model, "CONV_2D").inputs[2]].buffer]
    codes = np.frombuffer(bytes(buffer.data), np.int32).copy()
    codes[5] += 1
    buffer.data = np.frombuffer(codes.tobytes(), np.uint8)


def constant(model: Any, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    stored = next(i for i in model.graph.initializer if i.name == name)
    values = change(onnx.numpy_helper.to_array(stored).copy())
    stored.CopyFrom(onnx.numpy_helper.from_array(values, name))


def attribute(model: Any, kind: str, name: str, value: Any) -> None:
    op = node(model, kind)
    kept = [a for a in op.attribute if a.name != name]
    del op.attribute[:]
    op.attribute.extend([*kept, onnx.helper.make_attribute(name, value)])


def option(kind: str, name: str, value: Any) -> Callable[[bytes], bytes]:
    return of_tflite(lambda m: setattr(first(m, kind).builtinOptions, name, value))


def signature_twice(model: Any) -> None:
    model.signatureDefs.append(copy.deepcopy(model.signatureDefs[0]))


def unused(model: Any) -> None:
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type = b"x", np.array([1], np.int32), 9
    model.subgraphs[0].tensors.append(tensor)


TFLITE = {
    "one step of one bias": (of_tflite(bias_by_one), "conv1: the bias of channel 5 is"),
    "ReLU6 for ReLU": (option("CONV_2D", "fusedActivationFunction", 3),
                       "its ReLU ends elsewhere than the network's"),
    "a ReLU from -1 to 1": (option("CONV_2D", "fusedActivationFunction", 2),
                            "activation is of kind 2"),
    "another stride": (option("CONV_2D", "strideW", 2), "its stride is"),
    "another padding": (option("CONV_2D", "padding", 1), "its padding is"),
    "another dilation": (option("CONV_2D", "dilationHFactor", 2), "its dilation is"),
    "the mean of one axis": (
        of_tflite(lambda m: setattr(
            m.buffers[m.subgraphs[0].tensors[first(m, "MEAN").inputs[1]].buffer], "data",
            np.frombuffer(np.array([1, 1], np.int32).tobytes(), np.uint8))),
        "averages over the axes [1, 1]"),
    "two signatures": (of_tflite(signature_twice), "it has 2 signatures"),
    "a tensor that nothing uses": (of_tflite(unused), "is not used"),
    "bytes at the end": (lambda data: data + b"more", "bytes between its parts"),
    "an operator's own options": (
        of_tflite(lambda m: setattr(m.subgraphs[0].operators[0], "customOptions",
                                    np.array([1], np.uint8))), "customOptions isn't expected"),
    "a variable": (of_tflite(lambda m: setattr(m.subgraphs[0].tensors[0], "isVariable", True)),
                   "has isVariable"),
}  # fmt: skip


def another_axis(model: Any) -> None:
    weight = model.subgraphs[0].tensors[first(model, "CONV_2D").inputs[1]]
    weight.quantization.quantizedDimension = 3


def other_options(model: Any) -> None:
    add = first(model, "ADD")
    add.builtinOptions, add.builtinOptionsType = (
        schema.MulOptionsT(),
        schema.BuiltinOptions.MulOptions,
    )


def unused_code(model: Any) -> None:
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.SOFTMAX
    model.operatorCodes.append(code)


TFLITE |= {
    "scales along another axis": (of_tflite(another_axis), "are along axis 3"),
    "options of another operator": (of_tflite(other_options), "its options are MulOptionsT"),
    "an operator that nothing uses": (of_tflite(unused_code), "that it lists is not used"),
    "no signature": (of_tflite(lambda m: setattr(m, "signatureDefs", [])), "it has 0 signatures"),
    "another rank kept": (option("MEAN", "keepDims", True), "keeps other axes than it declares"),
}
FLOAT = {
    "a ReLU taken away": (option("CONV_2D", "fusedActivationFunction", 0), "has no ReLU"),
    "a ReLU more": (option("FULLY_CONNECTED", "fusedActivationFunction", 1),
                    "has a ReLU that the network hasn't"),
}  # fmt: skip


def unread_weight(model: Any) -> None:
    scale = onnx.numpy_helper.from_array(np.ones(1, np.float32), "own_scale")
    codes = onnx.numpy_helper.from_array(np.zeros(9, np.int8), "own_codes")
    model.graph.initializer.extend([scale, codes])
    node = onnx.helper.make_node("DequantizeLinear", ["own_codes", "own_scale", "val_2"], ["own"])
    model.graph.node.append(node)


def codes_added(model: Any) -> None:
    """An Add of the codes themselves, which are no numbers."""
    add = node(model, "Add")
    makers = {n.output[0]: n for n in model.graph.node}
    add.input[0] = makers[add.input[0]].input[0]


ONNX = {
    "one step of one bias": (
        of_onnx(lambda m: constant(m, "conv1.bias", lambda b: np.nextafter(b, b + 1))),
        "conv1: the bias of channel 0 is"),
    "another padding": (of_onnx(lambda m: attribute(m, "Conv", "pads", [2, 2, 0, 0])),
                        "its padding is"),
    "a kernel padded by itself": (of_onnx(lambda m: attribute(m, "Conv", "auto_pad", "SAME_LOWER")),
                                  "its auto_pad is b'SAME_LOWER'"),
    "another number of groups": (of_onnx(lambda m: attribute(m, "Conv", "group", 3)),
                                 "its groups is 3"),
    "a factor": (of_onnx(lambda m: attribute(m, "Gemm", "alpha", 2.0)), "its alpha is 2.0"),
    "a graph inside": (
        of_onnx(lambda m: attribute(m, "Conv", "body", onnx.helper.make_graph([], "g", [], []))),
        "the attribute body isn't expected"),
    "an operator of somebody's own": (of_onnx(lambda m: setattr(node(m, "Conv"), "domain", "own")),
                                      "is of the domain 'own'"),
    "a constant that nothing uses": (
        of_onnx(lambda m: m.graph.initializer.append(
            onnx.numpy_helper.from_array(np.zeros(3, np.float32), "more"))), "is not used"),
    "a second output": (of_onnx(lambda m: m.graph.output.append(
        onnx.helper.make_tensor_value_info(node(m, "Conv").output[0], 1, ["batch", 16, 16, 16]))),
        "it has 2 outputs"),
    "another operator set": (of_onnx(lambda m: setattr(m.opset_import[0], "version", 18)),
                             "its operator sets are"),
    "a note of Windows' tools": (
        of_onnx(lambda m: m.metadata_props.add(key="Image.BitmapPixelFormat", value="Bgr8")),
        "the note 'Image.BitmapPixelFormat' isn't one of the network's"),
    "fields that ONNX doesn't define": (lambda data: data + b"\xfa\x3e\x02hi",
                                        "ONNX doesn't define"),
    "a weight that nothing reads": (of_onnx(unread_weight), "nothing reads the weight 'own'"),
    "codes taken for numbers": (of_onnx(codes_added), "computes real numbers from codes"),
    "an image type": (of_onnx(lambda m: setattr(m.graph.input[0].type, "denotation", "IMAGE")),
                      "says more than its type and shape"),
    "an older format": (of_onnx(lambda m: setattr(m, "ir_version", 8)), "format's version is 8"),
    "two numbers in one attribute": (
        of_onnx(lambda m: setattr(node(m, "Conv").attribute[0], "f", 1.0)), "holds more than"),
    "a description": (of_onnx(lambda m: setattr(m, "doc_string", "BGR!")),
                      "the model has doc_string"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [pytest.param(name, change, sentence, id=f"{name}: {what}")
     for name, cases in (("tflite-int8", TFLITE), ("tflite-fp32", FLOAT), ("onnx-int8", ONNX))
     for what, (change, sentence) in cases.items()],
)  # fmt: skip
def test_each_change_is_named(
    name: str, change: Callable[[bytes], bytes], sentence: str,
    files: Callable[[str], Written], tmp_path: Path,
) -> None:  # fmt: skip
    path, source, precision = files(name)
    changed = tmp_path / path.name
    changed.write_bytes(change(path.read_bytes()))
    found = wrong(changed, source, precision)
    assert any(sentence in each for each in found), found[:5]


@pytest.mark.parametrize("name", ["tflite-int8", "onnx-int8", "qoperator-int8"])
def test_a_bit_flipped_anywhere_is_named_or_changes_no_answer(
    name: str, files: Callable[[str], Written], tmp_path: Path
) -> None:
    """Names of tensors and nodes are free; everything else is accounted for."""
    path, source, precision = files(name)
    data, changed = path.read_bytes(), tmp_path / path.name
    _, target = targets.of_file(path)
    x = prepared(images(4, seed=8), source.model.spec.preprocess).numpy()
    given = targets.encode(x, target.read(path).input)
    right = target.session(path).run(given)  # type: ignore[union-attr]
    silent = 0
    for flipped in _flips(data, 120):
        changed.write_bytes(flipped)
        try:
            if wrong(changed, source, precision):
                continue
        except BadInput:
            continue
        silent += 1
        session = target.session(changed)
        assert session is not None and np.array_equal(session.run(given), right)
    assert silent < 20, "only names"


def _flips(data: bytes, count: int) -> Iterator[bytes]:
    rng = random.Random(5)
    for _ in range(count):
        flipped = bytearray(data)
        flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        yield bytes(flipped)

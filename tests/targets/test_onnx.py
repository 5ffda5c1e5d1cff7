"""ONNX files: what is read from them, ours and foreign; every tensor they compute."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from conftest import images, network
from onnx import TensorProto, helper, numpy_helper

from edgeres import targets
from edgeres.compression import ptq
from edgeres.errors import BadInput
from edgeres.models.modules import complexity
from edgeres.models.resnet import ResNet, fold_batchnorm
from edgeres.targets import onnx as target
from edgeres.targets._graph import FileGraph
from edgeres.training.inference import prepared
from edgeres.types import ScaleTable

METADATA = {"edgeres.labels": "cat\ndog", "edgeres.origin": "test"}
Quantized = tuple[ResNet, ResNet, ScaleTable]


def written(quantized: Quantized, precision: str, path: Path) -> FileGraph:
    model, folded, scales = quantized
    integer = precision == "int8"
    source = targets.Source(folded if integer else fold_batchnorm(model),
                            scales if integer else None, METADATA)  # fmt: skip
    target.export(source, precision, path)
    return target.read(path)


@pytest.fixture(scope="module")
def stem() -> Quantized:
    """A network with the ImageNet stem: a strided 7x7 convolution and a max pool."""
    model = network("resnet18-w0.125", px=72)
    return model, *ptq.quantize(model, images(16, 72))


@pytest.mark.parametrize("precision", [p for p in target.PRECISIONS if p != "int4"])
def test_what_a_file_says_of_itself(precision: str, quantized: Quantized, tmp_path: Path) -> None:
    model, folded, _ = quantized
    read = written(quantized, precision, tmp_path / "m.onnx")
    assert read.metadata == METADATA
    assert read.requires == "onnxruntime 1.15"
    assert read.versions == {"ai.onnx": 19}
    shapes = {op.role: op.shape for op in read.ops}
    assert shapes["conv"] == (1, 64, 4, 4)
    assert shapes["pool"] == (1, 64, 1, 1)
    assert shapes["linear"] == (1, 10)
    assert sum(op.macs for op in read.ops) == complexity(model.spec)[1]
    parameters = sum(p.numel() for p in folded.parameters())
    width = {"fp32": 4, "fp16": 2, "int8": 1}[precision]
    stored = sum(op.constant_bytes for op in read.ops)
    assert parameters * width <= stored <= parameters * width * 1.2
    assert read.count("transpose") == 0
    assert bool(read.float_operators()) == (precision != "int8")


@pytest.mark.parametrize("which", ["quantized", "stem"])
def test_the_trace_of_an_int8_file_is_its_session(
    which: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    network = request.getfixturevalue(which)
    path = tmp_path / "m.onnx"
    read = written(network, "int8", path)
    px = network[1].spec.preprocess.size_px
    x = prepared(images(5, px, seed=8), network[1].spec.preprocess).numpy()
    codes = targets.encode(x, read.input)
    session, tracer = target.session(path), target.tracer(path)
    assert session and tracer
    trace = tracer.run(codes)
    assert np.array_equal(trace["logits"], session.run(codes))
    for op in read.ops:
        assert trace[op.output].shape == (5, *op.shape[1:]), op
        assert trace[op.output].dtype == np.uint8
    assert any(op.kind == "MaxPool" for op in read.ops) == (which == "stem")
    with torch.no_grad():  # the first layer again, by hand: codes in PyTorch's order
        first = read.ops[0]
        q, w = read.quantization[first.output], first.weight_quantization
        assert w is not None and first.weight is not None and read.input.quantization is not None
        scale = torch.tensor(w.scale).view(-1, 1, 1, 1)
        conv = network[1].conv1
        real = torch.from_numpy(targets.decode(codes, read.input).copy())
        y = torch.conv2d(real, torch.tensor(first.weight) * scale, conv.bias,
                         conv.stride, conv.padding)  # fmt: skip
        expected = (y / q.scale[0]).round().add(q.zero_point[0]).clamp(0, 255)
        difference = (expected - torch.from_numpy(trace[first.output]).float()).abs().max()
        assert difference <= 1


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_trace_of_a_float_file(precision: str, quantized: Quantized, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    read = written(quantized, precision, path)
    x = prepared(images(3), quantized[1].spec.preprocess).numpy()
    session, tracer = target.session(path), target.tracer(path)
    assert session and tracer
    trace = tracer.run(targets.encode(x, read.input))
    assert {op.output for op in read.ops} <= trace.keys()
    assert np.allclose(trace["logits"], session.run(x), atol=1e-5 if precision == "fp32" else 2e-2)


def test_fp16_is_stored_in_half_with_float_ends(quantized: Quantized, tmp_path: Path) -> None:
    for precision in ("fp32", "fp16"):
        written(quantized, precision, tmp_path / f"{precision}.onnx")
    model = onnx.load(tmp_path / "fp16.onnx")
    assert TensorProto.FLOAT not in {i.data_type for i in model.graph.initializer}
    assert target.read(tmp_path / "fp16.onnx").input.dtype == "float32"
    sizes = [(tmp_path / f"{p}.onnx").stat().st_size for p in ("fp16", "fp32")]
    assert sizes[0] < 0.6 * sizes[1]


@pytest.mark.parametrize("which", ["quantized", "stem"])
def test_int8_answers_do_not_depend_on_the_optimizer(
    which: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Without fusion onnxruntime computes the same file in float between Q and DQ.

    Rounding of ties differs by one code in a layer; the layers after it can make three of it.
    """
    network = request.getfixturevalue(which)
    path = tmp_path / "m.onnx"
    read = written(network, "int8", path)
    px = network[1].spec.preprocess.size_px
    x = prepared(images(64, px, seed=9), network[1].spec.preprocess).numpy()
    codes = targets.encode(x, read.input)
    plain = target.tracer_of(path, onnx.load(path)).run(codes)
    tracer = target.tracer(path)
    assert tracer
    fused = tracer.run(codes)

    def difference(name: str) -> np.ndarray:
        return np.abs(plain[name].astype(int) - fused[name])

    assert difference(read.ops[0].output).max() <= 1
    assert difference("logits").max() <= 3
    assert difference("logits").mean() < 1


def saved(path: Path, nodes: list, inputs: dict, outputs: dict, constants: dict | None = None,
          **more: object) -> Path:  # fmt: skip
    def values(named: dict) -> list:
        return [helper.make_tensor_value_info(n, kind, shape) for n, (kind, shape) in named.items()]

    stored = [numpy_helper.from_array(np.asarray(v), n) for n, v in (constants or {}).items()]
    graph = helper.make_graph(nodes, "g", values(inputs), values(outputs), stored)
    opset = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


F, U8 = TensorProto.FLOAT, TensorProto.UINT8
W = np.ones((4, 3, 1, 1), np.float32)


def test_a_transpose_that_the_file_asks_for_counts(tmp_path: Path) -> None:
    path = saved(
        tmp_path / "t.onnx",
        [helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]),
         helper.make_node("Conv", ["t", "w"], ["y"])],
        {"x": (F, [1, 8, 8, 3])}, {"y": (F, [1, 4, 8, 8])}, {"w": W},
    )  # fmt: skip
    read = target.read(path)
    assert read.count("transpose") == 1
    assert read.input.layout == "NHWC"
    assert read.requires == "onnxruntime 1.13"


def test_open_sizes_are_read_but_not_run(tmp_path: Path) -> None:
    path = saved(tmp_path / "d.onnx", [helper.make_node("Conv", ["x", "w"], ["y"])],
                 {"x": (F, ["n", 3, "h", "w_"])}, {"y": (F, ["n", 4, "h", "w_"])},
                 {"w": W})  # fmt: skip
    read = target.read(path)
    assert read.input.shape == (1, 3, -1, -1)
    assert read.ops[0].shape == ()
    for load in (target.session, target.tracer):
        with pytest.raises(BadInput, match="input size is open"):
            load(path)


def test_two_inputs_are_read_but_not_run(tmp_path: Path) -> None:
    shape = (F, [1, 3, 8, 8])
    path = saved(tmp_path / "two.onnx", [helper.make_node("Add", ["a", "b"], ["y"])],
                 {"a": shape, "b": shape}, {"y": shape})  # fmt: skip
    assert target.read(path).count("add") == 1
    with pytest.raises(BadInput, match="needs 2 inputs"):
        target.session(path)


def test_qoperator_files_with_computed_weights_and_left_out_zero_points(tmp_path: Path) -> None:
    one = np.float32(0.5)
    nodes = [
        helper.make_node("QLinearConv", ["x", "s", "z", "w", "s", "z", "s", "z"], ["c"]),
        helper.make_node("QLinearAdd", ["c", "s", "z", "c", "s", "z", "s"], ["y"],
                         domain="com.microsoft"),
    ]  # fmt: skip
    path = saved(tmp_path / "q.onnx", nodes, {"x": (U8, [1, 3, 4, 4]), "w": (U8, [4, 3, 1, 1])},
                 {"y": (U8, [1, 4, 4, 4])}, {"s": one, "z": np.uint8(3)})  # fmt: skip
    read = target.read(path)
    assert read.operators() == {"QLinearConv": 1, "QLinearAdd": 1}
    assert read.float_operators() == []
    assert read.ops[0].weight is None
    assert read.quantization["y"].zero_point == (0,)
    assert read.ops[1].shape == (1, 4, 4, 4)


def test_subgraphs_and_unknown_operators(tmp_path: Path) -> None:
    shape = (F, [1, 3, 4, 4])
    then, other = (
        helper.make_graph([helper.make_node(kind, ["x"], [f"{kind}_y"])], kind, [],
                          [helper.make_tensor_value_info(f"{kind}_y", *shape)])
        for kind in ("Relu", "Neg")
    )  # fmt: skip
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["m"], keepdims=0),
        helper.make_node("Cast", ["m"], ["cond"], to=TensorProto.BOOL),
        helper.make_node("If", ["cond"], ["y"], then_branch=then, else_branch=other),
    ]
    path = saved(tmp_path / "if.onnx", nodes, {"x": shape}, {"y": shape})
    assert "If" in target.read(path).operators()
    foreign = saved(tmp_path / "f.onnx", [helper.make_node("Magic", ["x"], ["y"], domain="acme")],
                    {"x": shape}, {"y": shape})  # fmt: skip
    with pytest.raises(BadInput, match="onnxruntime can't load it"):
        target.read(foreign)


def test_external_data_that_is_missing_or_elsewhere(quantized: Quantized, tmp_path: Path) -> None:
    written(quantized, "fp32", tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    onnx.save(model, tmp_path / "e.onnx", save_as_external_data=True, location="e.data",
              size_threshold=200, convert_attribute=False)  # fmt: skip
    assert target.read(tmp_path / "e.onnx").count("conv") == 9
    (tmp_path / "e.data").unlink()
    with pytest.raises(BadInput, match=r"e\.onnx: .*") as caught:
        target.read(tmp_path / "e.onnx")
    assert "\n" not in str(caught.value)
    outside = onnx.load(tmp_path / "e.onnx", load_external_data=False)
    for tensor in outside.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../../etc/passwd"
    (tmp_path / "o.onnx").write_bytes(outside.SerializeToString())
    with pytest.raises(BadInput):
        target.read(tmp_path / "o.onnx")


def test_what_is_not_an_image_network(tmp_path: Path) -> None:
    (tmp_path / "empty.onnx").write_bytes(helper.make_model(
        helper.make_graph([], "g", [], [])).SerializeToString())  # fmt: skip
    with pytest.raises(BadInput):
        target.read(tmp_path / "empty.onnx")
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(BadInput):
        target.read(tmp_path / "folder.onnx")


def test_files_cut_or_changed_anywhere_give_a_sentence(
    quantized: Quantized, tmp_path: Path
) -> None:
    written(quantized, "int8", tmp_path / "m.onnx")
    whole = (tmp_path / "m.onnx").read_bytes()
    random = np.random.default_rng(0)
    path = tmp_path / "damaged.onnx"
    read = 0
    for _ in range(15):
        data = bytearray(whole[: random.integers(1, len(whole))])
        for at in random.integers(0, len(data), 20):
            data[at] = random.integers(0, 256)
        path.write_bytes(data)
        with contextlib.suppress(BadInput):  # anything else is a traceback for the user
            target.read(path)
            read += 1
    assert read < 15

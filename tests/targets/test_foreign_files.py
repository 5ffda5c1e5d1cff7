"""What other tools' files hold: listed as stored, beside what the runtime makes of it, and run or
refused in a sentence. Each test writes its own file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import in_process
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgeres.commands import files
from edgeres.errors import BadInput
from edgeres.measurement import protocol
from edgeres.models.shapes import LayerShape
from edgeres.network import tflite_file
from edgeres.targets import onnx as onnx_target
from edgeres.targets import tflite
from edgeres.targets._conversion import examine, listed

LAYER = LayerShape("conv", "conv", 3, 8, px=4, kernel=3)


def layer(path: Path, change: Callable[[Any], object]) -> Path:
    """A TFLite file of one int8 convolution, changed."""
    tflite.layer_file(LAYER, path)
    model = tflite_file.unpack(path.read_bytes())
    change(model)
    path.write_bytes(tflite_file.pack(model))
    return path


def custom(name: str) -> Callable[[Any], object]:
    """Put a custom operator behind the convolution."""
    from ai_edge_litert import schema_py_generated as schema

    def change(model: Any) -> None:
        code, op, graph = schema.OperatorCodeT(), schema.OperatorT(), model.subgraphs[0]
        code.builtinCode, code.deprecatedBuiltinCode, code.version = 32, 32, 1
        code.customCode = name
        model.operatorCodes.append(code)
        answer = schema.TensorT()
        answer.shape, answer.type, answer.name = graph.tensors[graph.outputs[0]].shape, 9, b"z"
        graph.tensors.append(answer)
        op.opcodeIndex, op.inputs = len(model.operatorCodes) - 1, list(graph.outputs)
        op.outputs = graph.outputs = [len(graph.tensors) - 1]
        graph.operators.append(op)

    return change


@pytest.mark.parametrize(
    ("name", "needs"),
    [("FlexErf", "TensorFlow's Flex delegate"), ("edgetpu-custom-op", "libedgetpu"),
     ("DISPATCH_OP", "NPU"), ("OurOwn\x1b[2J", "whoever made")],
)  # fmt: skip
def test_a_delegate_s_operator_is_listed_and_not_run(name: str, needs: str, tmp_path: Path) -> None:
    path = layer(tmp_path / "m.tflite", custom(name))
    found = files.inspected(path)
    shown = name.replace("\x1b", "\ufffd")
    assert found["operators"] == {"CONV_2D": 1, shown: 1}
    assert needs in found["delegates"][shown] and needs in found["not_run"]
    done = in_process.edgeres("inspect", path, cwd=tmp_path)
    assert done.returncode == 0 and needs in done.stdout and "\x1b" not in done.stdout
    done = in_process.edgeres("benchmark", path, cwd=tmp_path)
    assert done.returncode == 2 and f"{shown} needs" in done.stderr


def test_an_operator_that_is_not_known_is_listed(tmp_path: Path) -> None:
    def change(model: Any) -> None:
        model.operatorCodes[0].builtinCode = 9999

    found = listed(layer(tmp_path / "m.tflite", change))
    assert found["operators"] == {"BUILTIN_9999": 1} and "newer LiteRT" in found["not_run"]
    node = helper.make_node("Thing", ["x"], ["y"], domain="their.own")
    path = network(tmp_path / "m.onnx", [node], [], domains=["their.own"])
    found = listed(path)
    assert found["operators"] == {"Thing": 1} and "their.own:Thing" in found["not_run"]
    with pytest.raises(BadInput, match=r"their\.own:Thing"):
        examine(path)


def test_a_fixed_batch_is_inspected_and_not_measured(tmp_path: Path) -> None:
    def change(model: Any) -> None:
        graph = model.subgraphs[0]
        for i in (graph.inputs[0], graph.outputs[0]):
            graph.tensors[i].shape = [4, *graph.tensors[i].shape[1:]]

    conv = helper.make_node("Conv", ["x", "w"], ["y"])
    weight = helper.make_tensor("w", TensorProto.FLOAT, (8, 3, 3, 3), np.ones(216))
    for path in (layer(tmp_path / "m.tflite", change),
                 network(tmp_path / "m.onnx", [conv], [weight], batch=4)):  # fmt: skip
        found = files.inspected(path)
        assert found["input"]["shape"][0] == 4 and found["macs"] == 216 * np.prod(
            found["layers"][0]["shape"][2:])  # fmt: skip
        done = in_process.edgeres("benchmark", path, cwd=tmp_path)
        assert done.returncode == 2 and "its batch is fixed at 4" in done.stderr


@pytest.mark.parametrize("bits", [4, 8])
def test_weights_of_less_than_a_byte(bits: int, tmp_path: Path) -> None:
    def change(model: Any) -> None:
        weight = next(t for t in model.subgraphs[0].tensors if t.name == b"weight")
        weight.type = {4: 17, 8: 9}[bits]
        data = model.buffers[weight.buffer].data
        model.buffers[weight.buffer].data = data[: len(data) * bits // 8]

    found = listed(layer(tmp_path / "m.tflite", change))
    assert found["macs"] == 8 * 3 * 9 * 16
    assert found["constant_bytes"] == 216 * bits // 8 + 8 * 4  # and biases
    kind = {4: TensorProto.INT4, 8: TensorProto.INT8}[bits]
    nodes = [helper.make_node("DequantizeLinear", ["w", "s"], ["d"]),
             helper.make_node("Conv", ["x", "d"], ["y"])]  # fmt: skip
    stored = [helper.make_tensor("w", kind, (8, 3, 3, 3), [1] * 216),
              helper.make_tensor("s", TensorProto.FLOAT, (), [0.1])]  # fmt: skip
    found = listed(network(tmp_path / "m.onnx", nodes, stored, opset=21))
    assert found["constant_bytes"] == 216 * bits // 8 + 4 and found["macs"] == 8 * 27 * 36
    assert found["operators"] == {"DequantizeLinear": 1, "Conv": 1}
    assert found["integer_share"]["macs"] == 0  # weights alone are stored in integers
    assert found["precision"] == "dynamic"


def network(
    path: Path, nodes: list[Any], stored: list[Any], batch: int | str = "n", opset: int = 17,
    domains: list[str] | None = None,
) -> Path:  # fmt: skip
    """An ONNX file from (batch, 3, 8, 8) "x" to "y"."""
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], stored,
    )  # fmt: skip
    sets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains or ())]
    onnx.save(helper.make_model(graph, opset_imports=sets, ir_version=10), path)
    return path


def quantized_half(path: Path) -> Path:
    """Two convolutions with int8 weights: the first between codes, the second with a float input.

    A residual add and a clip, which onnxruntime fuses away.
    """
    scale = helper.make_tensor("s", TensorProto.FLOAT, (), [0.5])
    zero = helper.make_tensor("z", TensorProto.UINT8, (), [0])
    stored = [scale, zero, *(helper.make_tensor(n, TensorProto.INT8, (3, 3, 3, 3), [1] * 81)
                             for n in ("w1", "w2")),
              helper.make_tensor("lo", TensorProto.FLOAT, (), [0]),
              helper.make_tensor("hi", TensorProto.FLOAT, (), [6])]  # fmt: skip

    def q(name: str, kind: str = "QuantizeLinear") -> Any:
        out = f"{name}_{kind[0]}"
        return helper.make_node(kind, [name, "s", "z"], [out])

    nodes = [
        q("x"), q("x_Q", "DequantizeLinear"),
        helper.make_node("DequantizeLinear", ["w1", "s"], ["w1d"]),
        helper.make_node("Conv", ["x_Q_D", "w1d"], ["a"], pads=[1, 1, 1, 1]),
        q("a"), q("a_Q", "DequantizeLinear"),
        helper.make_node("DequantizeLinear", ["w2", "s"], ["w2d"]),
        helper.make_node("Conv", ["x", "w2d"], ["b"], pads=[1, 1, 1, 1]),
        helper.make_node("Clip", ["b", "lo", "hi"], ["c"]),
        helper.make_node("Add", ["a_Q_D", "c"], ["y"]),
    ]  # fmt: skip
    return network(path, nodes, stored)


def test_what_is_stored_stands_beside_what_the_runtime_makes_of_it(tmp_path: Path) -> None:
    path = quantized_half(tmp_path / "m.onnx")
    found = files.inspected(path)
    assert found["operators"] == {"QuantizeLinear": 2, "DequantizeLinear": 4, "Conv": 2, "Clip": 1,
                                  "Add": 1}  # fmt: skip
    assert found["residual_adds"] == 1 and found["runtime"]["name"] == "onnxruntime"
    made = found["runtime"]["operators"]
    assert made["QLinearConv"] == 1 and "Clip" not in made
    assert found["macs"] == 2 * 81 * 64
    assert found["integer_share"]["macs"] == 0.5  # one of two really computes in integers
    assert found["integer_share"]["bytes"] == pytest.approx(0.5, abs=0.05)
    assert found["target"] == "onnx-int8" and not found["not_run"]
    text = in_process.edgeres("inspect", path, cwd=tmp_path).stdout
    lines = {line.split("  ")[0]: line for line in text.splitlines()}
    assert "2 Conv" in lines["operators"] and "1 QLinearConv" in lines["in onnxruntime"]


def test_data_in_another_file_is_counted_and_carried_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conv = helper.make_node("Conv", ["x", "w"], ["y"])
    weight = onnx.numpy_helper.from_array(np.ones((8, 3, 3, 3), np.float32), "w")
    plain = network(tmp_path / "plain.onnx", [conv], [weight])
    (tmp_path / "sub").mkdir()
    path = tmp_path / "sub" / "m.onnx"
    onnx.save(
        onnx.load(plain), path, save_as_external_data=True, location="m.bin", size_threshold=0
    )
    found = files.inspected(path)
    assert found["beside"]["m.bin"]["size_bytes"] == 864
    assert found["size_bytes"] == path.stat().st_size + 864 and found["constant_bytes"] == 864
    before = found["sha256"]
    (tmp_path / "sub" / "m.bin").write_bytes(bytes(864))
    assert files.inspected(path)["sha256"] != before

    carried = []
    monkeypatch.setattr(protocol.runners, "of", lambda *_: Runner())

    class Runner:
        def load(self, device: object, work: Any) -> object:
            carried.append(onnx.load(work.path, load_external_data=False))
            return object()

    class Device:
        name, profile = "board", None

    spec = onnx_target.read(path).input
    one = protocol.Candidate("m", path, "", 1, spec, spec, np.zeros((1, 3, 8, 8), np.float32))
    protocol._load(one, Device(), tmp_path, 1, protocol.Measured())  # type: ignore[arg-type]
    (tensor,) = carried[0].graph.initializer
    assert tensor.data_location == TensorProto.DEFAULT and tensor.raw_data == bytes(864)


@pytest.mark.parametrize("location", ["../secret", "/etc/hostname", "link"])
def test_data_outside_its_folder_is_not_looked_at(location: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(864))
    (folder := tmp_path / "in").mkdir()
    (folder / "link").symlink_to(tmp_path / "secret")
    conv = helper.make_node("Conv", ["x", "w"], ["y"])
    weight = onnx.numpy_helper.from_array(np.ones((8, 3, 3, 3), np.float32), "w")
    model = onnx.load(network(folder / "m.onnx", [conv], [weight]))
    (tensor,) = model.graph.initializer
    onnx.external_data_helper.set_external_data(tensor, location)
    tensor.ClearField("raw_data")
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    assert onnx_target.beside(folder / "m.onnx") == []
    with pytest.raises(BadInput, match="external data"):
        listed(folder / "m.onnx")


@pytest.mark.parametrize(
    ("activations", "weights", "name"),
    [("int8", "int8", "int8"), ("int16", "int8", "int16x8"), ("float32", "int8", "dynamic"),
     ("float32", "float32", "fp32")],
)  # fmt: skip
def test_a_file_is_named_by_what_it_is(
    activations: str, weights: str, name: str, tmp_path: Path
) -> None:
    kinds = {"int8": 9, "int16": 7, "float32": 0}

    def change(model: Any) -> None:
        graph = model.subgraphs[0]
        for i in (graph.inputs[0], graph.outputs[0]):
            graph.tensors[i].type = kinds[activations]
            if activations == "float32":
                graph.tensors[i].quantization = None
        for tensor in graph.tensors:
            if tensor.name == b"weight" and weights == "float32":
                tensor.type, tensor.quantization = 0, None
                model.buffers[tensor.buffer].data = np.ones(216, np.float32).view(np.uint8)
            if tensor.name == b"bias" and activations == "float32":
                tensor.type, tensor.quantization = 0, None
            if tensor.name == b"bias" and activations == "int16":
                tensor.type = 4
                model.buffers[tensor.buffer].data = np.zeros(8, np.int64).view(np.uint8)

    found = files.inspected(layer(tmp_path / "m.tflite", change))
    assert found["target"] == f"tflite-{name}"


def test_an_export_s_own_name_is_found_again(quantized: tuple, tmp_path: Path) -> None:
    from edgeres.targets import Source

    _, folded, scales = quantized
    for precision in ("fp32", "fp16", "int8"):
        path = tmp_path / f"m-{precision}.onnx"
        onnx_target.export(Source(folded, scales if precision == "int8" else None), precision, path)
        assert files.inspected(path)["precision"] == precision
        assert json.dumps(files.inspected(path), allow_nan=False)


def test_every_end_and_an_open_size_are_shown(tmp_path: Path) -> None:
    """A detector's second output, any number of images, and no sum of what isn't known."""
    weight = helper.make_tensor("w", TensorProto.FLOAT, (8, 3, 3, 3), np.ones(216))
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"]), helper.make_node("Relu", ["y"], ["z"])]
    made = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ("n", 8, None, None))
            for name in ("y", "z")]  # fmt: skip
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", 3, "h", "h"))
    graph = helper.make_graph(nodes, "g", [image], made, [weight])
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    found = files.inspected(path)
    assert found["macs"] == 0 and found["any_batch"]
    assert [(one["end"], one["name"]) for one in found["also"]] == [("output", "z")]
    shown = in_process.edgeres("inspect", path, cwd=tmp_path).stdout
    assert "1x3x?x? NCHW, or more images" in shown and "another output, z" in shown
    assert "unknown" in next(line for line in shown.splitlines() if line.startswith("MACs"))

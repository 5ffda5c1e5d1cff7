"""Tiny model files that a runtime really executes: y = x W^T + b, four inputs, three outputs."""

from __future__ import annotations

from pathlib import Path

import flatbuffers
import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema
from onnx import TensorProto, helper, numpy_helper

WEIGHT = np.arange(12, dtype=np.float32).reshape(3, 4) / 8 - 0.5
BIAS = np.array([0.5, -1.0, 2.0], np.float32)
INPUTS = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)


def expected(inputs: np.ndarray) -> np.ndarray:
    """What both files must compute, (N, 4) -> (N, 3)."""
    return inputs @ WEIGHT.T + BIAS


def write_onnx(path: Path, weight: np.ndarray = WEIGHT, bias: np.ndarray = BIAS) -> Path:
    """One Gemm of fixed batch 1."""
    outputs, inputs = weight.shape
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1)],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, inputs])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, outputs])],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


def write_tflite(path: Path) -> Path:
    """One FULLY_CONNECTED of batch 1."""
    model = schema.ModelT()
    model.version = 3
    operator_code = schema.OperatorCodeT()
    operator_code.builtinCode = schema.BuiltinOperator.FULLY_CONNECTED
    operator_code.deprecatedBuiltinCode = schema.BuiltinOperator.FULLY_CONNECTED
    model.operatorCodes = [operator_code]

    contents = [b"", WEIGHT.tobytes(), BIAS.tobytes()]
    model.buffers = []
    for content in contents:
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(content, np.uint8) if content else None
        model.buffers.append(buffer)

    graph = schema.SubGraphT()
    graph.tensors = []
    for name, shape, buffer in [
        ("x", [1, 4], 0),
        ("w", [3, 4], 1),
        ("b", [3], 2),
        ("y", [1, 3], 0),
    ]:
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.buffer = name.encode(), shape, buffer
        tensor.type = schema.TensorType.FLOAT32
        graph.tensors.append(tensor)
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, [0, 1, 2], [3]
    operator.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
    operator.builtinOptions = schema.FullyConnectedOptionsT()
    graph.operators, graph.inputs, graph.outputs = [operator], [0], [3]
    model.subgraphs = [graph]

    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path

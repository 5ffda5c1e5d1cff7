"""A fault that must be planted in a file's structure: a residual add that lost its identity.

Only the self-test of verification uses this; faults in numbers and notes need no format's help.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

_NAME = "edgeres_no_identity"


def cut_identity(path: Path, format_: str, number: int, operand: int) -> bool:
    """Put zeros in place of one input of a residual add, in the file itself.

    Args:
        number: which add, counted in execution order from 0; operand: which of its inputs.

    Returns:
        Whether it could be done: False for a format that isn't known here.
    """
    cutters: dict[str, Callable[[Path, int, int], None]] = {
        "tflite": _tflite, "onnx": _onnx, "coreml": _coreml, "savedmodel": _savedmodel,
    }  # fmt: skip
    if format_ not in cutters:
        return False
    cutters[format_](path, number, operand)
    return True


def _tflite(path: Path, number: int, operand: int) -> None:
    import flatbuffers
    import numpy as np
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes(), 0))
    graph = model.subgraphs[0]
    kinds = [model.operatorCodes[o.opcodeIndex].builtinCode for o in graph.operators]
    adds = [o for o, k in zip(graph.operators, kinds, strict=True)
            if k == schema.BuiltinOperator.ADD]  # fmt: skip
    lost = graph.tensors[adds[number].inputs[operand]]
    kind = {schema.TensorType.INT8: np.int8, schema.TensorType.INT16: np.int16}.get(
        lost.type, np.float32
    )
    code = 0 if kind is np.float32 else int(lost.quantization.zeroPoint[0])
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(np.full(lost.shape, code, kind).tobytes(), np.uint8)
    model.buffers.append(buffer)
    zeros = copy.copy(lost)
    zeros.buffer = len(model.buffers) - 1
    graph.tensors.append(zeros)
    inputs = list(adds[number].inputs)
    inputs[operand] = len(graph.tensors) - 1
    adds[number].inputs = inputs
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))


def _onnx(path: Path, number: int, operand: int) -> None:
    import numpy as np
    import onnx

    file = next(path.rglob("*.onnx")) if path.is_dir() else path
    model = onnx.load(file)
    add = [n for n in model.graph.node if n.op_type in ("Add", "QLinearAdd")][number]
    stored = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
    if add.op_type == "QLinearAdd":  # code, scale and zero point of each
        operand *= 3
        zero = stored[add.input[operand + 2]].reshape(1)
    else:
        half = any(values.dtype == np.float16 for values in stored.values())
        zero = np.zeros(1, np.float16 if half else np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(zero, _NAME))
    add.input[operand] = _NAME
    file.write_bytes(model.SerializeToString())


def _coreml(path: Path, number: int, operand: int) -> None:
    import coremltools as ct

    file = path / "Data/com.apple.CoreML/model.mlmodel"
    spec = ct.proto.Model_pb2.Model()
    spec.ParseFromString(file.read_bytes())
    (block,) = spec.mlProgram.functions["main"].block_specializations.values()
    values = {value.name: value for op in block.operations for value in op.outputs}
    add = [op for op in block.operations if op.type == "add"][number]
    argument = add.inputs["xy"[operand]].arguments[0]
    zeros = _zeros_like(values[argument.name])
    argument.name = _NAME
    block.operations.insert(0, zeros)
    file.write_bytes(spec.SerializeToString())


def _savedmodel(path: Path, number: int, operand: int) -> None:
    from tensorflow.core.protobuf import saved_model_pb2

    file = path / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    nodes = saved.meta_graphs[0].graph_def.node
    add = [n for n in nodes if n.op == "AddV2"][number]
    zeros = nodes.add(name=_NAME, op="ZerosLike", input=[add.input[operand]])
    zeros.attr["T"].CopyFrom(add.attr["T"])
    add.input[operand] = _NAME
    file.write_bytes(saved.SerializeToString())


def _zeros_like(value: Any) -> Any:
    from coremltools.proto import MIL_pb2

    made = MIL_pb2.Operation(type="const")
    output = made.outputs.add()
    output.name = _NAME
    output.type.CopyFrom(value.type)
    dimensions = [d.constant.size for d in value.type.tensorType.dimensions]
    size = {MIL_pb2.FLOAT16: 2, MIL_pb2.FLOAT32: 4}[value.type.tensorType.dataType]
    attribute = made.attributes["val"]
    attribute.type.CopyFrom(value.type)
    tensor = attribute.immediateValue.tensor
    if size == 2:
        tensor.bytes.values = bytes(2 * math.prod(dimensions))
    else:
        tensor.floats.values.extend([0.0] * math.prod(dimensions))
    label = made.attributes["name"]
    label.type.tensorType.dataType = MIL_pb2.STRING
    label.immediateValue.tensor.strings.values.append(_NAME)
    return made

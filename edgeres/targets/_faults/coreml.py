"""Faults in a Core ML package's structure."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

_NAME = "edgeres_fault"


def cut_identity(path: Path, number: int, operand: int) -> None:
    """See `_faults`."""
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

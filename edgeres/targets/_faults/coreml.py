"""Faults in a Core ML package's structure."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from edgeres.targets import _faults

if TYPE_CHECKING:
    from coremltools.proto import MIL_pb2, Model_pb2

_NAME = "edgeres_fault"


def cut_identity(path: Path, number: int, operand: int) -> None:
    """See `_faults`."""

    def change(spec: Model_pb2.Model) -> None:
        block = _block(spec)
        values = {value.name: value for op in block.operations for value in op.outputs}
        add = [op for op in block.operations if op.type == "add"][number]
        argument = add.inputs["xy"[operand]].arguments[0]
        zeros = _zeros_like(values[argument.name])
        argument.name = _NAME
        block.operations.insert(0, zeros)

    _changed(path, change)


def _own_operation(path: Path) -> None:
    """The greater of each answer and itself."""
    _changed(path, lambda spec: _behind(_block(spec), "maximum", {"x": _NAME, "y": _NAME}))


def _detour(path: Path) -> None:
    """Answers as float32 numbers and back."""
    from coremltools.proto import MIL_pb2

    def change(spec: Model_pb2.Model) -> None:
        block = _block(spec)
        wide = _behind(block, "cast", {"x": _NAME})
        narrow = block.operations.add()
        narrow.CopyFrom(wide)
        wide.outputs[0].name = narrow.inputs["x"].arguments[0].name = f"{_NAME}_wide"
        wide.outputs[0].type.tensorType.dataType = MIL_pb2.FLOAT32
        for op, kind in ((wide, "fp32"), (narrow, "fp16")):
            dtype = op.inputs["dtype"].arguments.add().value
            dtype.type.tensorType.dataType = MIL_pb2.STRING
            dtype.immediateValue.tensor.strings.values.append(kind)

    _changed(path, change)


def _function(path: Path) -> None:
    def change(spec: Model_pb2.Model) -> None:
        spec.mlProgram.functions["more"].CopyFrom(spec.mlProgram.functions["main"])

    _changed(path, change)


def _metadata(path: Path) -> None:
    """What Xcode shows of the images."""
    _changed(path, lambda spec: setattr(
        spec.description.metadata, "shortDescription", "takes BGR images"))  # fmt: skip


def _swapped(path: Path) -> bool:
    swapped = False

    def change(spec: Model_pb2.Model) -> None:
        nonlocal swapped
        for op in _block(spec).operations:
            if op.type == "concat" and not swapped:
                first, second, *_ = op.inputs["values"].arguments
                first.name, second.name = second.name, first.name
                swapped = True

    _changed(path, change)
    return swapped


PLANTERS: dict[str, Callable[[Path], bool | None]] = {
    "an operation of its own behind the answer": _own_operation,
    "other standard metadata": _metadata,
    "a detour through another type": _detour,
    "a second graph or function": _function,
    _faults.SWAPPED: _swapped,
}


def _changed(path: Path, change: Callable[[Model_pb2.Model], None]) -> None:
    import coremltools as ct

    file = path / "Data/com.apple.CoreML/model.mlmodel"
    spec = ct.proto.Model_pb2.Model()
    spec.ParseFromString(file.read_bytes())
    change(spec)
    file.write_bytes(spec.SerializeToString(deterministic=True))


def _block(spec: Model_pb2.Model) -> MIL_pb2.Block:
    (block,) = spec.mlProgram.functions["main"].block_specializations.values()
    return block


def _behind(block: MIL_pb2.Block, kind: str, inputs: dict[str, str]) -> MIL_pb2.Operation:
    """Put an operation behind what gives the answer, which is called `_NAME` then."""
    answer = block.outputs[0]
    value = next(v for op in block.operations for v in op.outputs if v.name == answer)
    made = block.operations.add(type=kind)
    made.outputs.add().CopyFrom(value)
    value.name = _NAME
    for argument, name in inputs.items():
        made.inputs[argument].arguments.add(name=name)
    _label(made, answer)
    return made


def _label(op: MIL_pb2.Operation, name: str) -> None:
    from coremltools.proto import MIL_pb2

    label = op.attributes["name"]
    label.type.tensorType.dataType = MIL_pb2.STRING
    label.immediateValue.tensor.strings.values.append(name)


def _zeros_like(value: MIL_pb2.NamedValueType) -> MIL_pb2.Operation:
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
    _label(made, _NAME)
    return made

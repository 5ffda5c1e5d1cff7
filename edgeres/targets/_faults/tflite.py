"""Faults in a .tflite file's structure."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from edgeres.network import tflite_file as file
from edgeres.targets import _faults

if TYPE_CHECKING:
    from ai_edge_litert import schema_py_generated as schema


def cut_identity(path: Path, number: int, operand: int) -> None:
    """See `_faults`."""
    import numpy as np
    from ai_edge_litert import schema_py_generated as schema

    def change(model: schema.ModelT) -> None:
        graph = model.subgraphs[0]
        add = [op for op in graph.operators if file.kind(model, op) == "ADD"][number]
        lost = graph.tensors[add.inputs[operand]]
        kind = {schema.TensorType.INT8: np.int8, schema.TensorType.INT16: np.int16}.get(
            lost.type, np.float32
        )
        code = 0 if kind is np.float32 else int(lost.quantization.zeroPoint[0])
        zeros = copy.copy(lost)
        zeros.buffer = file.add_buffer(model, np.full(lost.shape, code, kind).tobytes())
        graph.tensors.append(zeros)
        inputs = list(add.inputs)
        inputs[operand] = len(graph.tensors) - 1
        add.inputs = inputs

    _changed(path, change)


def _own_operation(path: Path) -> None:
    """The greater of each answer and itself."""
    from ai_edge_litert import schema_py_generated as schema

    options = schema.MaximumMinimumOptionsT(), schema.BuiltinOptions.MaximumMinimumOptions
    _changed(path, lambda model: _behind(model, "MAXIMUM", 2, options))


def _detour(path: Path) -> None:
    """Answers as complex numbers and back."""
    from ai_edge_litert import schema_py_generated as schema

    def change(model: schema.ModelT) -> None:
        graph = model.subgraphs[0]
        own = graph.tensors[graph.outputs[0]].type
        for first, second in ((own, schema.TensorType.COMPLEX64),
                              (schema.TensorType.COMPLEX64, own)):  # fmt: skip
            options = schema.CastOptionsT()
            options.inDataType, options.outDataType = first, second
            _behind(model, "CAST", 1, (options, schema.BuiltinOptions.CastOptions), second)

    _changed(path, change)


def _signature(path: Path) -> bool:
    """What the signature calls the answer is the image."""
    planted = False

    def change(model: schema.ModelT) -> None:
        nonlocal planted
        for signature in model.signatureDefs or ():
            signature.outputs[0].tensorIndex = model.subgraphs[0].inputs[0]
            planted = True

    _changed(path, change)
    return planted


def _metadata(path: Path) -> bool:
    """Other labels in the zip behind the model, which Android's tools read."""
    data = path.read_bytes()
    start = data.rfind(b"PK\x03\x04")
    if start < 0:
        return False
    path.write_bytes(data[:start] + data[start:].replace(b"labels.txt", b"Labels.txt"))
    return True


def _second_graph(path: Path) -> None:
    _changed(path, lambda model: model.subgraphs.append(copy.deepcopy(model.subgraphs[0])))


def _swapped(path: Path) -> bool:
    swapped = False

    def change(model: schema.ModelT) -> None:
        nonlocal swapped
        for op in model.subgraphs[0].operators:
            if file.kind(model, op) == "CONCATENATION" and not swapped:
                first, second, *rest = op.inputs
                op.inputs = [second, first, *rest]
                swapped = True

    _changed(path, change)
    return swapped


PLANTERS: dict[str, Callable[[Path], bool | None]] = {
    "an operation of its own behind the answer": _own_operation,
    "a signature of another output": _signature,
    "other standard metadata": _metadata,
    "a detour through another type": _detour,
    "a second graph or function": _second_graph,
    _faults.SWAPPED: _swapped,
}


def _changed(path: Path, change: Callable[[schema.ModelT], None]) -> None:
    """Change the model's objects; the zip behind it stays."""
    data = path.read_bytes()
    model = file.load(data, path)
    behind = data[len(file.pack(model)) :]
    change(model)
    path.write_bytes(file.pack(model) + behind)


def _behind(
    model: schema.ModelT,
    kind: str,
    version: int,
    options: tuple[object, int],
    type_: int | None = None,
) -> None:
    """Put an operation behind the answer, which reads it as often as it needs."""
    import numpy as np
    from ai_edge_litert import schema_py_generated as schema

    graph, op, code = model.subgraphs[0], schema.OperatorT(), schema.OperatorCodeT()
    code.builtinCode = getattr(schema.BuiltinOperator, kind)
    code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), version
    model.operatorCodes.append(code)
    last = int(graph.outputs[0])
    made = copy.deepcopy(graph.tensors[last])
    made.type = made.type if type_ is None else type_
    graph.tensors.append(made)
    op.opcodeIndex = len(model.operatorCodes) - 1
    op.builtinOptions, op.builtinOptionsType = options
    op.inputs = np.array([last] * (2 if kind == "MAXIMUM" else 1), np.int32)
    op.outputs = graph.outputs = np.array([len(graph.tensors) - 1], np.int32)
    graph.operators.append(op)
    for signature in model.signatureDefs or ():
        signature.outputs[0].tensorIndex = len(graph.tensors) - 1

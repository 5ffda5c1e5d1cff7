"""Faults in the structure of an .onnx file, or of the one inside a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from edgeres.targets import _faults

if TYPE_CHECKING:
    import onnx

_NAME = "edgeres_fault"


def cut_identity(path: Path, number: int, operand: int) -> None:
    """See `_faults`."""
    import numpy as np
    import onnx

    def change(model: onnx.ModelProto) -> None:
        add = [n for n in model.graph.node if n.op_type in ("Add", "QLinearAdd")][number]
        stored = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
        at = operand
        if add.op_type == "QLinearAdd":  # code, scale and zero point of each
            at *= 3
            zero = stored[add.input[at + 2]].reshape(1)
        else:
            half = any(values.dtype == np.float16 for values in stored.values())
            zero = np.zeros(1, np.float16 if half else np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(zero, _NAME))
        add.input[at] = _NAME

    _changed(path, change)


def _own_operation(path: Path) -> None:
    """The greater of each answer and itself."""
    _changed(path, lambda model: _behind(model, lambda x, y: [_node("Max", [x, x], [y])]))


def _mixed(path: Path) -> None:
    """The greatest answer of a batch for each of its images; for one image that is its own."""
    import numpy as np
    import onnx

    def change(model: onnx.ModelProto) -> None:
        old = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx")) < 18
        axes: dict[str, object] = {"axes": [0]} if old else {}
        if not old:
            constant = onnx.numpy_helper.from_array(np.zeros(1, np.int64), f"{_NAME}_axes")
            model.graph.initializer.append(constant)
        names = [] if old else [f"{_NAME}_axes"]
        _behind(model, lambda x, y: [
            _node("ReduceMax", [x, *names], [f"{_NAME}_max"], keepdims=1, **axes),
            _node("Max", [x, f"{_NAME}_max"], [y]),
        ])  # fmt: skip

    _changed(path, change)


def _detour(path: Path) -> None:
    """Answers as double-precision numbers and back."""
    import onnx

    def change(model: onnx.ModelProto) -> None:
        own = model.graph.output[0].type.tensor_type.elem_type
        _behind(model, lambda x, y: [
            _node("Cast", [x], [f"{_NAME}_wide"], to=onnx.TensorProto.DOUBLE),
            _node("Cast", [f"{_NAME}_wide"], [y], to=own),
        ])  # fmt: skip

    _changed(path, change)


def _function(path: Path) -> None:
    """The answer goes through a function that the file defines itself."""
    import onnx

    def change(model: onnx.ModelProto) -> None:
        body = [_node("Identity", ["x"], ["y"])]
        opset = [onnx.helper.make_opsetid("", model.opset_import[0].version)]
        model.functions.append(onnx.helper.make_function(_NAME, "same", ["x"], ["y"], body, opset))
        model.opset_import.append(onnx.helper.make_opsetid(_NAME, 1))
        _behind(model, lambda x, y: [_node("same", [x], [y], domain=_NAME)])

    _changed(path, change)


def _metadata(path: Path) -> None:
    """Windows' tools are told to normalize images."""
    _changed(path, lambda model: model.metadata_props.add(
        key="Image.NominalPixelRange", value="Normalized_1_1"))  # fmt: skip


def _swapped(path: Path) -> bool:
    swapped = False

    def change(model: onnx.ModelProto) -> None:
        nonlocal swapped
        places = {"Concat": (0, 1), "QLinearConcat": (2, 5)}  # whose scales are the same
        for node in model.graph.node:
            if node.op_type in places and not swapped:
                first, second = places[node.op_type]
                names = node.input[second], node.input[first]
                node.input[first], node.input[second] = names
                swapped = True

    _changed(path, change)
    return swapped


PLANTERS: dict[str, Callable[[Path], bool | None]] = {
    "an operation of its own behind the answer": _own_operation,
    "images of a batch mixed": _mixed,
    "other standard metadata": _metadata,
    "a detour through another type": _detour,
    "a second graph or function": _function,
    _faults.SWAPPED: _swapped,
}


def _changed(path: Path, change: Callable[[onnx.ModelProto], object]) -> None:
    import onnx

    file = next(path.rglob("*.onnx")) if path.is_dir() else path
    model = onnx.load(file)
    change(model)
    file.write_bytes(model.SerializeToString(deterministic=True))


def _behind(model: onnx.ModelProto, nodes: Callable[[str, str], list[onnx.NodeProto]]) -> None:
    """Put nodes between what gives the answer and the answer."""
    answer = model.graph.output[0].name
    for node in model.graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                names[i] = f"{_NAME}_before" if name == answer else name
    model.graph.node.extend(nodes(f"{_NAME}_before", answer))


def _node(kind: str, inputs: list[str], outputs: list[str], **attributes: object) -> onnx.NodeProto:
    import onnx

    return onnx.helper.make_node(kind, inputs, outputs, **attributes)

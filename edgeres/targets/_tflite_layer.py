"""One int8 layer as a .tflite file by itself: a shape in, a file that takes the layer's time out.

What a layer costs doesn't depend on its weights, so they are noise, and no converter is needed: a
table of a hundred shapes is written in a second.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from edgeres.models.shapes import LayerShape, sides
from edgeres.network import tflite_file as file
from edgeres.types import QuantParams, TensorSpec

if TYPE_CHECKING:
    import numpy as np

_INT8, _INT32 = 9, 2  # TensorType
_SCALE = 0.05
# kind -> operator and its version, as in our exports
_CODES = {"conv": ("CONV_2D", 3), "depthwise": ("DEPTHWISE_CONV_2D", 3), "add": ("ADD", 2),
          "linear": ("FULLY_CONNECTED", 5), "mean": ("MEAN", 2)}  # fmt: skip


def write(shape: LayerShape, path: Path) -> tuple[TensorSpec, TensorSpec]:
    """Write the file and return its input and output; an add takes its one input twice."""
    import numpy as np

    rng = np.random.default_rng(0)
    net = _Net()
    first, last = _ends(shape)
    source = net.tensor("input", first, scale=_SCALE)
    if shape.kind == "add":
        operands = [source, source]
    elif shape.kind == "mean":
        operands = [source, net.constant("axes", np.array([1, 2], np.int32))]
    else:
        weight = rng.integers(-127, 128, _weight(shape)).astype(np.int8)
        axis = 3 if _depthwise(shape) else 0
        bias = np.zeros(shape.cout, np.int32)
        operands = [source, net.constant("weight", weight, 0.01, axis),
                    net.constant("bias", bias, 0.01 * _SCALE, 0)]  # fmt: skip
    result = net.tensor("output", last, scale=_SCALE)
    net.operator("depthwise" if _depthwise(shape) else shape.kind, operands, result, shape)
    path.write_bytes(net.packed(source, result))
    q = QuantParams((_SCALE,), (0,), "int8")
    layouts = ["NHWC" if len(s) == 4 else "NC" for s in (first, last)]
    return (TensorSpec("input", first, "int8", layouts[0], q),
            TensorSpec("output", last, "int8", layouts[1], q))  # fmt: skip


def _depthwise(shape: LayerShape) -> bool:
    return shape.kind == "conv" and shape.groups == shape.cin == shape.cout > 1


def _weight(shape: LayerShape) -> tuple[int, ...]:
    if shape.kind == "linear":
        return (shape.cout, shape.cin)
    if _depthwise(shape):
        return (1, *sides(shape.kernel), shape.cout)
    return (shape.cout, *sides(shape.kernel), shape.cin // shape.groups)


def _ends(shape: LayerShape) -> tuple[tuple[int, ...], tuple[int, ...]]:
    if shape.kind == "linear":
        return (1, shape.cin), (1, shape.cout)
    after = sides(shape.px)
    before = (px * step for px, step in zip(after, sides(shape.stride), strict=True))
    image = (1, *before, shape.cin)
    return image, (1, shape.cout) if shape.kind == "mean" else (1, *after, shape.cout)


class _Net:
    """A model of one operation, being put together."""

    def __init__(self) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self.schema = schema
        self.model = schema.ModelT()
        self.model.version = 3
        self.model.description = "one layer"
        self.model.buffers = [schema.BufferT()]
        self.graph = schema.SubGraphT()
        self.graph.tensors, self.graph.operators = [], []
        self.model.subgraphs, self.model.operatorCodes = [self.graph], []

    def tensor(
        self, name: str, shape: tuple[int, ...], kind: int = _INT8, scale: float | None = None,
        channels: int = 1, axis: int = 0,
    ) -> int:  # fmt: skip
        tensor = self.schema.TensorT()
        tensor.name, tensor.shape, tensor.type, tensor.buffer = name, list(shape), kind, 0
        if scale is not None:
            tensor.quantization = self.schema.QuantizationParametersT()
            tensor.quantization.scale = [scale] * channels
            tensor.quantization.zeroPoint = [0] * channels
            tensor.quantization.quantizedDimension = axis
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def constant(
        self, name: str, values: np.ndarray, scale: float | None = None, axis: int = 0
    ) -> int:
        kind = _INT8 if values.dtype.itemsize == 1 else _INT32
        channels = values.shape[axis] if scale is not None else 1
        index = self.tensor(name, values.shape, kind, scale, channels, axis)
        self.graph.tensors[index].buffer = file.add_buffer(self.model, values.tobytes())
        return index

    def operator(self, kind: str, inputs: list[int], output: int, shape: LayerShape) -> None:
        s = self.schema
        code = s.OperatorCodeT()
        name, code.version = _CODES[kind]
        code.builtinCode = getattr(s.BuiltinOperator, name)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        op = s.OperatorT()
        op.opcodeIndex, op.inputs, op.outputs = 0, inputs, [output]
        op.builtinOptionsType, op.builtinOptions = _options(s, kind)
        if kind in ("conv", "depthwise"):
            op.builtinOptions.strideH, op.builtinOptions.strideW = sides(shape.stride)
            op.builtinOptions.padding = s.Padding.SAME
        if kind == "depthwise":
            op.builtinOptions.depthMultiplier = 1
        self.graph.operators.append(op)
        self.model.operatorCodes.append(code)

    def packed(self, source: int, result: int) -> bytes:
        self.graph.inputs, self.graph.outputs = [source], [result]
        return file.pack(self.model)


def _options(schema: ModuleType, kind: str) -> tuple[int, object]:
    names = {"conv": "Conv2DOptions", "depthwise": "DepthwiseConv2DOptions", "add": "AddOptions",
             "linear": "FullyConnectedOptions", "mean": "ReducerOptions"}  # fmt: skip
    return getattr(schema.BuiltinOptions, names[kind]), getattr(schema, f"{names[kind]}T")()

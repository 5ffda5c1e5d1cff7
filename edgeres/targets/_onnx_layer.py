"""One int8 layer as an .onnx file by itself: a shape in, a file that takes the layer's time out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgeres.models.shapes import LayerShape, sides
from edgeres.types import QuantParams, TensorSpec

if TYPE_CHECKING:
    import numpy.typing as npt
    import onnx

_SCALE, _WEIGHT_SCALE = 0.05, 0.01


def write(shape: LayerShape, path: Path) -> tuple[TensorSpec, TensorSpec]:
    """Write the file (uint8 codes in and out) and return its input and output.

    An add takes its one input twice.
    """
    import onnx
    from onnx import TensorProto, helper

    px, stride, kernel = map(sides, (shape.px, shape.stride, shape.kernel))
    before = (side * step for side, step in zip(px, stride, strict=True))
    image = shape.kind != "linear"
    first = (1, shape.cin, *before) if image else (1, shape.cin)
    after = (1, 1) if shape.kind == "mean" else px
    last = (1, shape.cout, *after) if image else (1, shape.cout)
    constants = _constants(shape)
    nodes = [_node("DequantizeLinear", ["input", "scale", "zero"], "x")]
    operands = ["x", "x"] if shape.kind == "add" else ["x"]
    attributes: dict[str, object] = {}
    if shape.weights:
        for name in ("weight", "bias"):
            zero = f"{name}_zero"
            inputs = [f"{name}_codes", f"{name}_scale", zero]
            nodes.append(_node("DequantizeLinear", inputs, name, axis=0))
            operands.append(name)
        if shape.kind == "conv":
            pads = [*((side - 1) // 2 for side in kernel), *(side // 2 for side in kernel)]
            attributes = {"kernel_shape": kernel, "strides": stride, "pads": pads,
                          "group": shape.groups}  # fmt: skip
        else:
            attributes = {"transB": 1}
    kinds = {"conv": "Conv", "linear": "Gemm", "add": "Add", "mean": "GlobalAveragePool"}
    nodes.append(_node(kinds[shape.kind], operands, "y", **attributes))
    nodes.append(_node("QuantizeLinear", ["y", "scale", "zero"], "output"))
    graph = helper.make_graph(
        nodes, "layer",
        [helper.make_tensor_value_info("input", TensorProto.UINT8, first)],
        [helper.make_tensor_value_info("output", TensorProto.UINT8, last)], constants,
    )  # fmt: skip
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), str(path))
    q = QuantParams((_SCALE,), (128,), "uint8")
    layout = "NCHW" if image else "NC"
    return (TensorSpec("input", first, "uint8", layout, q),
            TensorSpec("output", last, "uint8", layout, q))  # fmt: skip


def _node(kind: str, inputs: list[str], output: str, **attributes: object) -> onnx.NodeProto:
    from onnx import helper

    return helper.make_node(kind, inputs, [output], **attributes)


def _constants(shape: LayerShape) -> list[onnx.TensorProto]:
    import numpy as np
    from onnx import numpy_helper

    rng = np.random.default_rng(0)
    values: dict[str, npt.ArrayLike] = {"scale": np.float32(_SCALE), "zero": np.uint8(128)}
    if shape.weights:
        kernel = sides(shape.kernel) if shape.kind == "conv" else ()
        size = (shape.cout, shape.cin // shape.groups, *kernel)
        scales = np.full(shape.cout, _WEIGHT_SCALE, np.float32)
        values |= {
            "weight_codes": rng.integers(-127, 128, size).astype(np.int8),
            "weight_scale": scales, "weight_zero": np.zeros(shape.cout, np.int8),
            "bias_codes": np.zeros(shape.cout, np.int32),
            "bias_scale": scales * np.float32(_SCALE), "bias_zero": np.zeros(shape.cout, np.int32),
        }  # fmt: skip
    return [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()]

"""ONNX files, written by PyTorch's exporter from the one graph; NCHW, any batch size.

The int8 file takes and gives uint8 codes. The rewrites below change how the same numbers are
written, so that onnxruntime's optimizer finds integer kernels for every operation.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeres.artifact import storage_errors
from edgeres.errors import BadInput
from edgeres.quiet import quiet
from edgeres.targets import Session, Source, Tracer, _schemes
from edgeres.targets._graph import FileGraph, FileOp, Role
from edgeres.types import QuantParams, TensorSpec

if TYPE_CHECKING:
    import numpy as np

SUMMARY = "ONNX: onnxruntime on servers, PCs, Android, Jetson"
PRECISIONS = ("fp32", "int8")
SUFFIX = ".onnx"
PACKAGE = "onnxruntime"
EXTRA = None
SCHEMES = {"int8": _schemes.as_trained}

_OPSET = 20  # from 21, QuantizeLinear's output_dtype clashes with edited zero points
_ROLES: dict[str, Role] = {
    "QLinearConv": "conv", "Conv": "conv", "FusedConv": "conv", "QGemm": "linear",
    "Gemm": "linear", "MatMul": "linear", "QLinearAdd": "add", "Add": "add",
    "QLinearGlobalAveragePool": "pool", "GlobalAveragePool": "pool", "ReduceMean": "pool",
    "Reshape": "move", "Flatten": "move", "MaxPool": "move", "NhwcMaxPool": "move",
    "Squeeze": "move", "Pad": "move",
    "Transpose": "transpose", "QuantizeLinear": "boundary", "DequantizeLinear": "boundary",
}  # fmt: skip
# operator -> positions of its data inputs; of weight, scale, zero point; of output scale, zero
_INTEGER: dict[str, tuple[tuple[int, ...], tuple[int, int, int] | None, tuple[int, int]]] = {
    "QLinearConv": ((0,), (3, 4, 5), (6, 7)),
    "QGemm": ((0,), (3, 4, 5), (7, 8)),
    "QLinearAdd": ((0, 3), None, (6, 7)),
    "QLinearGlobalAveragePool": ((0,), None, (3, 4)),
}


def export(source: Source, precision: str, path: Path) -> tuple[TensorSpec, TensorSpec]:
    """Write a .onnx file: uint8 input and output for `int8`, float32 for `fp32`."""
    with quiet(f"writing {path.name} with torch.onnx"):
        import onnx
        import torch

        network: Any = source.model
        if precision == "int8":
            from edgeres.compression.graph import quantized_graph

            assert source.scales is not None
            network = quantized_graph(source.model, source.scales, fold_weights=True)
        px = source.model.spec.preprocess.size_px
        program = torch.onnx.export(
            network, (torch.zeros(2, 3, px, px),), dynamo=True, opset_version=_OPSET,
            input_names=["input"], output_names=["logits"], verbose=False,
            dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=65536)},),
        )  # fmt: skip
        assert program is not None
        model = program.model_proto
        from edgeres.targets import _onnx_rewrites as rewrites

        rewrites.strip_provenance(model)
        rewrites.global_average_pool(model)
        if precision == "int8":
            rewrites.drop_no_op_relus(model)
            rewrites.unsigned_activations(model)
            rewrites.integer_io(model)
        for key, value in sorted(source.metadata.items()):
            model.metadata_props.add(key=key, value=value)
        onnx.checker.check_model(model)
        with storage_errors(path):
            path.write_bytes(model.SerializeToString(deterministic=True))
    graph = read(path)
    return graph.input, graph.output


def read(path: Path) -> FileGraph:
    """Read the graph that onnxruntime really executes on this machine's CPU.

    Raises:
        BadInput: not an ONNX file, or one that onnxruntime refuses.
    """
    with quiet(f"reading {path.name}"):
        import onnx
        from google.protobuf.message import DecodeError

        with tempfile.TemporaryDirectory() as folder:
            optimized = Path(folder) / "optimized.onnx"
            try:
                stored = onnx.load(path)
                _inference_session(path, 1, optimized)
                model = onnx.load(optimized)
            except (DecodeError, ValueError) as error:
                raise BadInput(f"{path}: not an ONNX file ({type(error).__name__})") from error
        return _graph(model, stored, onnx)


def session(path: Path, threads: int = 1) -> Session | None:
    """Load the file in onnxruntime on the CPU."""
    with quiet(f"loading {path.name} in onnxruntime"):
        return _Session(_inference_session(path, threads))


def tracer(path: Path) -> Tracer | None:  # noqa: ARG001
    """Not yet."""
    return None


class _Session:
    def __init__(self, session: Any):
        self.session, self.name = session, session.get_inputs()[0].name

    def run(self, images: np.ndarray) -> np.ndarray:
        import numpy as np

        return np.concatenate(
            [self.session.run(None, {self.name: images[i : i + 1]})[0] for i in range(len(images))]
        )


def _inference_session(path: Path, threads: int, optimized: Path | None = None) -> Any:
    import os

    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4
    if optimized:
        options.optimized_model_filepath = str(optimized)
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has no common base for its exceptions
        raise BadInput(f"{path}: onnxruntime can't load it ({str(error)[:200]})") from error


def _graph(model: Any, stored: Any, onnx: Any) -> FileGraph:
    constants = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
    scales = _boundary_scales(stored, onnx)
    codes = {v.name for v in stored.graph.input if v.type.tensor_type.elem_type != 1}
    ops = tuple(_operation(node, constants, scales, codes) for node in model.graph.node)
    first, last = stored.graph.input[0], stored.graph.output[0]
    return FileGraph("onnx", ops, _io(first, scales.get(first.name), onnx),
                     _io(last, scales.get(last.name), onnx), scales)  # fmt: skip


def _boundary_scales(stored: Any, onnx: Any) -> dict[str, QuantParams]:
    """Scales of the tensors that the file itself quantizes or takes as codes."""
    constants = {i.name: onnx.numpy_helper.to_array(i) for i in stored.graph.initializer}
    scales = {}
    for node in stored.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] not in constants:
            scales[node.input[0]] = _params(constants, node.input[1:])
        elif node.op_type == "QuantizeLinear":
            scales[node.output[0]] = _params(constants, node.input[1:])
    return scales


def _operation(
    node: Any, constants: dict[str, Any], scales: dict[str, QuantParams], codes: set[str]
) -> FileOp:
    """One node; adds its output to `scales` and, if integer, to `codes`."""
    kind = node.op_type
    role = _ROLES.get(kind, "other")
    inputs = tuple(i for i in node.input if i and i not in constants)
    name = node.name or node.output[0]
    if kind not in _INTEGER:
        moves = role in ("move", "transpose") and bool(inputs) and inputs[0] in codes
        if moves or kind == "QuantizeLinear":
            codes.add(node.output[0])
        floating = role != "boundary" and not moves
        weight = constants.get(node.input[1]) if role in ("conv", "linear") else None
        return FileOp(kind, role, name, inputs, node.output[0], floating, weight)
    codes.add(node.output[0])
    _, weight_at, output_at = _INTEGER[kind]
    if len(node.input) > output_at[0] and node.input[output_at[0]]:
        ends = [node.input[i] for i in output_at if i < len(node.input)]
        scales[node.output[0]] = _params(constants, ends)
    if weight_at is None:
        return FileOp(kind, role, name, inputs, node.output[0], False)
    weight = constants[node.input[weight_at[0]]]
    transposed = kind == "QGemm" and not any(a.name == "transB" and a.i for a in node.attribute)
    params = _params(constants, [node.input[i] for i in weight_at[1:]], 0)
    return FileOp(kind, role, name, inputs, node.output[0], False,
                  weight.T if transposed else weight, params)  # fmt: skip


def _params(constants: dict[str, Any], names: Any, axis: int | None = None) -> QuantParams:
    scale, zero = constants[names[0]], constants[names[1]]
    values = tuple(float(s) for s in scale.reshape(-1))
    zeros = tuple(int(z) for z in zero.reshape(-1))
    return QuantParams(values, zeros * (len(values) // len(zeros)), str(zero.dtype),
                       axis if len(values) > 1 else None)  # fmt: skip


def _io(value: Any, quantization: QuantParams | None, onnx: Any) -> TensorSpec:
    tensor = value.type.tensor_type
    shape = tuple(d.dim_value or 1 for d in tensor.shape.dim)
    dtype = str(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    layout = "NCHW" if len(shape) == 4 else "NC"
    return TensorSpec(
        value.name, shape, dtype, layout, quantization if dtype != "float32" else None
    )

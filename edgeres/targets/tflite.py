"""TFLite (LiteRT) files, written by litert-torch from the one graph; NHWC, batch 1."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from edgeres.artifact import storage_errors
from edgeres.errors import BadInput
from edgeres.quiet import quiet
from edgeres.targets import Session, Source, Tracer, _schemes
from edgeres.targets._graph import FileGraph, FileOp, Role
from edgeres.types import QuantParams, TensorSpec

if TYPE_CHECKING:
    import numpy as np

SUMMARY = "TensorFlow Lite / LiteRT: Android, Raspberry Pi, microcontrollers"
PRECISIONS = ("fp32", "int8")
SUFFIX = ".tflite"
PACKAGE = "litert_torch"
EXTRA = None
SCHEMES = {"int8": _schemes.as_trained}

_ROLES: dict[str, Role] = {
    "CONV_2D": "conv", "DEPTHWISE_CONV_2D": "conv", "FULLY_CONNECTED": "linear", "ADD": "add",
    "MEAN": "pool", "AVERAGE_POOL_2D": "pool", "PAD": "move", "PADV2": "move", "RESHAPE": "move",
    "MAX_POOL_2D": "move", "TRANSPOSE": "transpose", "QUANTIZE": "boundary",
    "DEQUANTIZE": "boundary",
}  # fmt: skip
_TYPES = {0: "float32", 1: "float16", 2: "int32", 3: "uint8", 4: "int64", 7: "int16", 9: "int8"}
_FLOATING = ("float32", "float16")


def export(source: Source, precision: str, path: Path) -> tuple[TensorSpec, TensorSpec]:
    """Write a .tflite file: int8 input and output for `int8`, float32 for `fp32`."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with quiet(f"writing {path.name} with litert-torch"):
        import litert_torch
        import torch
        from litert_torch.quantize.quant_config import QuantConfig

        px = source.model.spec.preprocess.size_px
        network: Any = source.model
        config = None
        if precision == "int8":
            from edgeres.compression.graph import quantized_graph

            assert source.scales is not None
            network = quantized_graph(source.model, source.scales, fold_weights=False)
            # The converter reads nothing of the quantizer but whether it is dynamic.
            quantizer = SimpleNamespace(global_config=SimpleNamespace(is_dynamic=False))
            config = QuantConfig(pt2e_quantizer=quantizer)
        wrapped = litert_torch.to_channel_last_io(network, args=[0])
        wrapped.training = False
        example = (torch.zeros(1, px, px, 3),)
        converted = litert_torch.convert(wrapped, example, quant_config=config)
        with storage_errors(path):
            converted.export(str(path))
    graph = read(path)
    return graph.input, graph.output


def read(path: Path) -> FileGraph:
    """Read the flatbuffer.

    Raises:
        BadInput: not a TFLite file.
    """
    import numpy as np
    from ai_edge_litert import schema_py_generated as schema

    data = path.read_bytes()
    if data[4:8] != b"TFL3":
        raise BadInput(f"{path}: not a TFLite file (no TFL3 mark); export it again")
    try:
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
        graph = model.subgraphs[0]
        kinds = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
        tensors = [_tensor(i, t, model.buffers, np) for i, t in enumerate(graph.tensors)]
        ops = tuple(
            _operation(kinds[model.operatorCodes[op.opcodeIndex].builtinCode], i, op, tensors)
            for i, op in enumerate(graph.operators)
        )
        scales = {t.name: t.quantization for t in tensors if t.quantization and t.data is None}
        return FileGraph("tflite", ops, _io(tensors[graph.inputs[0]]),
                         _io(tensors[graph.outputs[0]]), scales, _partitions(path))  # fmt: skip
    except BadInput:
        raise
    except Exception as error:  # the flatbuffer reader fails in many ways on damaged bytes
        raise BadInput(f"{path}: a damaged TFLite file ({type(error).__name__})") from error


def session(path: Path, threads: int = 1) -> Session | None:
    """Load the file in the LiteRT interpreter."""
    return _Session(path, threads)


def tracer(path: Path) -> Tracer | None:  # noqa: ARG001
    """Not yet."""
    return None


class _Session:
    def __init__(self, path: Path, threads: int):
        self.interpreter = _interpreter(path, threads)
        self.input = self.interpreter.get_input_details()[0]["index"]
        self.output = self.interpreter.get_output_details()[0]["index"]

    def run(self, images: np.ndarray) -> np.ndarray:
        import numpy as np

        outputs = []
        for image in images:
            self.interpreter.set_tensor(self.input, image[None])
            self.interpreter.invoke()
            outputs.append(self.interpreter.get_tensor(self.output)[0].copy())
        return np.stack(outputs)


def _interpreter(path: Path, threads: int) -> Any:
    with quiet(f"loading {path.name} in LiteRT"):
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(str(path), num_threads=threads)
        interpreter.allocate_tensors()
    return interpreter


def _partitions(path: Path) -> int:
    details = _interpreter(path, 1)._get_ops_details()
    return sum(d["op_name"] == "DELEGATE" for d in details)


def _tensor(index: int, tensor: Any, buffers: list[Any], np: Any) -> Any:
    dtype = _TYPES.get(tensor.type, f"type{tensor.type}")
    raw = buffers[tensor.buffer].data
    shape = tuple(int(v) for v in tensor.shape) if tensor.shape is not None else ()
    data = None
    if raw is not None and len(raw):
        data = np.frombuffer(bytes(raw), dtype=dtype).reshape(shape)
    q = tensor.quantization
    params = None
    if q is not None and q.scale is not None and len(q.scale):
        axis = int(q.quantizedDimension) if len(q.scale) > 1 else None
        zeros = tuple(int(z) for z in q.zeroPoint)
        params = QuantParams(tuple(float(s) for s in q.scale), zeros, dtype, axis)
    # Converters repeat names, and end them in the module that matters; the index is unique.
    name = f"{index}:{tensor.name.decode('utf-8', 'replace').rsplit('.', 1)[-1]}"
    return SimpleNamespace(name=name, dtype=dtype, shape=shape, data=data, quantization=params)


def _operation(kind: str, index: int, op: Any, tensors: list[Any]) -> FileOp:
    role = _ROLES.get(kind, "other")
    inputs = [tensors[i] for i in op.inputs if i >= 0]
    outputs = [tensors[i] for i in op.outputs]
    dynamic = tuple(t.name for t in inputs if t.data is None)
    weight = inputs[1] if role in ("conv", "linear") and len(inputs) > 1 else None
    floating = role != "boundary" and any(t.dtype in _FLOATING for t in (*inputs, *outputs))
    name = f"#{index} {outputs[0].name}"
    if weight is None or weight.data is None:
        return FileOp(kind, role, name, dynamic, outputs[0].name, floating)
    data = weight.data.transpose(0, 3, 1, 2) if weight.data.ndim == 4 else weight.data
    return FileOp(kind, role, name, dynamic, outputs[0].name, floating, data, weight.quantization)


def _io(tensor: Any) -> TensorSpec:
    layout = "NHWC" if len(tensor.shape) == 4 else "NC"
    return TensorSpec(tensor.name, tensor.shape, tensor.dtype, layout, tensor.quantization)

"""Core ML packages, written by coremltools from the one graph; NCHW, batch 1, iOS 17 / macOS 14.

A Core ML int8 model is a program of float operations between quantize and dequantize, which the
device's compiler fuses into integer kernels; `read` fuses them the same way. It runs on Apple's
systems only, so elsewhere there is no session and verification looks at structure and scales.
"""

from __future__ import annotations

import json
import shutil
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeres.errors import BadInput
from edgeres.quiet import quiet
from edgeres.targets import Session, Source, Tracer, _schemes, require
from edgeres.targets._graph import FileGraph, FileOp, Role
from edgeres.types import QuantParams, TensorSpec

if TYPE_CHECKING:
    import numpy as np

SUMMARY = "Core ML: iPhone, iPad, Mac"
PRECISIONS = ("fp16", "int8")
SUFFIX = ".mlpackage"
PACKAGE = "coremltools"
EXTRA = "coreml"
SCHEMES = {"int8": _schemes.as_trained}

_ROLES: dict[str, Role] = {
    "conv": "conv", "linear": "linear", "matmul": "linear", "add": "add", "reduce_mean": "pool",
    "avg_pool": "pool", "relu": "move", "reshape": "move", "squeeze": "move", "max_pool": "move",
    "pad": "move", "transpose": "transpose", "quantize": "boundary", "dequantize": "boundary",
    "cast": "boundary", "constexpr_affine_dequantize": "boundary",
}  # fmt: skip
_PARENT = uuid.UUID("6f0f9d7e-1b0e-4c7e-9d5a-0c4a1d2b3e4f")  # any fixed one makes ids repeatable


def export(source: Source, precision: str, path: Path) -> tuple[TensorSpec, TensorSpec]:
    """Write a .mlpackage: float16 arithmetic for `fp16`, W8A8 for `int8`; float32 input, output."""
    ct = _coremltools()
    with quiet(f"writing {path.name} with coremltools"):
        import torch

        network: Any = source.model
        if precision == "int8":
            from edgeres.compression.graph import quantized_graph

            assert source.scales is not None
            network = quantized_graph(source.model, source.scales, fold_weights=True)
        px = source.model.spec.preprocess.size_px
        example = (torch.zeros(1, 3, px, px),)
        program = torch.export.export(network, example).run_decompositions({})
        package = ct.convert(
            program, minimum_deployment_target=ct.target.iOS17,
            inputs=[ct.TensorType(name="input", shape=example[0].shape)],
            outputs=[ct.TensorType(name="logits")],
            compute_precision=ct.precision.FLOAT16, pass_pipeline=_passes(ct),
        )  # fmt: skip
        for key, value in sorted(source.metadata.items()):
            package.user_defined_metadata[key] = value
        package.save(str(path))
        _repeatable(path, ct)
    graph = read(path)
    return graph.input, graph.output


def read(path: Path) -> FileGraph:
    """Read the package's program, fusing quantize and dequantize as the device's compiler does.

    Raises:
        BadInput: not a Core ML package of an ML program.
        MissingComponent: coremltools is not installed.
    """
    ct = _coremltools()
    model = path / "Data/com.apple.CoreML/model.mlmodel"
    if not model.is_file():
        raise BadInput(f"{path}: not a Core ML package (it has no {model.relative_to(path)})")
    with quiet(f"reading {path.name}"):
        from coremltools.converters.mil.frontend.milproto.load import load
        from google.protobuf.message import DecodeError

        spec = ct.proto.Model_pb2.Model()
        try:
            spec.ParseFromString(model.read_bytes())
        except DecodeError as error:
            raise BadInput(f"{path}: a damaged Core ML package; export it again") from error
        if not spec.HasField("mlProgram"):
            raise BadInput(f"{path}: not an ML program (an older Core ML format); export it again")
        weights = str(path / "Data/com.apple.CoreML/weights")
        program = load(spec, specification_version=spec.specificationVersion,
                       file_weights_dir=weights)  # fmt: skip
    return _graph(program.functions["main"])


def session(path: Path, threads: int = 1) -> Session | None:  # noqa: ARG001
    """Load the package where Core ML exists (macOS); None elsewhere."""
    if sys.platform != "darwin":
        return None
    ct = _coremltools()
    return _Session(ct.models.MLModel(str(path)))


def tracer(path: Path) -> Tracer | None:  # noqa: ARG001
    """Not yet."""
    return None


class _Session:
    def __init__(self, model: Any):
        self.model = model

    def run(self, images: np.ndarray) -> np.ndarray:
        import numpy as np

        return np.concatenate([self.model.predict({"input": i[None]})["logits"] for i in images])


def _coremltools() -> Any:
    require("coreml-int8")
    with quiet("importing coremltools"):
        import coremltools
    return coremltools


def _passes(ct: Any) -> Any:
    """The default passes but one, which divides the scales of a residual add by one of them.

    That is the same sum on paper; in float16 it rounds the trained scales a second time.
    """
    passes = ct.PassPipeline.DEFAULT
    passes.remove_passes({"common::distributive_quantized_binary_op_scale_normalization"})
    return passes


def _repeatable(path: Path, ct: Any) -> None:
    """Replace random ids and unordered maps, so that the same network gives the same bytes."""
    model = path / "Data/com.apple.CoreML/model.mlmodel"
    spec = ct.proto.Model_pb2.Model()
    spec.ParseFromString(model.read_bytes())
    model.write_bytes(spec.SerializeToString(deterministic=True))
    manifest = json.loads((path / "Manifest.json").read_text("utf-8"))
    entries = manifest["itemInfoEntries"]
    renamed = {old: str(uuid.uuid5(_PARENT, entries[old]["path"])).upper() for old in entries}
    manifest["itemInfoEntries"] = {
        renamed[old]: entry for old, entry in sorted(entries.items(), key=lambda e: e[1]["path"])
    }
    manifest["rootModelIdentifier"] = renamed[manifest["rootModelIdentifier"]]
    (path / "Manifest.json").write_text(json.dumps(manifest, indent=4), "utf-8")
    for extra in path.iterdir():  # a debug map of the converter, not part of the package
        if extra.name not in ("Manifest.json", "Data"):
            shutil.rmtree(extra) if extra.is_dir() else extra.unlink()


def _graph(function: Any) -> FileGraph:
    scales: dict[str, QuantParams] = {}
    ops = []
    for op in function.operations:
        if op.op_type == "const":
            continue
        if op.op_type == "quantize":
            scales[op.outputs[0].name] = _params(op)
        ops.append(_operation(op))
    first, last = next(iter(function.inputs.values())), function.outputs[0]
    return FileGraph("coreml", tuple(ops), _io(first), _io(last), scales)


def _operation(op: Any) -> FileOp:
    kind, role = op.op_type, _ROLES.get(op.op_type, "other")
    output = op.outputs[0]
    data = [v for v in (_argument(op, "x"), _argument(op, "y"), _argument(op, "input"))
            if v is not None and v.val is None]  # fmt: skip
    if role in ("boundary", "move", "transpose", "other"):
        names = tuple(v.name for v in data)
        return FileOp(kind, role, output.name, names, output.name, role == "other")
    weight, quantization = _weight(_argument(op, "weight"))
    quantized = _quantized_output(output)
    sources = tuple(_quantized_source(v) for v in data)
    integer = quantized is not None and None not in sources
    integer = integer and (weight is None or quantization is not None)
    inputs = tuple(s or v.name for s, v in zip(sources, data, strict=True))
    return FileOp(kind, role, output.name, inputs, quantized or output.name, not integer,
                  weight, quantization)  # fmt: skip


def _argument(op: Any, name: str) -> Any:
    return op.inputs.get(name)


def _quantized_output(var: Any) -> str | None:
    """The quantize behind a value, through its ReLU: the tensor the fused kernel writes."""
    while len(var.child_ops) == 1 and var.child_ops[0].op_type == "relu":
        var = var.child_ops[0].outputs[0]
    readers = var.child_ops
    return readers[0].outputs[0].name if readers and readers[0].op_type == "quantize" else None


def _quantized_source(var: Any) -> str | None:
    """The codes a value is dequantized from, if it is."""
    while var.op is not None and var.op.op_type in ("reshape", "squeeze"):
        var = var.op.inputs["x"]
    return var.op.inputs["input"].name if var.op and var.op.op_type == "dequantize" else None


def _weight(var: Any) -> tuple[Any, QuantParams | None]:
    if var is None:
        return None, None
    if var.op is None or var.op.op_type != "constexpr_affine_dequantize":
        return var.val, None
    op = var.op
    scale, zero = op.inputs["scale"].val, op.inputs["zero_point"].val
    return op.inputs["quantized_data"].val, _affine(scale, zero, int(op.inputs["axis"].val))


def _params(op: Any) -> QuantParams:
    zero = op.inputs.get("zero_point")
    dtype = str(op.inputs["output_dtype"].val)
    return _affine(op.inputs["scale"].val, zero.val if zero is not None else 0, None, dtype)


def _affine(scale: Any, zero: Any, axis: int | None, dtype: str = "int8") -> QuantParams:
    import numpy as np

    scales = tuple(float(s) for s in np.reshape(scale, -1))
    zeros = np.asarray(zero).reshape(-1)
    values = tuple(int(z) for z in zeros) * (len(scales) // len(zeros))
    return QuantParams(scales, values, dtype, axis if len(scales) > 1 else None)


def _io(var: Any) -> TensorSpec:
    dtype = {"fp32": "float32", "fp16": "float16"}.get(var.dtype.__type_info__().name, "float32")
    shape = tuple(int(d) for d in var.shape)
    return TensorSpec(var.name, shape, dtype, "NCHW" if len(shape) == 4 else "NC")

"""ONNX files for TensorRT (Jetson and other NVIDIA devices); NCHW, any batch, float32 ends.

TensorRT reads ONNX but takes other int8 files than onnxruntime does: codes are int8 around zero
point 0, and biases stay float. It fuses what stands between DequantizeLinear and QuantizeLinear
into integer kernels when it builds an engine on the device; `read` fuses the same way. Here
onnxruntime computes the file as written, quantize by quantize: a reference of its numbers.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from edgeres import children
from edgeres.errors import MissingComponent
from edgeres.network import onnx_file
from edgeres.quiet import quiet
from edgeres.targets import Session, Source, Tracer, _onnx_read, _schemes, onnx
from edgeres.targets import _onnx_structure as structures
from edgeres.targets._graph import FileGraph, FileOp
from edgeres.targets._structure import Structure
from edgeres.types import QuantParams, TensorSpec

if TYPE_CHECKING:
    import numpy as np
    from onnx import ModelProto, NodeProto

SUMMARY = "TensorRT: Jetson, NVIDIA GPUs"
PRECISIONS = ("fp16", "int8")
SUFFIX = ".trt.onnx"
PACKAGE = "onnxruntime"
EXTRA = None  # NVIDIA's own reader (`accepts`) comes with edgeres[tensorrt]
RUNTIME = "onnxruntime"
ANY_BATCH = True
SCHEMES = {"int8": _schemes.symmetric}
beside, whole = onnx.beside, onnx.whole

_READER = "tensorrt_rtx_bindings"
_OPSET = 17  # what TensorRT 8.6 (JetPack 6.0) reads; these operators are the same in 19
_BUILD_SECONDS = 600
_FREE = ("Relu", "Reshape", "Flatten", "Squeeze", "MaxPool", "Identity")  # change no scale


def export(source: Source, precision: str, path: Path) -> tuple[TensorSpec, TensorSpec]:
    """Write a .trt.onnx file: Q/DQ around int8 codes for `int8`, float16 arithmetic for `fp16`."""
    with quiet(f"writing {path.name} with torch.onnx"):
        model = onnx.exported_model(source, precision)
        for used in model.opset_import:
            used.version = _OPSET if used.domain in ("", "ai.onnx") else used.version
        onnx.write(model, source, path)
    graph = read(path)
    return graph.input, graph.output


def read(path: Path) -> FileGraph:
    """Read the file, fusing Q/DQ into integer operations as TensorRT's builder does.

    Raises:
        BadInput: not an ONNX file.
    """
    with quiet(f"reading {path.name}"):
        return _Reader(path).graph()


def structure(path: Path, source: Source, precision: str) -> Structure:  # noqa: ARG001
    """The file as it is stored (`_structure`).

    Raises:
        BadInput: not an ONNX file.
    """
    return structures.structure(path, source, structures.Form({"": (_OPSET,)}, "float32"))


def session(path: Path, threads: int = 1) -> Session | None:
    """Load the file in onnxruntime, which computes it as written (a reference; no TensorRT)."""
    loaded = onnx.session_as_written(path, threads)
    loaded.stand_in = "onnxruntime"
    return loaded


def tracer(path: Path) -> Tracer | None:
    """Load the file as `session` does, with every tensor as an output."""
    with quiet(f"loading {path.name} in onnxruntime"):
        return onnx.tracer_of(path, onnx_file.load(path))


def refusals(path: Path) -> list[str] | None:
    """What NVIDIA's parser and builder refuse in a file; None where they aren't installed."""
    return accepts(path) if importlib.util.find_spec(_READER) else None


def accepts(path: Path) -> list[str]:
    """Ask NVIDIA's ONNX parser and engine builder (TensorRT for RTX), which need no GPU for this.

    They check types, zero points and operators; the kernels they choose are not a Jetson's.

    Returns:
        One sentence for each thing they refuse; empty if an engine was built.

    Raises:
        MissingComponent: they are not installed.
    """
    if importlib.util.find_spec(_READER) is None:
        raise MissingComponent(f"asking TensorRT needs {_READER}: pip install 'edgeres[tensorrt]'")
    command = children.command("edgeres.targets._tensorrt_build", str(path.resolve()))
    try:  # a process of its own: NVIDIA's libraries print, and may crash on a damaged file
        done = subprocess.run(command, capture_output=True, timeout=_BUILD_SECONDS, check=False,
                              cwd=Path(__file__).parents[2])  # fmt: skip
    except subprocess.TimeoutExpired:
        return [f"{path}: TensorRT built no engine in {_BUILD_SECONDS} s"]
    try:
        said = json.loads(done.stdout.decode("utf-8", "replace").splitlines()[-1])
    except (IndexError, ValueError):
        return [f"{path}: TensorRT stopped without an answer (exit {done.returncode})"]
    return [f"{path}: TensorRT refuses it ({sentence})" for sentence in said]


class _Reader:
    """One file's nodes by what they make and who reads it."""

    def __init__(self, path: Path):
        self.path, self.model = path, onnx_file.load(path)
        self.constants = onnx_file.constant_values(self.model)
        self.shapes = onnx_file.shapes(self.model)
        self.makers = {name: n for n in self.model.graph.node for name in n.output if name}
        self.readers: dict[str, list[NodeProto]] = {}
        for node in self.model.graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)

    def graph(self) -> FileGraph:
        nodes = self.model.graph.node
        scales: dict[str, QuantParams] = {}
        for node in nodes:
            found = _onnx_read.params(self.constants, node.input[1:])
            if node.op_type == "QuantizeLinear" and found:
                scales[node.output[0]] = found
        sizes = onnx_file.constant_bytes(self.model)
        ops = tuple(self._operation(node, size) for node, size in zip(nodes, sizes, strict=True)
                    if not self._stored(node))  # fmt: skip
        first, last = onnx_file.inputs(self.model)[0], self.model.graph.output[0]
        return FileGraph(
            "tensorrt", ops, _onnx_read.tensor_spec(self.path, first, scales),
            _onnx_read.tensor_spec(self.path, last, scales), scales,
            metadata=onnx_file.metadata(self.model), requires=_oldest(self.model),
            versions=onnx_file.versions(self.model),
        )  # fmt: skip

    def _stored(self, node: NodeProto) -> bool:
        """A constant, or what a constant is dequantized to."""
        return not any(name for name in node.input if name not in self.constants)

    def _operation(self, node: NodeProto, stored_bytes: int) -> FileOp:
        kind, output = node.op_type, node.output[0]
        role = "move" if kind in _FREE else _onnx_read.ROLES.get(kind, "other")
        data = [n for n in node.input if n and n not in self.constants and not self._weight(n)]
        name = node.name or output
        shape = self.shapes.get(output, ())
        if role in ("boundary", "move", "transpose", "other"):
            return FileOp(kind, role, name, tuple(data), output, role == "other",
                          shape=shape, constant_bytes=stored_bytes)  # fmt: skip
        weight, quantization = None, None
        if role in ("conv", "linear") and len(node.input) > 1:
            weight, quantization = self._layer(node)
        codes = self._quantized(output)
        sources = [self._codes(name) for name in data]
        integer = codes is not None and None not in sources
        integer = integer and (weight is None or quantization is not None)
        inputs = tuple(s or n for s, n in zip(sources, data, strict=True))
        return FileOp(kind, role, name, inputs, codes or output, not integer, weight, quantization,
                      shape, stored_bytes)  # fmt: skip

    def _weight(self, name: str) -> bool:
        maker = self.makers.get(name)
        return maker is not None and self._stored(maker)

    def _layer(self, node: NodeProto) -> tuple[np.ndarray | None, QuantParams | None]:
        """Weight in PyTorch's order, and its scales."""
        name = node.input[1]
        if name in self.constants:
            return _onnx_read.layer_weight(node, self.constants[name]), None
        maker = self.makers.get(name)
        if maker is None or maker.op_type != "DequantizeLinear" or not self._stored(maker):
            return None, None
        stored = [self.constants[n] for n in maker.input if n]
        weight = _onnx_read.layer_weight(node, stored[0])
        found = _onnx_read.params(self.constants, maker.input[1:], 0)
        return weight, found

    def _quantized(self, name: str) -> str | None:
        """The codes that a fused kernel writes: those of the quantize behind it, past a Relu."""
        while len(self.readers.get(name, ())) == 1 and self.readers[name][0].op_type == "Relu":
            name = self.readers[name][0].output[0]
        readers = self.readers.get(name, [])
        quantizes = [n for n in readers if n.op_type == "QuantizeLinear"]
        if quantizes and len(quantizes) == len(readers):
            return str(quantizes[0].output[0])
        return name if self._added(name) else None

    def _added(self, name: str) -> bool:
        """A convolution's sums that only a quantized add reads: TensorRT makes one kernel of both.

        The form that NVIDIA's own tools write; ours quantizes there too.
        """
        maker, readers = self.makers.get(name), self.readers.get(name, [])
        fits = maker is not None and maker.op_type == "Conv" and len(readers) == 1
        return bool(fits and readers[0].op_type == "Add" and self._quantized(readers[0].output[0]))

    def _codes(self, name: str) -> str | None:
        """The codes that a value is dequantized from, if it is."""
        if self._added(name):
            return name
        maker = self.makers.get(name)
        while maker is not None and maker.op_type in _FREE and maker.op_type != "Relu":
            maker = self.makers.get(maker.input[0])
        if maker is None or maker.op_type != "DequantizeLinear":
            return None
        return str(maker.input[0])


def _oldest(model: ModelProto) -> str:
    """TensorRT 8.6 reads operator sets up to 17, but no weights stored as int8."""
    from onnx import TensorProto

    codes = any(i.data_type == TensorProto.INT8 and i.dims for i in model.graph.initializer)
    old = onnx_file.versions(model).get("ai.onnx", 0) <= _OPSET and not codes
    return "TensorRT 8.6" if old else "TensorRT 10"

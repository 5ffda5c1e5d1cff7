"""TFLite (LiteRT) files, written by litert-torch from the one graph; NHWC, batch 1."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

from edgeres.disk import storage_errors
from edgeres.errors import EdgeresError
from edgeres.network import tflite_file as file
from edgeres.quiet import quiet
from edgeres.targets import Session, Source, Tracer, _schemes
from edgeres.targets import _tflite_layer as layer
from edgeres.targets import _tflite_metadata as metadata
from edgeres.targets import _tflite_precisions as precisions
from edgeres.targets import _tflite_rewrites as rewrites
from edgeres.targets._graph import FileGraph
from edgeres.targets._tflite_read import graph_of
from edgeres.targets._tflite_structure import structure as structure
from edgeres.types import TensorSpec

if TYPE_CHECKING:
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter
    from torch import nn

SUMMARY = "LiteRT: Android, Pi, microcontrollers"
PRECISIONS = ("fp32", "fp16", "dynamic", "int8", "int16x8", "int4")
SUFFIX = ".tflite"
PACKAGE = "litert_torch"
EXTRA = None
RUNTIME = "LiteRT"
SCHEMES = {"int8": _schemes.as_trained, "int16x8": _schemes.sixteen_bit,
           "int4": _schemes.as_trained}  # fmt: skip

layer_file = layer.write

# precision -> what makes its file from the float file
_FROM_FLOAT = {"fp16": precisions.half_weights, "dynamic": precisions.integer_weights}


def export(source: Source, precision: str, path: Path) -> tuple[TensorSpec, TensorSpec]:
    """Write a .tflite file.

    Input and output are int8 for `int8` and `int4`, int16 for `int16x8`, else float32.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with quiet(f"writing {path.name} with litert-torch"):
        model = file.unpack(_converted(source, precision))
        rewrites.zero_padding(model)
        if precision == "int16x8":
            precisions.mend_int16(model)
        if source.gpu and precision == "int8":
            rewrites.wide_strided(model)
        if precision == "int4":
            assert source.scales is not None
            precisions.four_bit_weights(model, source.scales)
        if precision in _FROM_FLOAT:
            model = _FROM_FLOAT[precision](file.pack(model))
        rewrites.drop_unused(model)
        metadata.describe(model, source)
        data = metadata.with_labels(file.pack(model), source)
    with storage_errors(path):
        path.write_bytes(data)
    graph = read(path)
    return graph.input, graph.output


def read(path: Path) -> FileGraph:
    """Read the flatbuffer.

    Raises:
        BadInput: not a TFLite file, a damaged one, or not one with one input and one output.
    """
    graph = graph_of(file.load(path.read_bytes(), path), path)
    if graph.delegated:
        return graph
    return dataclasses.replace(graph, partitions=_partitions(path))


def session(path: Path, threads: int = 1) -> Session | None:
    """Load the file in the LiteRT interpreter."""
    return _Session(path, threads)


def tracer(path: Path) -> Tracer | None:
    """Load the file with every tensor as an output, for the same interpreter and delegate.

    Raises:
        BadInput: not a TFLite file, or a damaged one.
    """
    model = file.load(path.read_bytes(), path)
    try:
        tensors = model.subgraphs[0].tensors
        names = {i: file.tensor_name(i, tensors[i]) for i in rewrites.expose(model)}
        data = file.pack(model)
    except Exception as error:  # indices that point nowhere
        raise file.damaged(path, error) from error
    return _Tracer(path, data, names)


def cut(path: Path, tensor: str, out: Path) -> bool:
    """Write the file's beginning, up to a tensor that it computes; False if there is none."""
    model = file.load(path.read_bytes(), path)
    if not rewrites.end_at(model, tensor):
        return False
    with storage_errors(out):
        out.write_bytes(file.pack(model))
    return True


def _converted(source: Source, precision: str) -> bytes:
    import litert_torch
    import torch
    from litert_torch.quantize.quant_config import QuantConfig

    px = source.model.spec.preprocess.size_px
    network: nn.Module = source.model
    config = None
    if source.scales is not None:
        from edgeres.compression.graph import quantized_graph

        network = quantized_graph(source.model, source.scales, fold_weights=False)
        if precision == "int16x8":
            precisions.pad_before_pool(network)
        # The converter reads nothing of the quantizer but whether it is dynamic.
        quantizer = SimpleNamespace(global_config=SimpleNamespace(is_dynamic=False))
        config = QuantConfig(pt2e_quantizer=quantizer)
    wrapped = litert_torch.to_channel_last_io(network, args=[0])
    wrapped.training = False
    example = (torch.zeros(1, px, px, 3),)
    return bytes(litert_torch.convert(wrapped, example, quant_config=config).model_content())


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


class _Tracer:
    def __init__(self, path: Path, data: bytes, names: Mapping[int, str]):
        self.interpreter = _interpreter(path, 1, data)
        self.input = self.interpreter.get_input_details()[0]["index"]
        self.names = names

    def run(self, images: np.ndarray) -> Mapping[str, np.ndarray]:
        import numpy as np

        kept: dict[str, list[np.ndarray]] = {name: [] for name in self.names.values()}
        for image in images:
            self.interpreter.set_tensor(self.input, image[None])
            self.interpreter.invoke()
            for index, name in self.names.items():
                kept[name].append(self.interpreter.get_tensor(index))
        joined = {name: np.concatenate(parts) for name, parts in kept.items()}
        return {n: a.transpose(0, 3, 1, 2) if a.ndim == 4 else a for n, a in joined.items()}


def _interpreter(path: Path, threads: int, data: bytes | None = None) -> Interpreter:
    with quiet(f"loading {path.name} in LiteRT"):
        from ai_edge_litert.interpreter import Interpreter

        file_or_bytes = {"model_path": str(path)} if data is None else {"model_content": data}
        interpreter = Interpreter(**file_or_bytes, num_threads=threads)
        interpreter.allocate_tensors()
    return interpreter


def _partitions(path: Path) -> int | None:
    """How many pieces XNNPACK takes; None for a file that this runtime doesn't take at all."""
    try:
        details = _interpreter(path, 1)._get_ops_details()
    except EdgeresError:
        return None
    return sum(d["op_name"] == "DELEGATE" for d in details)

"""Small real files to measure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from edgeres.disk import file_sha256
from edgeres.measurement.protocol import Candidate
from edgeres.types import TensorSpec


def linear(path: Path, scale: float) -> Path:
    """A file that multiplies its (N, 4) input: the class is the largest input."""
    node = helper.make_node("Mul", ["x", "s"], ["y"])
    graph = helper.make_graph(
        [node], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor("s", TensorProto.FLOAT, [1], [scale])],
    )  # fmt: skip
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return path


def candidate(name: str, path: Path, accuracy: bool = True) -> Candidate:
    inputs = np.eye(4, dtype=np.float32).repeat(3, axis=0)
    labels = inputs.argmax(1)
    labels[0] = 3  # one that the file gets wrong
    spec = TensorSpec("x", (1, 4), "float32", "NC")
    return Candidate(name, path, file_sha256(path), path.stat().st_size, spec, spec, inputs,
                     inputs if accuracy else None,
                     lambda outputs: {"correct": int((outputs.argmax(1) == labels).sum()),
                                      "n": len(labels)})  # fmt: skip

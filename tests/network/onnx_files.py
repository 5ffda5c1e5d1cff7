"""ONNX files made by hand, and by torch.onnx."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

PX = 16


def exported(
    model: nn.Module, path: Path, opset: int | None = None, *, dynamo: bool = False, px: int = PX,
    external: bool = False,
) -> Path:  # fmt: skip
    """As torch.onnx writes it, for any number of images."""
    image = torch.zeros(2, 3, px, px)
    logging.disable(logging.WARNING)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        if dynamo:
            torch.onnx.export(model, (image,), path, dynamo=True, opset_version=opset,
                              dynamic_shapes=({0: torch.export.Dim("n")},), verbose=False,
                              external_data=external)  # fmt: skip
        else:
            torch.onnx.export(model, (image,), path, dynamo=False, opset_version=opset,
                              input_names=["x"], dynamic_axes={"x": {0: "n"}})  # fmt: skip
    logging.disable(logging.NOTSET)
    return path


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.5, shape).astype(np.float32)


Node = tuple[Any, ...]  # kind, inputs, output, and attributes


def written(
    path: Path, nodes: Sequence[Node], tensors: dict[str, np.ndarray], *,
    image: Sequence[int | str] = ("n", 3, PX, PX), classes: int = 5, opset: int = 17,
    kind: int = TensorProto.FLOAT, metadata: dict[str, str] | None = None, change: Any = None,
) -> Path:  # fmt: skip
    """A file of these nodes; the last one makes the output."""
    made = [helper.make_node(n[0], n[1], [n[2]], **(n[3] if len(n) > 3 else {})) for n in nodes]
    graph = helper.make_graph(
        made, "net", [helper.make_tensor_value_info("x", kind, image)],
        [helper.make_tensor_value_info(nodes[-1][2], TensorProto.FLOAT, ["n", classes])],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    helper.set_model_props(model, metadata or {})
    if change is not None:
        change(model)
    path.write_bytes(model.SerializeToString())
    return path


def answers(path: Path, images: torch.Tensor) -> torch.Tensor:
    """What onnxruntime answers, an image at a time."""
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    parts = [session.run(None, {name: image.numpy()})[0] for image in images.split(1)]
    return torch.from_numpy(np.concatenate(parts))


def tail(source: str, channels: int, classes: int = 5) -> tuple[list[Node], dict[str, np.ndarray]]:
    """Mean and linear layer behind a map."""
    nodes = [("GlobalAveragePool", [source], "pooled"), ("Flatten", ["pooled"], "flat"),
             ("Gemm", ["flat", "fc.weight", "fc.bias"], "y", {"transB": 1})]  # fmt: skip
    return nodes, {"fc.weight": numbers(classes, channels), "fc.bias": numbers(classes)}


def load(path: Path) -> Any:
    return onnx.load(path)

"""onnxruntime sessions on the CPU, whose integer kernels add up exactly.

On x86 without VNNI (AMD before Zen 4, Intel before Cascade Lake and Ice Lake), its
kernels for uint8 and int8 add two products in 16 bits and cut what is larger, so that large codes
give other sums. Its option `session.x64quantprecision` writes weights as uint8 there, whose kernels
don't; each weight needs a zero point of its own for that.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgeres.errors import BadInput
from edgeres.network import onnx_file

if TYPE_CHECKING:
    import onnx
    import onnxruntime

OPTION = ("session.x64quantprecision", "1")
CAUTION = (
    "this CPU has no VNNI: onnxruntime was asked with session.x64quantprecision=1, without which "
    "its int8 kernels cut large sums there; an app that runs the file on such a CPU sets it, too"
)
_SHARED = "replace the existing tensor"  # what onnxruntime says of a zero point of two weights


def computing(
    path: Path, model: str | bytes, threads: int = 1,
    settings: Mapping[str, object] | None = None, without: Sequence[str] = (),
) -> onnxruntime.InferenceSession:  # fmt: skip
    """A session that computes.

    Args:
        path: for messages; `model`: its name or contents.
        settings: of SessionOptions; `without`: optimizers to leave out.

    Raises:
        BadInput: onnxruntime refuses it.
    """
    if not saturates():
        return made(path, model, threads, settings, without)
    if settings and _has_integers(_loaded(path, model)):
        # What writes weights so is part of the optimizer. Without it, Q and DQ stay float32.
        settings = {**settings, "graph_optimization_level": _extended()}
    try:
        return made(path, model, threads, settings, without, OPTION)
    except BadInput as error:
        if _SHARED not in str(error.__cause__):
            raise
    stored = _loaded(path, model)
    own_zero_points(stored)
    return made(path, onnx_file.contents(path, stored), threads, settings, without, OPTION)


def made(
    path: Path, model: str | bytes, threads: int, settings: Mapping[str, object] | None,
    without: Sequence[str], *entries: tuple[str, str],
) -> onnxruntime.InferenceSession:  # fmt: skip
    """A session as onnxruntime makes it; arguments and errors as above."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4
    for entry in entries:
        options.add_session_config_entry(*entry)
    for name, value in (settings or {}).items():
        setattr(options, name, value)
    try:
        return onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"], disabled_optimizers=[*without]
        )
    except Exception as error:  # onnxruntime has no common base for its exceptions
        reason = " ".join(str(error).split())[:200]
        raise BadInput(f"{path}: onnxruntime can't load it ({reason})") from error


@functools.cache
def saturates() -> bool:
    """Whether this CPU's kernels cut sums: asked of them, by one that is too large."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    codes = np.full((64, 16), 127, np.int8)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "w"], ["y"])], "sum",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, (4, 64))],
        [helper.make_tensor_value_info("y", TensorProto.INT32, (4, 16))],
        [numpy_helper.from_array(codes, "w")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    session = made(Path("sum.onnx"), model.SerializeToString(), 1, None, ())
    (sums,) = session.run(None, {"x": np.full((4, 64), 255, np.uint8)})
    return bool((sums != 64 * 255 * 127).any())


def own_zero_points(model: onnx.ModelProto) -> None:
    """Give each use of a stored weight a zero point that no other one has; in place.

    So has a weight that is used more than once: onnxruntime names what it makes of them by them,
    once for each node that reads them.
    """
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    _one_reader_each(model.graph, stored)
    seen: set[str] = set()
    for node in model.graph.node:
        places = ZERO_POINTS.get(node.op_type)
        if places is None or len(node.input) <= max(places):
            continue
        if any(node.input[place] not in stored for place in places):
            continue
        for place in places:
            name = node.input[place]
            if name in seen:
                copy = model.graph.initializer.add()
                copy.CopyFrom(stored[name])
                copy.name = node.input[place] = _free(name, stored)
                stored[copy.name] = copy
            seen.add(node.input[place])


def _one_reader_each(graph: onnx.GraphProto, stored: Collection[str]) -> None:
    """Repeat the DequantizeLinear of a stored weight for each further node that reads it."""
    weights = {node.output[0]: node for node in graph.node
               if node.op_type == "DequantizeLinear" and node.input[0] in stored}  # fmt: skip
    names = {name for node in graph.node for name in (node.name, *node.output)}
    seen: set[str] = set()
    nodes = []
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name in weights and name in seen:
                own = type(node)()
                own.CopyFrom(weights[name])
                own.output[0] = node.input[place] = _free(name, names)
                own.name = _free(own.name or name, names | {own.output[0]})
                names |= {own.name, own.output[0]}
                nodes.append(own)
            seen.add(name)
        nodes.append(node)
    if len(nodes) > len(graph.node):
        made = type(graph)()
        made.node.extend(nodes)
        del graph.node[:]
        graph.node.extend(made.node)


def _free(name: str, taken: Collection[str]) -> str:
    return next(free for i in itertools.count(2) if (free := f"{name}_{i}") not in taken)


# Operators, and where they have a weight and its zero point.
ZERO_POINTS = {"DequantizeLinear": (0, 2), "QLinearConv": (3, 5), "QGemm": (3, 5),
                "QLinearMatMul": (3, 5)}  # fmt: skip


def _extended() -> onnxruntime.GraphOptimizationLevel:
    import onnxruntime

    return onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED


def _loaded(path: Path, model: str | bytes) -> onnx.ModelProto:
    import onnx

    return onnx_file.load(path) if isinstance(model, str) else onnx.load_from_string(model)


def _has_integers(model: onnx.ModelProto) -> bool:
    return any(node.op_type in ZERO_POINTS and node.op_type != "DequantizeLinear"
               for node in model.graph.node)  # fmt: skip

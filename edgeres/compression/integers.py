"""The quantized graph as integer kernels compute it: what an integer file has to answer.

A convolution or linear layer multiplies whole numbers: codes less their zero point. Their sums are
exact in float32 below 2**24, in whatever order. A sum is then multiplied once, by input scale *
weight scale / output scale in float32, and rounded half to even, as XNNPACK's `qs8_qc8w` kernels
and onnxruntime's QLinearConv do; so is the sum of a global average pool. The graph of Q/DQ nodes
adds up rounded products instead, which turns a code in some 10,000.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from edgeres.compression.graph import quantized_graph
from edgeres.compression.quantizer import RELU, constant
from edgeres.models.modules import Classifier
from edgeres.types import ScaleTable

_A, _Q = torch.ops.aten, torch.ops.quantized_decomposed
_WEIGHTED = (_A.conv2d.default, _A.linear.default)
_POOL = _A.adaptive_avg_pool2d.default
_SHORT = torch.int8  # whose products a float32 can add up


def integer_graph(model: Classifier, scales: ScaleTable) -> GraphModule:
    """Build it from a folded network and its scales; what is float or 16 bits wide stays.

    Returns:
        A graph module of (N, 3, H, W) float32 -> (N, classes) float32, any N; without gradients.
    """
    graph = quantized_graph(model, scales, fold_weights=True)
    for number, node in enumerate(list(graph.graph.nodes)):
        end = _end(node)
        if end is not None and node.target == _POOL:
            _exchange_pool(graph, node, end)
        elif end is not None:
            _exchange(graph, node, end, f"_integers_{number}")
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def _end(node: Any) -> Node | None:
    """The quantize behind a layer that reads int8 codes and writes them; else None."""
    if node.target not in (*_WEIGHTED, _POOL):
        return None
    x, other = node.args[:2]
    if not _is(x, _Q.dequantize_per_tensor.default) or x.args[5] != _SHORT:
        return None
    whole = node.target == _POOL and list(other) == [1, 1]
    if not whole and not _is(other, _Q.dequantize_per_channel.default):
        return None
    last: Any = node
    while len(last.users) == 1:
        (last,) = last.users
        if last.target not in RELU:
            break
    return last if _is(last, _Q.quantize_per_tensor.default) and last.args[5] == _SHORT else None


def _is(node: object, target: object) -> bool:
    return isinstance(node, Node) and node.target == target


def _exchange(graph: GraphModule, node: Any, end: Any, name: str) -> None:
    """Put an integer kernel where a layer, its ReLU and the quantize behind them were."""
    (read, scale, zero, *_), (stored, per_channel, *_) = node.args[0].args, node.args[1].args
    _, out_scale, out_zero, *_ = end.args
    weight, steps = (constant(graph, n) for n in (stored, per_channel))
    product = torch.tensor(scale) * steps
    factor = (product / torch.tensor(out_scale)).view(-1, *[1] * (weight.ndim - 2))
    bias = node.args[2] if len(node.args) > 2 else None
    constants = {"weight": weight.float(), "factor": factor}
    if bias is not None:
        exact = constant(graph, bias).double() / (steps.double() * scale)
        whole = exact.round()
        if ((exact - whole).abs() > 1e-3 + 1e-6 * whole.abs()).any():
            return  # TensorRT's: scales that were not trained, and a bias in float
        constants["bias"] = whole.float()
    for key, value in constants.items():
        graph.register_buffer(f"{name}_{key}", value)
    with graph.graph.inserting_before(end):
        given = {k: graph.graph.get_attr(f"{name}_{k}") for k in constants}
        values = graph.graph.call_function(_less, (read, zero))
        sums = graph.graph.call_function(
            node.target, (values, given["weight"], given.get("bias"), *node.args[3:])
        )
        codes = graph.graph.call_function(
            _requantized, (sums, given["factor"], out_zero, *_limits(node, end))
        )
    end.replace_all_uses_with(codes)


def _exchange_pool(graph: GraphModule, node: Any, end: Any) -> None:
    """Put an integer kernel where a global average pool and the quantize behind it were."""
    read, scale, zero, *_ = node.args[0].args
    _, out_scale, out_zero, *_ = end.args
    with graph.graph.inserting_before(end):
        codes = graph.graph.call_function(
            _pooled, (read, zero, scale, out_scale, out_zero, *_limits(node, end))
        )
    end.replace_all_uses_with(codes)


def _limits(node: Any, end: Any) -> tuple[int, int]:
    """The lowest and highest code that a layer and what follows it up to a quantize give."""
    _, _, zero, low, high, _ = end.args
    return (low if end.args[0] is node else max(low, zero)), high  # a ReLU ends at zero


def _pooled(
    codes: Tensor, zero: int, scale: float, out_scale: float, out_zero: int, low: int, high: int
) -> Tensor:
    factor = torch.tensor(scale) / (torch.tensor(out_scale) * codes[0, 0].numel())
    sums = _less(codes, zero).sum((2, 3), keepdim=True)
    return _requantized(sums, factor, out_zero, low, high)


def _less(codes: Tensor, zero: int) -> Tensor:
    return codes.float().sub_(zero)


def _requantized(sums: Tensor, factor: Tensor, zero: int, low: int, high: int) -> Tensor:
    return sums.mul_(factor).round_().add_(zero).clamp_(low, high).to(_SHORT)

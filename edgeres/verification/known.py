"""The network as an ordered list of operations: what a file's graph has to be, node for node."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TypedDict

import torch
from torch.fx import Node

from edgeres.compression.graph import bare_graph
from edgeres.compression.quantizer import ACTIVATIONS, CLAMPS, image_input, layers
from edgeres.models.modules import Spec

_A = torch.ops.aten
_RESHAPING = (_A.flatten.using_ints, _A.view.default)
_OPERATIONS = {"norm": "conv", "pool": "mean"}  # a folded norm is a depthwise convolution


@dataclass(frozen=True)
class Known:
    """One operation of the network, in PyTorch's terms.

    Attributes:
        name: as in the scale table; a max pool, which has no scale of its own, is
            `<what it reads>.max_pool`.
        op: `targets._structure.Operation`.
        sources: names of what it reads; the image is `input`.
        coded: the name whose scale its output has.
        relu: a ReLU follows it.
        most: what that cuts off at (6 of a ReLU6). Where its output is quantized its codes end
            there, so that a ReLU will do.
        shape: of its output for one image, (C, H, W) or (C,).
    """

    name: str
    op: str
    sources: tuple[str, ...]
    coded: str
    relu: bool
    shape: tuple[int, ...]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    kernel: tuple[int, int] = (1, 1)
    groups: int = 1
    most: float = math.inf


@functools.lru_cache(maxsize=32)
def operations(spec: Spec) -> tuple[Known, ...]:
    """The operations of a folded network in execution order.

    Raises:
        AssertionError: the network has an operation that has no place here.
    """
    graph = bare_graph(spec)
    by_node = {layer.node: layer for layer in layers(graph)}
    names: dict[Node, str] = {image_input(graph): "input"}
    coded = {"input": "input"}
    found: list[Known] = []
    for node in graph.graph.nodes:
        if node.op != "call_function" or node in names:
            continue
        layer = by_node.get(node)
        if layer is not None:
            op = _OPERATIONS.get(layer.kind, layer.kind)
            sources = tuple(names[data] for data in layer.data)
            relu, most = layer.last.target in ACTIVATIONS, math.inf
            if layer.last.target in CLAMPS:
                limit = _argument(layer.last, 2, 1)
                assert isinstance(limit, (int, float))
                most = float(limit)
            found.append(Known(layer.name, op, sources, layer.name, relu, _shape(node), most=most,
                               **(_convolution(node) if op == "conv" else {})))  # fmt: skip
            names[node] = names[layer.last] = coded[layer.name] = layer.name
        elif node.target == _A.max_pool2d.default:
            source = names[_node(node.args[0])]
            name = f"{source}.max_pool"
            kernel, stride, padding, dilation = (
                _pair(_argument(node, i, default))
                for i, default in ((1, 1), (2, node.args[1]), (3, 0), (4, 1))
            )
            found.append(Known(name, "max_pool", (source,), coded[source], False, _shape(node),
                               stride, padding, dilation, kernel))  # fmt: skip
            names[node], coded[name] = name, coded[source]
        else:
            assert node.target in _RESHAPING, node.target
            names[node] = names[_node(node.args[0])]
    return tuple(found)


class _Geometry(TypedDict, total=False):
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    kernel: tuple[int, int]


def _convolution(node: Node) -> _Geometry:
    groups = _argument(node, 6, 1)
    assert isinstance(groups, int)
    weight = _node(node.args[1]).meta["val"]
    return {
        "stride": _pair(_argument(node, 3, 1)), "padding": _pair(_argument(node, 4, 0)),
        "dilation": _pair(_argument(node, 5, 1)), "groups": groups,
        "kernel": _pair(tuple(weight.shape[2:])),
    }  # fmt: skip


def _argument(node: Node, position: int, default: object) -> object:
    return node.args[position] if len(node.args) > position else default


def _pair(value: object) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    assert isinstance(value, (list, tuple))
    return int(value[0]), int(value[-1])


def _shape(node: Node) -> tuple[int, ...]:
    return tuple(int(size) for size in node.meta["val"].shape[1:])


def _node(argument: object) -> Node:
    assert isinstance(argument, Node)
    return argument

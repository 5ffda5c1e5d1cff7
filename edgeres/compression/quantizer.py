"""Which tensors are quantized and how: annotation of an exported residual network, nothing else.

A `torch.export` graph flows in; the same graph flows out with every convolution (with its batch
norm and ReLU), residual add (with its ReLU), pool and linear layer annotated, so that no float
operator is left between input and output in any runtime. `layers` names the annotated tensors;
these names key the `ScaleTable` and stay the same from training to the exported file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e.quantizer import (
    QuantizationAnnotation,
    QuantizationSpec,
    Quantizer,
    SharedQuantizationSpec,
)

_A = torch.ops.aten
_WEIGHTED = (_A.conv2d.default, _A.linear.default)
_BATCHNORM = (_A.batch_norm.default, _A._native_batch_norm_legit.default)
_RELU = (_A.relu.default, _A.relu_.default)
_ADD = (_A.add.Tensor, _A.add_.Tensor)
_AVERAGE = (_A.adaptive_avg_pool2d.default, _A.mean.dim)
_SHARING = (_A.max_pool2d.default, _A.flatten.using_ints, _A.view.default)
_ANNOTATION = "quantization_annotation"

SpecOf = Callable[[str], QuantizationSpec | None]


@dataclass(frozen=True)
class Layer:
    """One quantized operation.

    Attributes:
        name: key of its output in the scale table, e.g. `layer1.0.conv1` or `layer1.0.add`.
        node: the convolution, linear, add or pool.
        last: the node whose output is quantized (the ReLU after it, if any).
        source: key of the tensor that it reads (the first one of an add).
    """

    name: str
    node: Node
    last: Node
    source: str

    @property
    def weighted(self) -> bool:
        """Whether it has a weight to quantize per output channel."""
        return self.node.target in _WEIGHTED


def layers(graph_module: GraphModule) -> Iterator[Layer]:
    """The operations to quantize, in execution order."""
    names: dict[Node, str] = {}
    for node in graph_module.graph.nodes:
        if node.target in _WEIGHTED:
            name, last = _module(node), _follow(node, *_BATCHNORM) or node
            last = _follow(last, *_RELU) or last
        elif node.target in _ADD and node.meta["val"].dim() == 4:  # not BN's batch counter
            name, last = f"{_module(node)}.add", _follow(node, *_RELU) or node
        elif node.target in _AVERAGE:
            name, last = _module(node), node
        else:
            continue
        names[last] = name
        yield Layer(name, node, last, names.get(_maker(_node(node.args[0])), "input"))


class ResidualQuantizer(Quantizer):
    """Annotates a residual network for static integer arithmetic.

    Args:
        activation: name of a tensor -> its per-tensor specification; None leaves it float.
        weight: name of a weight -> its per-channel symmetric specification (axis 0); None leaves
            the layer float.
    """

    def __init__(self, activation: SpecOf, weight: SpecOf):
        self.activation, self.weight = activation, weight

    def annotate(self, model: GraphModule) -> GraphModule:
        """Mark every quantized edge of `model` (PT2E's protocol)."""
        for layer in layers(model):
            node = layer.node
            output = self.activation(layer.name)
            activations = node.args[:1] if layer.weighted else node.args[:2]
            inputs = {a: self._edge(a) for a in activations if isinstance(a, Node)}
            if layer.weighted:
                weight = self.weight(f"{layer.name}.weight")
                inputs = inputs | {_node(node.args[1]): weight} if weight else {}
            inputs = {edge: spec for edge, spec in inputs.items() if spec is not None}
            _mark(node, inputs, output if layer.last is node else None)
            if layer.last is not node:
                _mark(layer.last, {}, output)
        for node in model.graph.nodes:
            if node.target in _SHARING:  # moves codes, makes none: output codes are input codes
                source = node.args[0]
                if (edge := self._edge(source)) is not None:
                    _mark(node, {source: edge}, SharedQuantizationSpec((source, node)))
        return model

    def _edge(self, source: Node) -> QuantizationSpec | None:
        # An edge carries what its source puts out; the network's input has no such source.
        maker = _maker(source)
        if maker.op == "placeholder":
            return self.activation("input")
        known = maker.meta.get(_ANNOTATION)
        spec = known.output_qspec if known is not None else None
        return spec if isinstance(spec, QuantizationSpec) else None

    def validate(self, model: GraphModule) -> None:
        """Nothing beyond what `annotate` guarantees."""


def _mark(node: Node, inputs: dict[Node, object], output: object) -> None:
    node.meta[_ANNOTATION] = QuantizationAnnotation(
        input_qspec_map=inputs, output_qspec=output, _annotated=True
    )


def _node(argument: object) -> Node:
    assert isinstance(argument, Node)
    return argument


def _maker(node: Node) -> Node:
    """The node that made a tensor's codes, through those that only move them."""
    while node.target in _SHARING:
        node = _node(node.args[0])
    return node


def _follow(node: Node, *targets: object) -> Node | None:
    users = list(node.users)
    return users[0] if len(users) == 1 and users[0].target in targets else None


def _module(node: Node) -> str:
    """The innermost module the node came from: `L__self___layer1_0_conv1` -> `layer1.0.conv1`."""
    stack = node.meta.get("nn_module_stack") or {}
    return list(stack.values())[-1][0] if stack else ""

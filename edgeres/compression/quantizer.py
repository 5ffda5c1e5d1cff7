"""Which tensors are quantized and how: annotation of an exported network, nothing else.

A `torch.export` graph flows in; the same graph flows out with every convolution (with its batch
norm and ReLU), batch norm without one, residual add (with its ReLU), pool, squeeze-and-excitation
and linear layer annotated, so that no float operator is left between input and output in any
runtime. `layers` names the annotated tensors; these names key the `ScaleTable` and stay the same
from training to the exported file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import attrgetter

import torch
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e.quantizer import (
    QuantizationAnnotation,
    QuantizationSpec,
    Quantizer,
    SharedQuantizationSpec,
)

from edgeres.errors import BadInput
from edgeres.types import QuantParams

_A = torch.ops.aten
_BATCHNORM = (_A.batch_norm.default, _A._native_batch_norm_legit.default)
RELU = (_A.relu.default, _A.relu_.default)
CLAMPS = (_A.hardtanh.default, _A.hardtanh_.default)
ACTIVATIONS = RELU + CLAMPS
_KINDS = {
    _A.conv2d.default: "conv", _A.linear.default: "linear", _A.add.Tensor: "add",
    _A.add_.Tensor: "add", _A.mul.Tensor: "mul", _A.sigmoid.default: "sigmoid",
    _A.adaptive_avg_pool2d.default: "pool", _A.mean.dim: "pool", _A.avg_pool2d.default: "pool",
    _A.cat.default: "concat", **dict.fromkeys(_BATCHNORM, "norm"),
}  # fmt: skip
_JOINING = ("add", "mul")
_ENDLESS = ("mul", "sigmoid", "concat")  # with no ReLU of their own behind them
_MOVING = (_A.max_pool2d.default, _A.flatten.using_ints, _A.view.default)
# The only codes that TFLite computes a sigmoid into.
SIGMOID = {"int8": QuantParams((2.0**-8,), (-128,), "int8"),
            "int16": QuantParams((2.0**-15,), (0,), "int16")}  # fmt: skip
_ANNOTATION = "quantization_annotation"

SpecOf = Callable[[str], QuantizationSpec | None]


@dataclass(frozen=True)
class Layer:
    """One quantized operation.

    Attributes:
        name: key of its output in the scale table, e.g. `layer1.0.conv1` or `layer1.0.add`.
        kind: conv, linear, norm (a batch norm that no convolution stands before), add, mul,
            sigmoid, pool or concat (whose output has the scale of what it joins, see
            `graph.concatenated`).
        node: the operation itself.
        last: the node whose output is quantized (the ReLU after it, if any).
        sources: keys of the tensors that it reads.
    """

    name: str
    kind: str
    node: Node
    last: Node
    sources: tuple[str, ...]

    @property
    def weighted(self) -> bool:
        """Whether it has a weight to quantize per output channel."""
        return self.kind in ("conv", "linear")

    @property
    def source(self) -> str:
        """Key of the tensor that it reads (the first one of an add)."""
        return self.sources[0]

    def fixed(self, dtype: str) -> QuantParams | None:
        """The only scale that every runtime accepts for its output of this type, if it has one."""
        return SIGMOID[dtype] if self.kind == "sigmoid" else None

    @property
    def data(self) -> tuple[Node, ...]:
        """The tensors that it reads, weights left out."""
        return _read(self.node, self.kind)


def image_input(graph_module: GraphModule) -> Node:
    """The node of the network's one input, the tensor `input` of a `ScaleTable`."""
    (found,) = graph_module.graph.find_nodes(op="placeholder")
    return found


def layers(graph_module: GraphModule) -> Iterator[Layer]:
    """The operations to quantize, in execution order."""
    names: dict[Node, str] = {}
    taken: set[Node] = set()
    for node in graph_module.graph.nodes:
        kind = _KINDS.get(node.target)
        if kind is None or node in taken or (kind in _JOINING and not _joins_maps(node)):
            continue
        normed = (_follow(node, *_BATCHNORM) if kind == "conv" else None) or node
        taken.add(normed)
        last = (_follow(normed, *ACTIVATIONS) if kind not in _ENDLESS else None) or normed
        while apart := _follow(last, _A.neg.default):  # see `graph.quantized_graph`
            last = apart
        name = _module(node)
        if kind in (*_JOINING, "concat") and not _stands_alone(node):
            name = f"{name}.{kind}"
        names[last] = name
        makers = map(_maker, _read(node, kind))
        # What no layer makes stays float, under a name that no tensor of a table has.
        sources = tuple("input" if m.op == "placeholder" else names.get(m, f"({m.name})")
                        for m in makers)  # fmt: skip
        yield Layer(name, kind, node, last, sources)


class ResidualQuantizer(Quantizer):
    """Annotates a network for static integer arithmetic.

    Args:
        activation: name of a tensor -> its per-tensor specification; None leaves it float.
        weight: name of a weight -> its per-channel symmetric specification (axis 0); None leaves
            the layer float.
    """

    def __init__(self, activation: SpecOf, weight: SpecOf):
        self.activation, self.weight = activation, weight

    def annotate(self, model: GraphModule) -> GraphModule:
        """Mark every quantized edge of `model` (PT2E's protocol).

        Raises:
            BadInput: an operation that computes with images isn't known; it is named.
        """
        known: set[Node | None] = set()
        for layer in layers(model):
            node = layer.node
            inputs: dict[Node, object] = {a: self._edge(a) for a in layer.data}
            if layer.weighted:
                weight = self.weight(f"{layer.name}.weight")
                inputs = inputs | {_node(node.args[1]): weight} if weight else {}
            inputs = {edge: spec for edge, spec in inputs.items() if spec is not None}
            output = self.activation(layer.name)
            _mark(node, inputs, output if layer.last is node else None)
            if layer.last is not node:
                _mark(layer.last, {}, output)
            known |= {node, layer.last, _follow(node, *_BATCHNORM)}
        for node in model.graph.nodes:
            if node.target in _MOVING:  # moves codes, makes none: output codes are input codes
                source = node.args[0]
                if (edge := self._edge(source)) is not None:
                    _mark(node, {source: edge}, SharedQuantizationSpec((source, node)))
            elif node.op == "call_function" and node not in known and self._reads_codes(node):
                raise BadInput(
                    f"the quantizer doesn't know the operation {node.target} in "
                    f"'{_module(node) or 'the network'}', which would stay in float; let the "
                    "layers before and after it stay float too (quantize.exclude), or replace it"
                )
        return model

    def _reads_codes(self, node: Node) -> bool:
        """Whether a node computes with something quantized."""
        return _is_map(node) and any(
            self._edge(a) is not None for a in node.all_input_nodes if _is_map(a)
        )

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


def constant(graph_module: GraphModule, node: Node) -> torch.Tensor:
    """The parameter or buffer that a `get_attr` node reads."""
    value: torch.Tensor = attrgetter(str(node.target))(graph_module)
    return value.detach()


def _mark(node: Node, inputs: dict[Node, object], output: object) -> None:
    node.meta[_ANNOTATION] = QuantizationAnnotation(
        input_qspec_map=inputs, output_qspec=output, _annotated=True
    )


def _node(argument: object) -> Node:
    assert isinstance(argument, Node)
    return argument


def _read(node: Node, kind: str) -> tuple[Node, ...]:
    """The tensors that an operation of a kind reads, weights left out."""
    read = node.args[0] if kind == "concat" else node.args[: 2 if kind in _JOINING else 1]
    assert isinstance(read, list | tuple)
    return tuple(map(_node, read))


def _is_map(node: Node) -> bool:
    """Whether a node's value is a batch of feature maps or vectors."""
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.is_floating_point() and value.dim() > 1


def _joins_maps(node: Node) -> bool:
    """Not so for batch norm's counter, or a number that is added."""
    return _is_map(node) and all(isinstance(a, Node) for a in node.args[:2])


def _maker(node: Node) -> Node:
    """The node that made a tensor's codes, through those that only move them."""
    while node.target in _MOVING:
        node = _node(node.args[0])
    return node


def _follow(node: Node, *targets: object) -> Node | None:
    users = list(node.users)
    return users[0] if len(users) == 1 and users[0].target in targets else None


def _stands_alone(node: Node) -> bool:
    """Whether an operation is the whole of its module, whose name it has."""
    stack = node.meta.get("nn_module_stack") or {}
    kind = list(stack.values())[-1][1] if stack else ""
    name = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
    return name.startswith("edgeres.network.ops.")


def _module(node: Node) -> str:
    """The innermost module the node came from: `L__self___layer1_0_conv1` -> `layer1.0.conv1`."""
    stack = node.meta.get("nn_module_stack") or {}
    return list(stack.values())[-1][0] if stack else ""

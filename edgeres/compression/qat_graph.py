"""The network as QAT trains it: an exported graph in, two graphs over the same parameters out.

One has batch norm as it is, on convolutions whose weights are rounded as their folded selves will
be. The other has it folded into them, as inference does: for evaluation, and for training once
batch statistics are frozen, when it is cheaper too. Both quantize what `quantizer.layers` names.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node

from edgeres.compression import fake_quant, portable
from edgeres.compression.exclusions import Kept
from edgeres.compression.fake_quant import Range, Ratio
from edgeres.compression.graph import export_program
from edgeres.compression.quantizer import ACTIVATIONS, RELU, Layer, image_input, layers
from edgeres.models.modules import Classifier

_A = torch.ops.aten
_BATCHNORM = (_A.batch_norm.default, _A._native_batch_norm_legit.default)
_RANGES, _RATIOS = "ranges", "ratios"


class QatNetwork(nn.Module):
    """(N, 3, H, W) -> (N, classes), with fake quantization.

    Args:
        kept: what stays float.
        make: (name of a tensor, whether a ReLU is before it) -> its fake quantization.
        four: layers whose weights have 4 bits.

    Attributes:
        program: holds the parameters under the network's own names, and `ranges`.
        folded: whether batch norm is in the weights now.
    """

    def __init__(
        self, model: Classifier, kept: Kept, make: Callable[[str, bool], Range],
        four: Collection[str] = (),
    ):  # fmt: skip
        super().__init__()
        self.program: GraphModule = export_program(model.train()).module()
        self.program.add_module(_RANGES, nn.ModuleDict())
        self.program.add_module(_RATIOS, nn.Module())
        # Kept out of the registry: they share every parameter with `program`.
        graphs = [_rewritten(self.program, kept, make, four, fold) for fold in (False, True)]
        self._forms = tuple(GraphModule(self.program, graph) for graph in graphs)
        self.folded = False

    @property
    def ranges(self) -> list[Range]:
        """Fake quantization of each activation."""
        return list(self.program.get_submodule(_RANGES).children())  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Normalized images -> logits."""
        answer: Tensor = self._forms[self.folded](x)
        return answer

    def _apply(self, fn: Callable[..., Tensor], recurse: bool = True) -> QatNetwork:
        """Change all tensors, to another device for instance, and share them again."""
        super()._apply(fn, recurse)
        for form in self._forms:
            for name, _ in list(form.named_parameters()):
                _own(form, name)._parameters[_leaf(name)] = self.program.get_parameter(name)
            for name, _ in list(form.named_buffers()):
                _own(form, name)._buffers[_leaf(name)] = self.program.get_buffer(name)
        return self


def _own(module: nn.Module, name: str) -> nn.Module:
    """The part of a module that has a tensor of this name."""
    return module.get_submodule(name.rpartition(".")[0])


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]


def _rewritten(
    program: GraphModule, kept: Kept, make: Callable[[str, bool], Range], four: Collection[str],
    fold: bool,
) -> Graph:  # fmt: skip
    """A copy of the program's graph with fake quantization where the quantizer wants it."""
    work = GraphModule(program, copy.deepcopy(program.graph))
    graph = work.graph
    for node in graph.find_nodes(op="call_module", target="_guards_fn"):
        graph.erase_node(node)
    found = list(layers(work))
    ranges = program.get_submodule(_RANGES)
    work.add_module(_RANGES, ranges)
    work.add_module(_RATIOS, program.get_submodule(_RATIOS))
    _quantize_after(graph, image_input(work), "input", ranges, make)
    for layer in found:
        if layer.name not in kept.tensors:
            made = _quantize_after(graph, layer.last, layer.name, ranges, make)
            made.fixed = layer.fixed("int16" if made.scheme == "w8a16" else "int8")
            made.apart = layer.kind == "sigmoid"  # its gradient is computed from its answer
    for layer in found:
        if layer.weighted:
            ratio = _ratio(graph, layer, ranges, program.get_submodule(_RATIOS))
            kind = "int4" if layer.name in four else "int8"
            _weigh(graph, layer.node, fold, None if layer.name in kept.layers else kind, ratio)
    for node in list(graph.nodes):
        if fold and node.target in _BATCHNORM:  # one that stands alone
            node.update_arg(5, False)
        if fold and node.target == _A.add_.Tensor and node.meta["val"].dim() == 0:
            graph.erase_node(node)  # batch norm's counter
    graph.eliminate_dead_code()
    graph.lint()
    return graph


def _quantize_after(
    graph: Graph, node: Node, name: str, ranges: nn.Module, make: Callable[[str, bool], Range]
) -> Range:
    relu = node.target in RELU  # which fake quantization computes, too
    key = name.replace(".", "_")
    if not hasattr(ranges, key):
        ranges.add_module(key, make(name, node.target in ACTIVATIONS))
    with graph.inserting_after(node):
        new = graph.call_module(f"{_RANGES}.{key}", ())
    node.replace_all_uses_with(new)
    new.args = (node.args[0] if relu else node,)
    if relu:
        graph.erase_node(node)
    made: Range = getattr(ranges, key)
    return made


def _ratio(graph: Graph, layer: Layer, ranges: nn.Module, ratios: nn.Module) -> Node | None:
    """What the layer's weights are rounded by, if the scheme asks for it."""
    keys = [name.replace(".", "_") for name in (layer.source, layer.name)]
    read, written = (getattr(ranges, key, None) for key in keys)
    if not (isinstance(read, Range) and isinstance(written, Range)):
        return None
    if written.scheme != portable.SCHEME:
        return None
    if not hasattr(ratios, keys[1]):
        ratios.add_module(keys[1], Ratio(read, written))
    with graph.inserting_before(layer.node):
        return graph.call_module(f"{_RATIOS}.{keys[1]}", ())


def _weigh(graph: Graph, node: Node, fold: bool, kind: str | None, ratio: Node | None) -> None:
    """Round a layer's weight to codes of a kind, if any; fold the batch norm after it."""
    x, weight, *rest = node.args
    after = list(node.users)
    bn = after[0] if len(after) == 1 and after[0].target in _BATCHNORM else None
    with graph.inserting_before(node):
        if bn is not None and fold:
            _, gamma, beta, mean, variance, _, _, eps, *_ = bn.args
            bias = rest[0] if rest else None
            statistics = (bias, gamma, beta, mean, variance, eps)
            rest = [graph.call_function(fake_quant.folded_bias, statistics), *rest[1:]]
            weight = graph.call_function(fake_quant.folded_weight, (weight, gamma, variance, eps))
        if kind and bn is not None and not fold:
            _, gamma, _, _, variance, _, _, eps, *_ = bn.args
            known = (weight, gamma, variance, eps, ratio, kind)
            weight = graph.call_function(fake_quant.unfolded_weight, known)
        elif kind:
            weight = graph.call_function(fake_quant.plain_weight, (weight, ratio, kind))
    node.args = (x, weight, *rest)
    if bn is not None and fold:
        bn.replace_all_uses_with(node)
        graph.erase_node(bn)

"""The PyTorch module of a network: every operation a submodule at its dotted name.

So its `state_dict` has the keys that the network's own authors gave, and `torch.export` and the
converters see an ordinary module.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeres.errors import BadInput
from edgeres.network.graph import INPUT, Network, Node
from edgeres.network.ops import OPS


class NetworkModule(nn.Module):
    """(N, 3, H, W) normalized images -> (N, classes) logits.

    Args:
        spec: the network; its weights are fresh ones, from the global generator.

    Raises:
        BadInput: an operation's numbers don't fit together, or its name is none for a module.
    """

    def __init__(self, spec: Network):
        super().__init__()
        self.spec = spec
        last = {source: number for number, node in enumerate(spec.nodes) for source in node.inputs}
        self._steps = []
        for number, node in enumerate(spec.nodes):
            made = _made(node)
            _put(self, node.name, made)
            over = [s for s in dict.fromkeys(node.inputs) if last[s] == number and s != spec.output]
            self._steps.append((node.name, made, node.inputs, over))

    def forward(self, x: Tensor) -> Tensor:
        """What is read no more is let go."""
        values = {INPUT: x}
        for name, module, inputs, over in self._steps:
            values[name] = module(*[values[source] for source in inputs])
            for source in over:
                del values[source]
        return values[self.spec.output]


def _made(node: Node) -> nn.Module:
    try:
        return OPS[node.op].module(node)
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadInput(f"'{node.name}' ({node.op}): {said}") from error


def _put(root: nn.Module, name: str, module: nn.Module) -> None:
    owner = root
    *path, last = name.split(".")
    try:
        for part in path:
            if part not in owner._modules:
                owner.add_module(part, nn.Module())
            owner = getattr(owner, part)
        owner.add_module(last, module)
    except KeyError as error:
        raise BadInput(f"'{name[:80]}' can't be the name of an operation") from error


@torch.no_grad()
def initialize(model: NetworkModule) -> None:
    """He (fan out) convolutions, from the global generator; the rest is as PyTorch makes it."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.weight.requires_grad:
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def present(model: NetworkModule) -> Network:
    """The network with the widths that its modules have now, whatever was cut out of them."""
    nodes = []
    for node in model.spec.nodes:
        module = model.get_submodule(node.name)
        if isinstance(module, nn.Conv2d):
            node = node.changed(**{"in": module.in_channels, "out": module.out_channels,
                                   "groups": module.groups})  # fmt: skip
        elif isinstance(module, nn.Linear):
            node = node.changed(**{"in": module.in_features, "out": module.out_features})
        elif isinstance(module, nn.BatchNorm2d):
            node = node.changed(features=module.num_features)
        nodes.append(node)
    return model.spec.with_nodes(tuple(nodes))

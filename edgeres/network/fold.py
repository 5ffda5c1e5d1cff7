"""A network without batch norm and average pools, as integer kernels want it: the same function.

A batch norm goes into the convolution or linear layer before it. Where that isn't possible, as its
input is needed as it is, it becomes a depthwise 1x1 convolution: one weight per channel is exact in
int8. An average pool becomes a depthwise convolution of fixed weights, whose codes are exact:
XNNPACK takes no int8 average pool, so that TFLite would run the network in pieces.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeres.network.graph import INPUT, Network, Node, Value, width
from edgeres.network.module import NetworkModule


@torch.no_grad()
def folded(model: NetworkModule) -> NetworkModule:
    """In evaluation mode; the model is left as it was."""
    network, into = _structure(model.spec, channels_of(model.spec))
    state = {k: v.detach().clone() for k, v in model.state_dict().items()}
    for name, target in into.items():
        norm = model.get_submodule(name)
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None and norm.running_var is not None
        own = torch.ones(norm.num_features, 1, 1, 1, dtype=norm.running_mean.dtype)
        weight, bias = nn.utils.fusion.fuse_conv_bn_weights(
            own if target == name else state[f"{target}.weight"], state.get(f"{target}.bias")
            if target != name else None, norm.running_mean, norm.running_var, norm.eps,
            norm.weight, norm.bias,
        )  # fmt: skip
        state[f"{target}.weight"], state[f"{target}.bias"] = weight.detach(), bias.detach()
    made = NetworkModule(network).eval()
    state |= _pools(model.spec, made)
    made.load_state_dict({k: state[k] for k in made.state_dict()})
    return made


def _structure(network: Network, channels: dict[str, int]) -> tuple[Network, dict[str, str]]:
    """The folded graph, and which layer each batch norm goes into (its own name: it becomes one)"""
    users, by_name = network.users(), network.by_name
    nodes: dict[str, Node] = {}
    instead: dict[str, str] = {}
    into: dict[str, str] = {}
    for node in network.nodes:
        inputs = tuple(instead.get(name, name) for name in node.inputs)
        if node.op == "batch_norm":
            before = by_name.get(node.inputs[0])
            if before is not None and before.op == "conv2d" and len(users[before.name]) == 1:
                nodes[before.name] = nodes[before.name].changed(bias=True)
                instead[node.name] = into[node.name] = before.name
                continue
            into[node.name] = node.name
            node = depthwise(node, node.number("features"), (1, 1), (1, 1), bias=True)
        elif node.op == "avg_pool":
            size = node.pair("kernel_size")
            node = depthwise(node, channels[node.name], size, node.pair("stride"), bias=False)
        nodes[node.name] = Node(node.name, node.op, inputs, node.attributes)
    output = instead.get(network.output, network.output)
    return network.with_nodes(tuple(nodes.values()), output), into


def depthwise(
    node: Node, channels: int, kernel: tuple[int, int], stride: tuple[int, int], *, bias: bool
) -> Node:
    """A convolution of each channel by itself in an operation's place, trained if it has a bias."""
    values: dict[str, Value] = {
        "in": channels, "out": channels, "kernel": kernel, "stride": stride, "padding": (0, 0),
        "dilation": (1, 1), "groups": channels, "bias": bias, "trained": bias,
    }  # fmt: skip
    return Node.of(node.name, "conv2d", node.inputs, **values)


def channels_of(network: Network) -> dict[str, int]:
    """How many channels each value has."""
    found = {INPUT: 3}
    for node in network.nodes:
        found[node.name] = width(node, found)
    return found


def _pools(network: Network, folded: NetworkModule) -> dict[str, Tensor]:
    """The weights that average pools become."""
    found = {}
    for node in network.nodes:
        if node.op == "avg_pool":
            height, width = node.pair("kernel_size")
            weight = folded.get_parameter(f"{node.name}.weight")
            found[f"{node.name}.weight"] = torch.full_like(weight, 1 / (height * width))
    return found

"""Which channels go together: a network's graph in, groups of coupled channels out.

Each channel is followed from the layer that makes it to all that read it. Channels that are added
or multiplied, that a depthwise convolution reads and writes, that a slice or a shuffle moves, are
removed together; so are those in the same place of each group of a grouped convolution.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from edgeres.compression.portable import as_network
from edgeres.models.modules import Classifier, Spec, module_of
from edgeres.network.graph import INPUT, Network, Node, picks

Side = Literal["out", "in", "norm"]
Layer = nn.Conv2d | nn.Linear | nn.BatchNorm2d


@dataclass(frozen=True)
class Share:
    """What a layer has of a group's channels.

    Attributes:
        name, layer: the module.
        side: "out": it makes them, "in": it reads them, "norm": a batch norm of them.
        channels: of the layer, int64 (K,).
        places: number of each in the group, int64 (K,).
    """

    name: str
    layer: Layer
    side: Side
    channels: Tensor
    places: Tensor

    @property
    def depthwise(self) -> bool:
        """Whether it is a convolution of each channel by itself."""
        return isinstance(self.layer, nn.Conv2d) and _depthwise(self.layer)


@dataclass(frozen=True)
class Group:
    """Channels of one kind, any of which may go.

    Attributes:
        size: how many there are; each may be several channels of a layer.
        width: of the layer that makes them: its channels in this group.
        shares: of every layer; first one that makes them.
    """

    size: int
    width: int
    shares: tuple[Share, ...]

    @property
    def writers(self) -> tuple[Share, ...]:
        """The convolutions and linear layers that make the channels."""
        return tuple(s for s in self.shares if s.side == "out")

    def spare(self, order: Sequence[int]) -> int:
        """How many of the first in an order may go, so that every layer keeps a channel."""
        position = torch.empty(self.size, dtype=torch.long)
        position[list(order)] = torch.arange(self.size)
        return min(int(position[share.places].max()) for share in self.shares)

    def summed(self, numbers: Callable[[Share], Tensor | None]) -> Tensor:
        """(size,): of each channel, what its layers' channels have, added up.

        Args:
            numbers: a share -> a number for each of its channels; None: none.
        """
        total = torch.zeros(self.size)
        for share in self.shares:
            if (found := numbers(share)) is not None:
                total.index_add_(0, share.places, found.detach().float().cpu())
        return total


class _Sets:
    """Channels by number; those of one set go together."""

    def __init__(self) -> None:
        self.parents: list[int] = []

    def new(self, count: int) -> list[int]:
        """So many channels more, each by itself."""
        first = len(self.parents)
        self.parents.extend(range(first, first + count))
        return self.parents[first:]

    def find(self, channel: int) -> int:
        """What stands for its set."""
        while (parent := self.parents[channel]) != channel:
            self.parents[channel] = channel = self.parents[parent]
        return channel

    def join(self, first: int, second: int) -> None:
        """Make one set of two."""
        self.parents[self.find(second)] = self.find(first)


def groups_of(model: Classifier) -> list[Group]:
    """The groups of a network, in the order of its layers; those of its image and answer aside."""
    network = _graph(model.spec)
    layers = dict(model.named_modules())
    sets = _Sets()
    fixed = sets.new(3)
    values: dict[str, list[int]] = {INPUT: fixed[:]}
    makers: set[str] = set()
    touched: list[tuple[str, Side, int, int]] = []  # layer, side, its channel, the set's
    for node in network.nodes:
        read, before = [values[name] for name in node.inputs], len(sets.parents)
        made = _followed(node, read, layers.get(node.name), sets, fixed)
        makers |= {node.name} if len(sets.parents) > before else set()
        if node.op in ("conv2d", "linear"):
            touched += [(node.name, "out", c, at) for c, at in enumerate(made)]
            touched += [(node.name, "in", c, at) for c, at in enumerate(read[0])]
        elif node.op == "batch_norm":
            touched += [(node.name, "norm", c, at) for c, at in enumerate(made)]
        values[node.name] = made
    kept = {sets.find(channel) for channel in (*fixed, *values[network.output])}
    together: dict[int, list[tuple[str, Side, int]]] = defaultdict(list)
    for name, side, channel, at in touched:
        if (root := sets.find(at)) not in kept:
            together[root].append((name, side, channel))
    alike: dict[tuple[str, ...], list[list[tuple[str, Side, int]]]] = defaultdict(list)
    for members in together.values():
        made_by = [name for name, side, _ in members if side == "out" and name in makers]
        alike[tuple(sorted(made_by))].append(members)
    return [_group(made_by[0], members, layers) for made_by, members in alike.items()]


@functools.lru_cache(maxsize=32)
def _graph(spec: Spec) -> Network:
    return spec if isinstance(spec, Network) else as_network(module_of(spec)).spec


def _followed(
    node: Node, read: list[list[int]], layer: nn.Module | None, sets: _Sets, fixed: list[int]
) -> list[int]:
    """The channels that an operation makes."""
    if node.op == "concat":
        return [channel for part in read for channel in part]
    if node.op in ("add", "mul"):
        first, second = sorted(read, key=len, reverse=True)
        if len(first) == len(second):
            for pair in zip(first, second, strict=True):
                sets.join(*pair)
        else:  # a gate of one channel, which all others need
            fixed += second
        return first
    if node.op not in ("conv2d", "linear"):
        return read[0]
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    out = len(layer.weight)
    if isinstance(layer, nn.Linear):
        return sets.new(out)
    if _depthwise(layer):
        return [read[0][channel * layer.groups // out] for channel in range(out)]
    if picks(node) and bool((layer.weight.count_nonzero(1) == 1).all()):
        return [read[0][channel] for channel in layer.weight.flatten(1).argmax(1).tolist()]
    made = sets.new(out)
    for channels in (read[0], made):
        run = len(channels) // layer.groups
        for place, channel in enumerate(channels[run:]):
            sets.join(channels[place % run], channel)
    return made


def _depthwise(conv: nn.Conv2d) -> bool:
    return conv.groups == conv.in_channels > 1


def _group(
    maker: str, members: list[list[tuple[str, Side, int]]], layers: Mapping[str, nn.Module]
) -> Group:
    found: dict[tuple[str, Side], list[tuple[int, int]]] = {(maker, "out"): []}
    for place, channels in enumerate(members):
        for name, side, channel in channels:
            found.setdefault((name, side), []).append((channel, place))
    shares = []
    for (name, side), pairs in found.items():
        layer = layers[name]
        assert isinstance(layer, nn.Conv2d | nn.Linear | nn.BatchNorm2d)
        channels, places = torch.tensor(sorted(pairs)).T
        shares.append(Share(name, layer, side, channels, places))
    return Group(len(members), len(shares[0].channels), tuple(shares))


@torch.no_grad()
def cut(chosen: Sequence[tuple[Group, Sequence[int]]]) -> None:
    """Take channels out of a network's layers, in place.

    Args:
        chosen: all groups that lose some, and which of their channels.
    """
    gone: dict[tuple[str, Side], list[Tensor]] = defaultdict(list)
    layers: dict[str, Layer] = {}
    for group, places in chosen:
        for share in group.shares:
            away = torch.isin(share.places, torch.tensor(places, dtype=torch.long))
            gone[share.name, share.side].append(share.channels[away])
            layers[share.name] = share.layer
    for name, layer in layers.items():
        out, read, norm = (
            torch.cat([*gone.get((name, side), ()), torch.empty(0, dtype=torch.long)])
            for side in ("out", "in", "norm")
        )
        if isinstance(layer, nn.BatchNorm2d):
            _cut_norm(layer, _left(layer.num_features, norm))
        else:
            _cut_layer(layer, _left(len(layer.weight), out), read)


def _left(count: int, gone: Tensor) -> Tensor:
    kept = torch.ones(count, dtype=torch.bool)
    kept[gone] = False
    return kept.nonzero().flatten()


def _cut_norm(norm: nn.BatchNorm2d, kept: Tensor) -> None:
    norm.num_features = len(kept)
    for name in ("weight", "bias"):
        _exchange(norm, name, getattr(norm, name)[kept])
    for name in ("running_mean", "running_var"):
        setattr(norm, name, getattr(norm, name)[kept])


def _cut_layer(layer: nn.Conv2d | nn.Linear, kept: Tensor, gone: Tensor) -> None:
    """Args: outputs that are kept, inputs that go."""
    weight = layer.weight[kept]
    if isinstance(layer, nn.Linear):
        weight = weight[:, _left(layer.in_features, gone)]
        layer.out_features, layer.in_features = weight.shape
    else:
        left = _left(layer.in_channels, gone)
        if _depthwise(layer):
            layer.groups = len(left)
        else:  # every group of a grouped one loses the same
            width = layer.in_channels // layer.groups
            weight = weight[:, left[left < width]]
        layer.out_channels, layer.in_channels = len(kept), len(left)
    _exchange(layer, "weight", weight)
    if layer.bias is not None:
        _exchange(layer, "bias", layer.bias[kept])


def _exchange(module: nn.Module, name: str, value: Tensor) -> None:
    was = getattr(module, name)
    setattr(module, name, nn.Parameter(value.clone(), requires_grad=was.requires_grad))

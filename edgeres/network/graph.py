"""The value itself: operations by name, each with what it reads; no tensors, no PyTorch.

It is hashable, so that what follows from a network alone (its layers, its cost) is found once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from edgeres.errors import BadInput
from edgeres.types import Preprocess

INPUT = "input"
"""What the first operations read: the image, (N, 3, H, W)."""

Value = bool | int | float | tuple[int, ...]
_MOVING = ("flatten", "dropout", "max_pool", "avg_pool", "global_avg_pool", "relu", "clamp")


@dataclass(frozen=True)
class Node:
    """One operation.

    Attributes:
        name: dotted, as a module's; its tensors are `<name>.weight` and so on.
        op: a key of `ops.OPS`.
        inputs: names of the nodes it reads; `input` is the image.
        attributes: as its row of the table has them, in order of their names.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    attributes: tuple[tuple[str, Value], ...] = ()

    @classmethod
    def of(cls, name: str, op: str, inputs: tuple[str, ...], **attributes: Value) -> Node:
        """With the attributes in order."""
        return cls(name, op, inputs, tuple(sorted(attributes.items())))

    @property
    def values(self) -> dict[str, Value]:
        """The attributes by name."""
        return dict(self.attributes)

    def number(self, key: str) -> int:
        """An attribute that is a whole number."""
        value = self.values[key]
        assert isinstance(value, int)
        return value

    def real(self, key: str) -> float:
        """An attribute that is a number."""
        value = self.values[key]
        assert isinstance(value, int | float)
        return float(value)

    def pair(self, key: str) -> tuple[int, int]:
        """An attribute with a value for height and width."""
        value = self.values[key]
        assert isinstance(value, tuple) and len(value) == 2
        return value[0], value[1]

    def changed(self, **attributes: Value) -> Node:
        """With some attributes of other values."""
        return Node.of(self.name, self.op, self.inputs, **{**self.values, **attributes})


@dataclass(frozen=True)
class Network:
    """A convolutional network of one image and one vector of logits.

    Attributes:
        name: for people and file names.
        nodes: in an order in which they can run.
        output: the node whose value are the logits, (N, classes).
        preprocess: what its images are fed with.
    """

    name: str
    nodes: tuple[Node, ...]
    output: str
    classes: int
    preprocess: Preprocess

    @property
    def by_name(self) -> Mapping[str, Node]:
        """Every node."""
        return {node.name: node for node in self.nodes}

    @property
    def folded(self) -> bool:
        """Whether no batch norm is left."""
        return not any(node.op == "batch_norm" for node in self.nodes)

    @property
    def head(self) -> str:
        """The layer that makes the logits: the last with weights.

        Raises:
            BadInput: something else makes them.
        """
        by_name, at = self.by_name, self.output
        while at in by_name:
            node = by_name[at]
            if node.op in ("linear", "conv2d"):
                return at
            if node.op not in _MOVING:
                break
            at = node.inputs[0]
        raise BadInput(f"{self.name}: its answers don't come from a linear layer or a convolution")

    @property
    def stem(self) -> str:
        """The convolution that reads the image.

        Raises:
            BadInput: there isn't exactly one, or something else reads the image.
        """
        readers = [node for node in self.nodes if INPUT in node.inputs]
        if len(readers) != 1 or readers[0].op != "conv2d":
            raise BadInput(f"{self.name}: its image is read by something else than one convolution")
        return readers[0].name

    def with_node(self, name: str, **attributes: Value) -> Network:
        """With some attributes of one operation of other values."""
        return self.with_nodes(tuple(node.changed(**attributes) if node.name == name else node
                                     for node in self.nodes))  # fmt: skip

    def with_nodes(self, nodes: tuple[Node, ...], output: str | None = None) -> Network:
        """With other operations."""
        return dataclasses.replace(self, nodes=nodes, output=output or self.output)

    def users(self) -> dict[str, list[str]]:
        """Which nodes read each value; the output is read by ''."""
        found: dict[str, list[str]] = {name: [] for name in (INPUT, *self.by_name)}
        for node in self.nodes:
            for source in node.inputs:
                found[source].append(node.name)
        found[self.output].append("")
        return found


def picks(node: Node) -> bool:
    """Whether it is a 1x1 convolution of zeros and ones, which an importer puts in place of slices
    and shuffles (`_walk.Walk.pick`)."""
    v = node.values
    return (node.op == "conv2d" and not v["trained"] and not v["bias"]
            and (v["groups"], v["kernel"]) == (1, (1, 1)))  # fmt: skip


def width(node: Node, channels: Mapping[str, int]) -> int:
    """How many channels an operation makes.

    Args:
        channels: of what it reads, by name.
    """
    read = [channels[name] for name in node.inputs]
    if node.op in ("conv2d", "linear"):
        return node.number("out")
    if node.op == "concat":
        return sum(read)
    return max(read) if node.op == "mul" else read[0]  # a gate may have one channel


def united(sets: Iterable[Iterable[str]]) -> tuple[frozenset[str], ...]:
    """Sets that have something in common become one."""
    found: list[frozenset[str]] = []
    for names in map(frozenset, sets):
        common = [known for known in found if known & names]
        found = [known for known in found if not known & names] + [names.union(*common)]
    return tuple(found)

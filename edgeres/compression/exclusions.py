"""Which layers stay float: regular expressions in, the tensors that are quantized out.

A layer that stays float keeps its weight and computes in float. Its output is quantized only where
a quantized layer reads it. The network's input and output are always quantized, so that a file
takes and gives the same codes whatever is inside.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch.fx import Node

from edgeres.compression.graph import export_program
from edgeres.compression.quantizer import Layer, layers
from edgeres.errors import BadInput, nearest
from edgeres.models.modules import Classifier


@dataclass(frozen=True)
class Kept:
    """What stays float.

    Attributes:
        layers: names of layers that compute in float.
        tensors: names of activations that are not quantized.
    """

    layers: frozenset[str] = frozenset()
    tensors: frozenset[str] = frozenset()


def kept_float(model: Classifier, patterns: Sequence[str]) -> Kept:
    """The layers that the expressions match, in whole, and the tensors that stay float by that.

    Raises:
        BadInput: not a regular expression; one that matches no layer; the layer that reads the
            images; a linear layer; an add or a pool whose inputs and output are all quantized:
            runtimes compute both in integers.
    """
    if not patterns:
        return Kept()
    found = list(layers(export_program(model.eval()).module()))
    names = [layer.name for layer in found]
    chosen = frozenset(n for p in patterns for n in matched(p, names, "quantize.exclude"))
    readers = _readers(found)
    floats = frozenset(n for n in chosen if readers[n] and readers[n] <= chosen)
    for layer in found:
        if layer.name in chosen and "input" in layer.sources:
            raise BadInput(
                f"quantize.exclude: {layer.name} can't stay float: it reads the images, which "
                "integer files take as codes; exclude layers behind it"
            )
        if layer.name in chosen and layer.kind == "linear":
            raise BadInput(
                f"quantize.exclude: {layer.name} can't stay float: runtimes round the weights of a "
                "linear layer between integer tensors by themselves; exclude convolutions"
            )
        feeds = [n for n, users in readers.items() if layer.name in users]
        if layer.name in chosen - floats and not layer.weighted and floats.isdisjoint(feeds):
            raise BadInput(
                f"quantize.exclude: {layer.name} can't stay float between quantized layers; "
                f"exclude {' and '.join(feeds)} too, or leave {layer.name} out"
            )
    return Kept(chosen, floats)


def matched(pattern: str, names: Sequence[str], key: str) -> list[str]:
    """The names that a regular expression matches, in whole.

    Raises:
        BadInput: none, or it isn't one; `key` is the recipe's that has it.
    """
    try:
        found = [name for name in names if re.fullmatch(pattern, name)]
    except re.error as error:
        raise BadInput(f"{key}: '{pattern}' is no regular expression ({error})") from error
    if not found:
        near = nearest(pattern.replace("\\", ""), names)
        raise BadInput(f"{key}: no layer matches '{pattern}'{near}; the layers are {_few(names)}")
    return found


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" … {names[-1]}" if len(names) > 4 else "")


def _readers(found: Iterable[Layer]) -> dict[str, frozenset[str]]:
    """Layer -> the layers that read its output; none for the network's last."""
    made = {layer.last: layer.name for layer in found}
    readers: dict[str, set[str]] = {name: set() for name in made.values()}
    for layer in found:
        for argument in layer.data:
            for name in _makers(argument, made):
                readers[name].add(layer.name)
    return {name: frozenset(users) for name, users in readers.items()}


def _makers(node: Node, made: dict[Node, str]) -> list[str]:
    """The layers that a tensor comes from, through what isn't quantized by itself."""
    if node in made:
        return [made[node]]
    return [name for before in node.all_input_nodes for name in _makers(before, made)]

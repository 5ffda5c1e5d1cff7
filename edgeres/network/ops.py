"""What a network may be made of: one row per operation; nothing else lists them.

A row says what an operation's attributes are, how many values it reads, and its PyTorch module.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgeres.network.graph import Node

LARGEST = 65_536
"""Of any width, kernel or number of features."""


@dataclass(frozen=True)
class Op:
    """One kind of operation.

    Attributes:
        reads: how many values; None: one or more.
        attributes: name -> "size" (1 to `LARGEST`), "pair" (of sizes), "pad" (a pair from 0),
            "share" (a number between 0 and 1), "number" (above 0), "flag".
        module: makes its PyTorch module of fresh weights.
    """

    reads: int | None
    attributes: dict[str, str]
    module: Callable[[Node], nn.Module]


class Add(nn.Module):
    """The sum of two maps of one shape."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Element by element."""
        return x + y


class Mul(nn.Module):
    """The product of two maps; one of them may have a single pixel, or a single channel."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Element by element."""
        return x * y


class Concat(nn.Module):
    """Maps of one height and width, the channels of one behind those of another."""

    def forward(self, *maps: Tensor) -> Tensor:
        """(N, C, H, W) each."""
        return torch.cat(maps, 1)


class Unflatten(nn.Module):
    """A vector as a map of one pixel."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C) -> (N, C, 1, 1)."""
        return x.view(-1, x.shape[1], 1, 1)


def _conv(node: Node) -> nn.Module:
    v: dict[str, Any] = node.values
    conv = nn.Conv2d(v["in"], v["out"], v["kernel"], v["stride"], v["padding"], v["dilation"],
                     v["groups"], v["bias"])  # fmt: skip
    conv.requires_grad_(bool(v["trained"]))
    return conv


def _norm(node: Node) -> nn.Module:
    return nn.BatchNorm2d(node.number("features"), **_some(node, "eps", "momentum"))


def _some(node: Node, *keys: str) -> Any:
    return {key: node.values[key] for key in keys}


def _plain(kind: Callable[..., nn.Module], **fixed: object) -> Callable[[Node], nn.Module]:
    return lambda node: kind(**fixed, **node.values)


OPS: dict[str, Op] = {
    "conv2d": Op(1, {"in": "size", "out": "size", "kernel": "pair", "stride": "pair",
                     "padding": "pad", "dilation": "pair", "groups": "size", "bias": "flag",
                     "trained": "flag"}, _conv),
    "linear": Op(1, {"in": "size", "out": "size", "bias": "flag"},
                 lambda n: nn.Linear(n.number("in"), n.number("out"), bool(n.values["bias"]))),
    "batch_norm": Op(1, {"features": "size", "eps": "share", "momentum": "share"}, _norm),
    "relu": Op(1, {}, _plain(nn.ReLU)),
    "clamp": Op(1, {"most": "number"}, lambda n: nn.Hardtanh(0.0, n.real("most"))),  # from 0
    "sigmoid": Op(1, {}, _plain(nn.Sigmoid)),
    "add": Op(2, {}, _plain(Add)),
    "mul": Op(2, {}, _plain(Mul)),
    "concat": Op(None, {}, _plain(Concat)),
    "max_pool": Op(1, {"kernel_size": "pair", "stride": "pair", "padding": "pad",
                       "dilation": "pair"}, _plain(nn.MaxPool2d)),
    "avg_pool": Op(1, {"kernel_size": "pair", "stride": "pair"}, _plain(nn.AvgPool2d)),
    "global_avg_pool": Op(1, {}, _plain(nn.AdaptiveAvgPool2d, output_size=1)),
    "unflatten": Op(1, {}, _plain(Unflatten)),
    "flatten": Op(1, {}, _plain(nn.Flatten, start_dim=1)),
}  # fmt: skip

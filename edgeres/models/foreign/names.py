"""How others name a ResNet's tensors, as a table, and their names in torchvision's words."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

Rule = tuple[str, str]


@dataclass(frozen=True)
class Naming:
    """One way of naming.

    Attributes:
        who: writes such names.
        stem: the first convolution's weight, behind any prefix.
        block: another name that must be there, behind the same prefix.
        rules: pattern and replacement, in order, of what is behind the prefix.
    """

    who: str
    stem: str
    block: str
    rules: tuple[Rule, ...] = ()


_HUGGING = r"encoder\.stages\.(\d+)\.layers\.(\d+)\."
NAMINGS = (
    Naming(
        "torchvision, timm, mmpretrain, akamaster, kuangliu", "conv1.weight", "layer1.0.",
        ((r"\.shortcut\.", ".downsample."), (r"^(linear|classifier|head|last_linear)\.", "fc.")),
    ),
    Naming(
        "Hugging Face", "embedder.embedder.convolution.weight", "encoder.stages.0.",
        ((r"^embedder\.embedder\.convolution\.", "conv1."),
         (r"^embedder\.embedder\.normalization\.", "bn1."),
         (_HUGGING + r"shortcut\.convolution\.", r"layer{\1}.\2.downsample.0."),
         (_HUGGING + r"shortcut\.normalization\.", r"layer{\1}.\2.downsample.1."),
         (_HUGGING + r"layer\.(\d+)\.convolution\.", r"layer{\1}.\2.conv{\3}."),
         (_HUGGING + r"layer\.(\d+)\.normalization\.", r"layer{\1}.\2.bn{\3}.")),
    ),
    Naming(
        "weiaicunzai", "conv1.0.weight", "conv2_x.0.",
        ((r"^conv1\.0\.", "conv1."), (r"^conv1\.1\.", "bn1."),
         (r"^conv2_x\.", "layer1."), (r"^conv3_x\.", "layer2."),
         (r"^conv4_x\.", "layer3."), (r"^conv5_x\.", "layer4."),
         (r"\.shortcut\.", ".downsample."),
         (r"\.residual_function\.0\.", ".conv1."), (r"\.residual_function\.1\.", ".bn1."),
         (r"\.residual_function\.3\.", ".conv2."), (r"\.residual_function\.4\.", ".bn2."),
         (r"\.residual_function\.6\.", ".conv3."), (r"\.residual_function\.7\.", ".bn3.")),
    ),
    Naming(
        "fastai, a Sequential of the children", "0.weight", "4.0.conv1.",
        ((r"^0\.", "conv1."), (r"^1\.", "bn1."), (r"^4\.", "layer1."), (r"^5\.", "layer2."),
         (r"^6\.", "layer3."), (r"^7\.", "layer4."), (r"^9\.", "fc.")),
    ),
)  # fmt: skip
"""A new way of naming is a row here (and one in docs/teachers.md)."""

OURS = re.compile(r"^(conv1|bn1|bn|fc|layer\d+)\.")
"""The modules of our network."""


def networks(names: Iterable[str]) -> list[tuple[str, Naming]]:
    """The prefixes below which a network lies, each with its naming, in the file's order."""
    names = list(names)
    found = []
    for naming in NAMINGS:
        blocks = {name.partition(naming.block)[0] for name in names if naming.block in name}
        stems = (n.removesuffix(naming.stem) for n in names if n.endswith(naming.stem))
        found += [(prefix, naming) for prefix in stems
                  if prefix in blocks and (not prefix or prefix.endswith("."))]  # fmt: skip
    return found


def renamed(name: str, naming: Naming) -> str:
    """A name behind its prefix in torchvision's words."""
    for pattern, replacement in naming.rules:
        name = re.sub(pattern, replacement, name)
    return re.sub(r"\{(\d+)\}", lambda m: str(int(m[1]) + 1), name)  # counted from 0 by others

"""Architectures as values: a name such as `resnet18-w0.5` in, a `ModelSpec` (plain numbers) out.

A `ModelSpec` holds every layer's width, so a pruned network is described as exactly as a fresh one
and travels as JSON beside plain tensors; nothing ever needs a pickled module.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from edgeres.errors import BadInput, unknown
from edgeres.models import _values
from edgeres.models._values import Block, ModelSpec, Shortcut, Stem
from edgeres.network.graph import Network
from edgeres.types import Preprocess

__all__ = ["Block", "ModelSpec", "Shortcut", "Stem", "default_preprocess", "from_json", "names",
           "parse", "to_json"]  # fmt: skip

# He et al. 2015, table 1; 10, 14, 26 and 200 as timm builds them
_IMAGENET = {
    10: ("basic", (1, 1, 1, 1)),
    14: ("bottleneck", (1, 1, 1, 1)),
    18: ("basic", (2, 2, 2, 2)),
    26: ("bottleneck", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
    152: ("bottleneck", (3, 8, 36, 3)),
    200: ("bottleneck", (3, 24, 36, 3)),
}
_HEADS = (
    r"(?P<kind>(se)?resnet)(?P<depth>\d+)",
    r"(?P<kind>(se)?resnext)(?P<depth>\d+)-(?P<groups>\d+)x(?P<each>\d+)d",
    r"(?P<kind>wrn)-(?P<depth>\d+)-(?P<wide>\d+)",
    r"(?P<kind>wide-resnet)(?P<depth>\d+)-(?P<wide>\d+)",
)
_TAIL = r"(?P<tail>(-(A|D|se|preact|mobile|[wd]\d+(\.\d+)?))*)"
_SMALL_IMAGE_PX = 64  # up to here a stride-4 stem would leave too few pixels
_DEEPEST = 2000


@dataclass(frozen=True)
class _Choice:
    """What a name asks for; `base` is the width of the first stage, `deep` the blocks of each."""

    name: str
    basic: bool
    deep: tuple[int, ...]
    base: int
    shortcut: Shortcut = "projection"
    width: float = 1.0
    wide: int = 1
    groups: int = 1
    each: int = 0  # channels of a group in the first stage
    se: bool = False
    preact: bool = False
    mobile: bool = False


def to_json(spec: ModelSpec | Network) -> dict[str, object]:
    """The JSON form of a network; `from_json` reads it back equal."""
    if isinstance(spec, ModelSpec):
        return _values.to_json(spec)
    from edgeres.network import document

    return document.to_json(spec)


def from_json(data: dict[str, object]) -> ModelSpec | Network:
    """Read a network back, of this schema or an older one.

    Raises:
        BadInput: the document is not a network of a known schema.
    """
    if not isinstance(data, dict) or data.get("family") != "graph":
        return _values.from_json(data)
    from edgeres.network import document

    return document.from_json(data)


def names() -> tuple[str, ...]:
    """Architectures a recipe can name, at least one of each kind; see `parse` for the others."""
    return (
        *(f"resnet{d}" for d in (8, 20, 32, 44, 56, 110, *_IMAGENET)),
        "resnet20-A", "resnet20-mobile", "resnet20-preact", "resnet20-se", "resnet26-w0.75-se",
        "resnet50-D", "resnet50-se", "resnext29-8x64d", "resnext50-32x4d", "resnext101-32x8d",
        "wide-resnet50-2", "wrn-16-4", "wrn-28-10", "wrn-40-2",
    )  # fmt: skip


def default_preprocess(size_px: int) -> Preprocess:
    """The preprocessing of networks trained here: int8 input = pixel - 128, exactly."""
    return Preprocess(size_px, (128 / 255,), (64 / 255,))


def parse(name: str, classes: int, preprocess: Preprocess, stem: Stem | None = None) -> ModelSpec:
    """Turn a name into numbers.

    Args:
        name: one of these, torchvision's underscores and timm's `se` in front included:
            `resnet<depth>`: torchvision's and timm's for depths 10, 14, 18, 26, 34, 50, 101, 152
            and 200 (26 is bottleneck 2, 2, 2, 2), else He et al.'s for CIFAR, depth 6 n + 2;
            `resnext<depth>-<groups>x<width>d` (Xie et al. 2017): depths of bottleneck ResNets, or
            9 n + 2 for CIFAR; `wrn-<depth>-<widening>`, pre-activated, depth 6 n + 4 (Zagoruyko
            and Komodakis 2016); `wide-resnet<depth>-<widening>`, wide inside its bottlenecks.
            Then, each at most once and in any order: `-w0.5` multiplies every width (rounded to 8
            channels), `-d2` the number of blocks of each stage (rounded up); `-se` adds
            squeeze-and-excitation (Hu et al. 2018); `-preact` puts batch norm and ReLU first;
            `-mobile` makes 3x3 convolutions depthwise-separable; `-A` gives CIFAR nets
            parameter-free shortcuts, `-D` average-pools in shortcuts instead of striding.
        classes: outputs of the last layer.
        preprocess: what the network is fed with; the stem follows the image size.
        stem: the one that given weights have, whatever the image size.

    Raises:
        BadInput: the name is not in the family, or a multiplier is out of range.
    """
    choice, cifar = _choice(name)
    if stem is None:
        stem = "small" if cifar or preprocess.size_px <= _SMALL_IMAGE_PX else "imagenet"
    if choice.shortcut == "pooled":
        _require_even(choice, preprocess.size_px // (1 if stem == "small" else 4))
    stem_width = channels = _scaled(choice.base, choice.width)
    stages = []
    for number, count in enumerate(choice.deep):
        stage = _stage(choice, number, count, channels)
        channels = stage[-1].widths[-1]
        stages.append(stage)
    return ModelSpec(name, stem, stem_width, tuple(stages), classes, preprocess,
                     preact=choice.preact)  # fmt: skip


def _choice(name: str) -> tuple[_Choice, bool]:
    """What a name asks for, and whether it is one of the nets for small images."""
    plain = name.replace("_", "-")
    match = next((m for head in _HEADS if (m := re.fullmatch(head + _TAIL, plain))), None)
    if match is None or int(match["depth"]) > _DEEPEST:
        raise unknown("model", name, names())
    found, tail = match.groupdict(), match["tail"].split("-")[1:]
    kind = found["kind"].removeprefix("se")
    factor = {part[0]: float(part[1:]) for part in tail if part[1:2].isdigit()}
    words = {part for part in tail if not part[1:2].isdigit()}
    words |= {"se"} if found["kind"].startswith("se") else set()
    if len(factor) + len(words) < len(tail):
        raise BadInput(f"model '{name}': says something twice")
    shape = _shape(kind, int(match["depth"]))
    if shape is None:
        raise unknown("model", name, names())
    basic, deep, base = shape
    _require_sense(name, kind, basic, base, words, factor)
    deep = tuple(max(1, math.ceil(n * factor.get("d", 1) - 1e-9)) for n in deep)
    shortcut: Shortcut = "subsample" if "A" in words else "pooled" if "D" in words else "projection"
    choice = _Choice(
        name, basic, deep, base, shortcut, factor.get("w", 1), int(found.get("wide") or 1),
        int(found.get("groups") or 1), int(found.get("each") or 0), "se" in words,
        "preact" in words or kind == "wrn", "mobile" in words,
    )  # fmt: skip
    if not 1 <= choice.wide <= 64 or not 1 <= choice.groups <= 1024 or choice.each > 1024:
        raise BadInput(f"model '{name}': its widening or its groups are out of range")
    if kind == "resnext" and not choice.each:
        raise BadInput(f"model '{name}': a group needs at least 1 channel")
    return choice, len(deep) == 3


def _shape(kind: str, depth: int) -> tuple[bool, tuple[int, ...], int] | None:
    """Basic blocks or bottlenecks, blocks per stage, width of the stem; None if there is none."""
    if kind == "wrn":
        n = (depth - 4) // 6
        return (True, (n, n, n), 16) if n and depth == 6 * n + 4 else None
    if depth in _IMAGENET:
        block, deep = _IMAGENET[depth]
        return (block == "basic", deep, 64) if kind == "resnet" or block != "basic" else None
    per_block, base = (6, 16) if kind == "resnet" else (9, 64)
    n = (depth - 2) // per_block
    if kind == "wide-resnet" or n < 1 or depth != per_block * n + 2:
        return None
    return kind == "resnet", (n, n, n), base


def _require_sense(
    name: str, kind: str, basic: bool, base: int, words: set[str], factor: dict[str, float]
) -> None:
    """Refuse options that don't exist for a kind of net, or each other."""
    if not all(0.05 <= f <= 8 for f in factor.values()):
        what = "width" if "w" in factor and not 0.05 <= factor["w"] <= 8 else "depth"
        raise BadInput(f"model '{name}': the {what} multiplier must be between 0.05 and 8")
    if "A" in words and (base != 16 or kind == "wrn"):
        raise BadInput(
            f"model '{name}': option A shortcuts exist for the CIFAR nets only; drop '-A'"
        )
    if words >= {"A", "D"}:
        raise BadInput(f"model '{name}': a shortcut is '-A' or '-D', not both")
    if "mobile" in words and not basic:
        raise BadInput(f"model '{name}': '-mobile' exists for nets of basic blocks (depths 10, 18, "
                       "34 and 6 n + 2); drop it, or name a resnext")  # fmt: skip


def _require_even(choice: _Choice, pixels: int) -> None:
    for _ in choice.deep[1:]:
        if pixels % 2:
            raise BadInput(
                f"model '{choice.name}': '-D' halves the image once per stage, and {pixels} "
                f"pixels can't be halved; change data.size or drop '-D'"
            )
        pixels //= 2


def _stage(choice: _Choice, number: int, count: int, channels: int) -> tuple[Block, ...]:
    stride = 1 if number == 0 else 2
    planes = choice.base * 2**number
    if choice.basic:
        width = _scaled(planes * choice.wide, choice.width)
        widths: tuple[int, ...] = (width, width)
    else:
        inner = _scaled(planes * choice.wide, choice.width)
        if choice.each:
            inner = choice.groups * max(1, round(choice.each * 2**number * choice.width))
        width = _scaled(4 * planes, choice.width)
        widths = (inner, inner, width)
    squeeze = max(8, (width // 16 + 4) // 8 * 8) if choice.se else 0  # as timm rounds it
    blocks = []
    for i in range(count):
        first = i == 0 and (stride != 1 or channels != width)
        own = (channels, width, width, width) if choice.mobile else widths
        # Without a stride there is nothing to pool.
        shortcut: Shortcut = "projection" if stride == 1 else choice.shortcut
        shortcut = "subsample" if choice.shortcut == "subsample" else shortcut
        blocks.append(Block(own, stride if i == 0 else 1, shortcut if first else "identity",
                            choice.groups, squeeze))  # fmt: skip
        channels = width
    return tuple(blocks)


def _scaled(width: int, multiplier: float) -> int:
    return width if multiplier == 1 else max(8, round(width * multiplier / 8) * 8)

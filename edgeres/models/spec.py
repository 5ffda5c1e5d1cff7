"""Architectures as values: a name such as `resnet18-w0.5` in, a `ModelSpec` (plain numbers) out.

A `ModelSpec` holds every layer's width, so a pruned network is described as exactly as a fresh one
and travels as JSON beside plain tensors; nothing ever needs a pickled module.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Any, Literal

from edgeres.errors import BadInput, unknown
from edgeres.types import Preprocess

Shortcut = Literal["identity", "projection", "subsample"]

_IMAGENET = {
    18: ("basic", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
    152: ("bottleneck", (3, 8, 36, 3)),
}
_CIFAR = (8, 20, 32, 44, 56, 110)  # depth = 6 n + 2, He et al. 2015 section 4.2
_NAME = re.compile(r"resnet(?P<depth>\d+)(?P<option>-A)?(-w(?P<width>\d+(\.\d+)?))?")
_SMALL_IMAGE_PX = 64  # up to here a stride-4 stem would leave too few pixels


@dataclass(frozen=True)
class Block:
    """One residual block.

    Attributes:
        widths: output channels of conv1, conv2 (conv3 of a bottleneck); the last is the block's.
        stride: of the block's 3x3 downsampling convolution (conv1 of a basic block, conv2 of a
            bottleneck, as torchvision and ResNet v1.5 do).
        shortcut: "identity"; "projection", a 1x1 convolution with batch norm (option B);
            "subsample", every stride-th pixel padded with zero channels (option A), kept as a fixed
            0/1 1x1 convolution because every runtime fuses that, and none fuses slice and pad.
    """

    widths: tuple[int, ...]
    stride: int
    shortcut: Shortcut


@dataclass(frozen=True)
class ModelSpec:
    """A residual network in numbers.

    Attributes:
        stem: "imagenet" (7x7 stride 2, then max pool) or "small" (3x3 stride 1).
        folded: batch norm already folded into the convolutions, which then have a bias.
    """

    name: str
    stem: Literal["imagenet", "small"]
    stem_width: int
    stages: tuple[tuple[Block, ...], ...]
    classes: int
    preprocess: Preprocess
    folded: bool = False


def names() -> tuple[str, ...]:
    """The architectures a recipe can name; each also takes `-w0.5` and such, CIFAR nets `-A`."""
    return tuple(f"resnet{d}" for d in (*_CIFAR, *_IMAGENET))


def default_preprocess(size_px: int) -> Preprocess:
    """The preprocessing of networks trained here: int8 input = pixel - 128, exactly."""
    return Preprocess(size_px, (128 / 255,), (64 / 255,))


def parse(name: str, classes: int, preprocess: Preprocess) -> ModelSpec:
    """Turn a name into numbers.

    Args:
        name: `resnet<depth>[-A][-w<multiplier>]`: `-A` gives a CIFAR net parameter-free option A
            shortcuts, `-w` multiplies every width (rounded to 8 channels).
        classes: outputs of the last layer.
        preprocess: what the network is fed with; the stem follows the image size.

    Raises:
        BadInput: the name is not in the family, or the multiplier is out of range.
    """
    match = _NAME.fullmatch(name)
    depth = int(match["depth"]) if match else 0
    if not match or (depth not in _IMAGENET and depth not in _CIFAR):
        raise unknown("model", name, names())
    multiplier = float(match["width"] or 1)
    if not 0.05 <= multiplier <= 8:
        raise BadInput(f"model '{name}': the width multiplier must be between 0.05 and 8")
    if depth in _CIFAR:
        return _cifar(name, depth, "subsample" if match["option"] else "projection", multiplier,
                      classes, preprocess)  # fmt: skip
    if match["option"]:
        raise BadInput(
            f"model '{name}': option A shortcuts exist for the CIFAR nets only; drop '-A'"
        )
    kind, depths = _IMAGENET[depth]
    stem: Literal["imagenet", "small"] = (
        "small" if preprocess.size_px <= _SMALL_IMAGE_PX else "imagenet"
    )
    stem_width = _scaled(64, multiplier)
    stages, channels = [], stem_width
    for stage, count in enumerate(depths):
        inner = _scaled(64 * 2**stage, multiplier)
        widths = (inner, inner) if kind == "basic" else (inner, inner, 4 * inner)
        stages.append(_stage(widths, count, 1 if stage == 0 else 2, channels, "projection"))
        channels = widths[-1]
    return ModelSpec(name, stem, stem_width, tuple(stages), classes, preprocess)


def _cifar(
    name: str,
    depth: int,
    shortcut: Shortcut,
    multiplier: float,
    classes: int,
    preprocess: Preprocess,
) -> ModelSpec:
    stem_width = channels = _scaled(16, multiplier)
    stages = []
    for stage in range(3):
        width = _scaled(16 * 2**stage, multiplier)
        count = (depth - 2) // 6
        stages.append(_stage((width, width), count, 1 if stage == 0 else 2, channels, shortcut))
        channels = width
    return ModelSpec(name, "small", stem_width, tuple(stages), classes, preprocess)


def _stage(
    widths: tuple[int, ...], count: int, stride: int, channels: int, shortcut: Shortcut
) -> tuple[Block, ...]:
    changes = stride != 1 or channels != widths[-1]
    first = Block(widths, stride, shortcut if changes else "identity")
    return (first, *[Block(widths, 1, "identity")] * (count - 1))


def _scaled(width: int, multiplier: float) -> int:
    return width if multiplier == 1 else max(8, round(width * multiplier / 8) * 8)


def to_json(spec: ModelSpec) -> dict[str, Any]:
    """The JSON form of a spec; `from_json` reads it back equal."""
    return {"schema": 1, "family": "resnet", **dataclasses.asdict(spec)}


def from_json(data: dict[str, Any]) -> ModelSpec:
    """Read a spec back.

    Raises:
        BadInput: the document is not a ResNet description of a known schema.
    """
    try:
        if data["schema"] != 1 or data["family"] != "resnet":
            raise BadInput(
                f"a model of schema {data['schema']} is newer than this edgeres; upgrade"
            )
        stages = tuple(
            tuple(Block(tuple(b["widths"]), b["stride"], b["shortcut"]) for b in stage)
            for stage in data["stages"]
        )
        p = data["preprocess"]
        preprocess = Preprocess(p["size_px"], tuple(p["mean"]), tuple(p["std"]))
        return ModelSpec(data["name"], data["stem"], data["stem_width"], stages,
                         data["classes"], preprocess, data["folded"])  # fmt: skip
    except (KeyError, TypeError) as error:
        raise BadInput(f"spec.json is not a model description: {error!r}") from error

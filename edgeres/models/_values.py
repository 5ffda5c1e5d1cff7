"""A residual network in numbers, and those numbers as JSON."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from edgeres.door import is_plain
from edgeres.errors import BadInput
from edgeres.types import Preprocess

Shortcut = Literal["identity", "projection", "pooled", "subsample"]
Stem = Literal["imagenet", "small"]

_SCHEMA = 2  # 1 had plain basic and bottleneck blocks only
_LARGEST = 65_536
_KERNELS = {2: (3, 3), 3: (1, 3, 1), 4: (3, 1, 3, 1)}


@dataclass(frozen=True)
class Block:
    """One residual block.

    Attributes:
        widths: output channels of conv1, conv2, …; the last is the block's. Two are a basic block
            (3x3, 3x3), three a bottleneck (1x1, 3x3, 1x1), four a separable one (depthwise 3x3,
            1x1, twice), whose depthwise convolutions have as many channels as they read.
        stride: of the block's first 3x3 convolution (as torchvision and ResNet v1.5 do).
        shortcut: "identity"; "projection", a 1x1 convolution with batch norm (option B);
            "pooled", the same after a 2x2 average pool instead of strided (ResNet-D, He et al.
            2018, section 4.2); "subsample", every stride-th pixel padded with zero channels (option
            A), kept as a fixed 0/1 1x1 convolution because every runtime fuses that, and none
            fuses slice and pad.
        groups: of a bottleneck's 3x3 convolution (ResNeXt).
        squeeze: channels inside its squeeze-and-excitation; 0 if it has none.
    """

    widths: tuple[int, ...]
    stride: int
    shortcut: Shortcut
    groups: int = 1
    squeeze: int = 0

    @property
    def kernels(self) -> tuple[int, ...]:
        """Side of each convolution's kernel."""
        return _KERNELS[len(self.widths)]


@dataclass(frozen=True)
class ModelSpec:
    """A residual network in numbers.

    Attributes:
        stem: "imagenet" (7x7 stride 2, then max pool) or "small" (3x3 stride 1).
        folded: batch norm already folded into the convolutions, which then have a bias.
        preact: batch norm and ReLU stand before each convolution (He et al. 2016), and a last pair
            behind the last block. The first block's own pair is the stem's, as in that paper.
    """

    name: str
    stem: Stem
    stem_width: int
    stages: tuple[tuple[Block, ...], ...]
    classes: int
    preprocess: Preprocess
    folded: bool = False
    preact: bool = False


def to_json(spec: ModelSpec) -> dict[str, object]:
    """The JSON form of a spec; `from_json` reads it back equal."""
    return {"schema": _SCHEMA, "family": "resnet", **dataclasses.asdict(spec)}


def from_json(data: dict[str, object]) -> ModelSpec:
    """Read a spec back, of this schema or an older one.

    Raises:
        BadInput: the document is not a ResNet description of a known schema.
    """
    try:
        if data["schema"] not in range(1, _SCHEMA + 1) or data["family"] != "resnet":
            raise BadInput(
                f"a model of schema {data['schema']!s:.20} is newer than this edgeres; upgrade"
            )
        spec = TypeAdapter(ModelSpec).validate_json(json.dumps(data), strict=True)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise BadInput(f"spec.json is not a model description: {_first(error)}") from error
    if not is_plain(spec.name):
        raise BadInput(f"spec.json: {spec.name[:80]!r} is no name of a network")
    blocks = [block for stage in spec.stages for block in stage]
    numbers = [spec.stem_width, spec.classes, spec.preprocess.size_px]
    for block in blocks:
        if len(block.widths) not in _KERNELS:
            raise BadInput(
                f"spec.json: a block has 2, 3 or 4 convolutions, not {len(block.widths)}"
            )
        numbers += [*block.widths, block.stride, block.groups, block.squeeze + 1]
    if not blocks or not all(spec.stages) or not all(1 <= n <= _LARGEST for n in numbers):
        raise BadInput(f"spec.json: a width or another number is not between 1 and {_LARGEST:,}")
    return spec


def _first(error: Exception) -> str:
    if isinstance(error, ValidationError):
        found = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, found['loc']))}: {found['msg']}"
    return repr(error)[:200]

"""A model file exactly as it is stored, in PyTorch's terms: every operation, and what is left over.

A `FileGraph` tells what a runtime computes; this tells what the file holds, so that nothing in it
is overlooked. Readers translate operations one by one and report whatever they can't account for.
"""

from __future__ import annotations

import math
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict

from edgeres.types import QuantParams

if TYPE_CHECKING:
    import numpy as np
    from google.protobuf.message import Message

Operation = Literal["conv", "linear", "add", "mul", "sigmoid", "concat", "relu", "mean",
                    "max_pool", "pad", "reshape", "quantize", "dequantize", "cast", "neg",
                    "unknown"]  # fmt: skip
"""What a step does. "mean" averages whole maps; "concat" puts channels behind one another;
"unknown" is anything this vocabulary lacks."""


@dataclass(frozen=True)
class Step:
    """One stored operation. What it doesn't have stays at its default.

    Attributes:
        name: the format's operator and what the file calls it, for messages.
        inputs: tensors that are computed, constants left out.
        weight: (O, I / groups, kH, kW) or (O, I), codes if quantized.
        bias: (O,), codes if it is of an integer type.
        stride, dilation, kernel: of a convolution or max pool, (height, width).
        padding: around a convolution, a max pool or a pad: (top, left, bottom, right); None is
            TensorFlow's "SAME", which depends on sizes.
        groups: of a convolution; None if its weights' shape decides.
        fill: what a pad fills with, or a ReLU puts in place of less, in the units of its tensor (a
            code if it is quantized).
        relu: a ReLU is part of it, or it is one.
        most: what that cuts off at (6 of a ReLU6).
        shape: that a reshape is asked for, as stored (0, -1 allowed).
        dtype: what a cast makes.
    """

    op: Operation
    name: str
    inputs: tuple[str, ...]
    output: str
    weight: np.ndarray | None = None
    weight_quantization: QuantParams | None = None
    bias: np.ndarray | None = None
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    kernel: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] | None = (0, 0, 0, 0)
    groups: int | None = 1
    fill: float = 0.0
    relu: bool = False
    most: float = math.inf
    shape: tuple[int, ...] = ()
    dtype: str = ""


class Details(TypedDict, total=False):
    """What of a `Step` readers find out one by one: its fields, by their names."""

    weight: np.ndarray
    weight_quantization: QuantParams | None
    bias: np.ndarray | None
    stride: tuple[int, int]
    dilation: tuple[int, int]
    kernel: tuple[int, int]
    padding: tuple[int, int, int, int] | None
    groups: int | None
    fill: float
    relu: bool
    most: float
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Structure:
    """A whole file.

    Attributes:
        steps: in execution order.
        quantization: tensor -> how its codes map to real values, for each tensor stored as codes.
        left_over: a sentence for each part of the file that isn't accounted for: a second graph,
            a function, another signature, a note of the format's own that says something else, …
        batch: images that it takes at once; None for any number.
        shapes: tensor -> (C, H, W) or (C,), where the file declares it.
    """

    steps: tuple[Step, ...]
    input: str
    output: str
    quantization: Mapping[str, QuantParams] = field(default_factory=dict)
    left_over: tuple[str, ...] = ()
    batch: int | None = 1
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


def notes_left_over(stored: Mapping[str, str], expected: Mapping[str, str]) -> Iterator[str]:
    """What a file says of itself that it shouldn't, and what it doesn't say.

    Which edgeres wrote a file may be told, and may be another one than this.
    """
    for key in sorted(stored.keys() | expected.keys()):
        if key == VERSION_NOTE and plain(stored.get(key, "")):
            continue
        if key not in expected:
            yield f"the note {key[:80]!r} isn't one of the network's"
        elif key not in stored:
            yield f"the note {key!r} is missing"
        elif stored[key] != expected[key]:
            yield f"the note {key!r} isn't the network's"


def fields_left_over(message: Message, known: Collection[str]) -> Iterator[str]:
    """Fields of a protobuf message that are set, and not known."""
    for kind, _ in message.ListFields():
        if kind.name not in known:
            yield f"it has {kind.name}"


def folder_left_over(path: Path, files: Iterable[Path]) -> Iterator[str]:
    """What a folder holds beside these files (relative to it), or in place of a plain one."""
    expected = set(files)
    folders = {parent for file in expected for parent in file.parents}
    for found in sorted(path.rglob("*")):
        inside = found.relative_to(path)
        kind = found.lstat().st_mode
        fine = inside in (expected if stat.S_ISREG(kind) else folders)
        if not fine or not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
            yield f"{inside.as_posix()[:200]!r} doesn't belong to it, or is a link"


VERSION_NOTE = "edgeres.version"


def plain(version: str) -> bool:
    """Whether a text may be the number of a version."""
    return 0 < len(version) <= 40 and all(
        c.isascii() and (c.isalnum() or c in ".+-_") for c in version
    )

"""Small trained networks that edgeres brings: pretrained:cifar10-resnet8.

Each is a folder of `edgeres/pretrained`: its weights as float16 (`spec.json`,
`weights.safetensors`), the int8 file that was verified, what it reaches and what it was made with
(`card.json`), and the log of its training.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

from edgeres import errors
from edgeres.disk import file_sha256, read_bounded
from edgeres.teachers import Found, Peeked, Wanted, checkpoint, tflite

SUMMARY = "small networks that edgeres brings: pretrained:cifar10-resnet8"
BLACK_BOX = False
INT8 = "-int8"
_CARD_BYTES = 1 << 16
_FOLDER = Path(__file__).parents[1] / "pretrained"


def names() -> list[str]:
    """Every network; each is also there in int8, under its name and `INT8`."""
    return sorted(path.parent.name for path in _FOLDER.glob("*/card.json"))


def card(name: str) -> dict[str, object]:
    """What is known of a network, as docs/teachers.md says."""
    document = json.loads(read_bounded(_FOLDER / name / "card.json", _CARD_BYTES, "card"))
    return cast("dict[str, object]", document)


def path(rest: str) -> Path:
    """The folder of a float network, or the file of one in int8.

    Raises:
        BadInput: there is no such network.
    """
    known = {name: _FOLDER / name for name in names()}
    known |= {f"{name}{INT8}": folder / f"{name}.tflite" for name, folder in known.items()}
    if rest not in known:
        raise errors.unknown("pretrained network", rest, known)
    return known[rest]


def check(rest: str) -> None:
    """The name must be one of them."""
    path(rest)


def keyed(rest: str) -> object:
    """The contents."""
    found = path(rest)
    return file_sha256(found / "weights.safetensors" if found.is_dir() else found)


def peek(rest: str) -> Peeked | None:
    """What the int8 file says of itself."""
    found = path(rest)
    return None if found.is_dir() else tflite.peek(str(found))


def precheck(rest: str, wanted: Wanted) -> None:
    """Whether it is what is wanted, before there are data."""
    checkpoint.precheck(str(path(rest)), wanted)


def fetch(rest: str, wanted: Wanted, out: Path) -> Found:
    """The network, in float32."""
    return checkpoint.fetch(str(path(rest)), wanted, out)

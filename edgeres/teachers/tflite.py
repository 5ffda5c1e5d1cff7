"""A TFLite file, of float numbers or of integers, as an ordinary network: tflite:FILE."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from edgeres.disk import file_sha256
from edgeres.errors import BadInput
from edgeres.teachers import Found, Peeked, Wanted

SUMMARY = "a classifier as a TFLite file, float or int8: tflite:FILE"
BLACK_BOX = False
_ANY_SIZE = 224  # for messages: each file says its own


def is_tflite(path: Path) -> bool:
    """Whether a file is one, by its name or by its mark."""
    try:
        if not path.is_file():  # a pipe would be waited for
            return False
        with path.open("rb") as file:
            return path.suffix.lower() == ".tflite" or file.read(8)[4:] == b"TFL3"
    except (OSError, ValueError):
        return False


def check(rest: str) -> None:
    """The file must be there."""
    if not Path(rest).is_file():
        raise BadInput(f"teacher 'tflite:{rest}': no such file")


def keyed(rest: str) -> object:
    """The file's contents."""
    check(rest)
    return file_sha256(Path(rest))


def precheck(rest: str, wanted: Wanted) -> None:
    """Read it before the data are there; raises like `fetch`, but for its classes."""
    count = len(wanted.outputs or ())
    network(Path(rest), dataclasses.replace(wanted, classes=count, new_head="never"))


def peek(rest: str) -> Peeked | None:
    """What a file says of itself; None: it isn't there, or isn't known."""
    from edgeres.network.from_tflite import from_tflite

    try:
        read = from_tflite(Path(rest), _ANY_SIZE)
    except BadInput:
        return None
    spec = read.module.spec
    return Peeked(spec.classes, spec.preprocess.size_px, read.integers is not None)


def network(path: Path, wanted: Wanted) -> Found:
    """The network of a file, with the data's classes where there are any.

    Raises:
        BadInput: as `from_tflite`, and where its classes or sizes aren't those that are wanted.
    """
    from edgeres.network.from_tflite import from_tflite
    from edgeres.teachers import _network

    return _network.of_graph(from_tflite, path, wanted)


def fetch(rest: str, wanted: Wanted, out: Path) -> Found:
    """Its network."""
    return network(Path(rest), wanted)

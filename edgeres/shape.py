"""The shape of a value that came out of a file: a shape and a value in, the first misfit out.

Shapes are plain values, so that a command that only looks up finished work builds no classes first:

    {"a": shape, "b?": shape}   a mapping with `a`; `b` may lack or be null
    {"*": shape}                a mapping of any names
    [shape]                     a list
    kind                        what a function of this module says

What a mapping holds beside, nothing reads.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeAlias

Shape: TypeAlias = "Callable[[Any], bool] | dict[str, Any] | list[Any]"  # of shapes again

_HASH, _STAGE, _KEY = (re.compile(p) for p in ("[0-9a-f]{64}", "[a-z]{1,40}", "[0-9a-z]{1,64}"))


def wrong(shape: Shape, value: object, where: str = "") -> str | None:
    """The first value that isn't of a shape, with its place."""
    if isinstance(shape, list):
        if not isinstance(value, list):
            return f"{where}: not a list"
        parts = ((shape[0], inner, f"{where}.{at}") for at, inner in enumerate(value))
    elif isinstance(shape, dict):
        if not isinstance(value, dict):
            return f"{where or 'it'}: not a mapping"
        if "*" in shape:
            parts = ((shape["*"], inner, f"{where}.{name[:80]}") for name, inner in value.items())
        else:
            wanted = {n.removesuffix("?"): s for n, s in shape.items()}
            if lacking := next((n for n in shape if n not in value and n[-1] != "?"), None):
                return f"{where}.{lacking}: is missing".lstrip(".")
            parts = ((s, value[n], f"{where}.{n}") for n, s in wanted.items()
                     if n in value and (value[n] is not None or f"{n}?" not in shape))  # fmt: skip
    else:
        return None if shape(value) else f"{where.lstrip('.')}: not {_said(shape)}"
    return next((found for part in parts if (found := wrong(*part))), None)


def _said(kind: Callable[[Any], bool]) -> str:
    return (kind.__doc__ or "such a value").partition("\n")[0].rstrip(".")


def text(value: object) -> bool:
    """a text"""
    return isinstance(value, str) and len(value) <= 2000


def truth(value: object) -> bool:
    """true or false"""
    return isinstance(value, bool)


def number(value: object) -> bool:
    """a number"""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300


def whole(value: object) -> bool:
    """a whole number"""
    return isinstance(value, int) and number(value) and abs(value) < 10**15


def count(value: object) -> bool:
    """a whole number, 0 or more"""
    return isinstance(value, int) and whole(value) and value >= 0


def some(value: object) -> bool:
    """a whole number, 1 or more"""
    return isinstance(value, int) and whole(value) and value >= 1


def share(value: object) -> bool:
    """a number from 0 to 1"""
    return isinstance(value, (int, float)) and number(value) and 0 <= value <= 1


def positive(value: object) -> bool:
    """a number larger than 0"""
    return isinstance(value, (int, float)) and number(value) and 0 < value < 1e18


def pixels(value: object) -> bool:
    """a size of images in pixels"""
    return isinstance(value, int) and some(value) and value <= 65_536


def sha256(value: object) -> bool:
    """a SHA-256 in hex"""
    return isinstance(value, str) and text(value) and _HASH.fullmatch(value) is not None


def stage(value: object) -> bool:
    """the name of a stage"""
    return isinstance(value, str) and text(value) and _STAGE.fullmatch(value) is not None


def key(value: object) -> bool:
    """the key of an artifact"""
    return isinstance(value, str) and text(value) and _KEY.fullmatch(value) is not None


def anything(_: object) -> bool:
    """any value"""
    return True


def one_of(*known: object) -> Callable[[object], bool]:
    def kind(value: object) -> bool:
        return type(value) in {type(k) for k in known} and value in known

    kind.__doc__ = f"one of {', '.join(map(str, known))}"
    return kind


def list_of(shape: Shape, least: int, most: int) -> Callable[[object], bool]:
    def kind(value: object) -> bool:
        return (
            isinstance(value, list)
            and least <= len(value) <= most
            and wrong([shape], value) is None
        )

    kind.__doc__ = f"a list of {least} or more"
    return kind


def counted(value: object) -> bool:
    """correct answers, and of how many"""
    return (
        isinstance(value, dict)
        and wrong({"correct": count, "n": some}, value) is None
        and value["correct"] <= value["n"]
    )

"""What is wrong with a recipe, in sentences: file, line, key, what it is and what it should be."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from edgeres.documents import Document, KeyPath, shortened
from edgeres.errors import nearest
from edgeres.recipe.sections import Section

_MAX_LINES = 20


def joined(problems: Iterable[str]) -> str:
    lines = list(dict.fromkeys(problems))  # a shared `train` key is found in each stage
    more = len(lines) - _MAX_LINES
    if more > 0:
        lines = [*lines[:_MAX_LINES], f"and {more:,} more problems"]
    return "\n".join(lines)


_SHOULD_BE = {
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
    "string_unicode": "text",
    "tuple_type": "a list such as [a, b]",
    "model_type": "a mapping of settings",
}
_IS_NOT = {
    "greater_than": ("greater than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}


def sentence(error: ErrorDetails, document: Document, root: type[BaseModel]) -> str:
    """`FILE:LINE: prune.macs: 1.5 is not less than 1` from one of pydantic's findings."""
    context = error.get("ctx", {})
    place = document.place((*error["loc"], *context.get("at", ())))
    if error["type"] == "extra_forbidden":
        name = shortened(str(place.key[-1]))
        known = _keys_at(root, error["loc"][:-1])
        inside = f" in {_dotted(place.key[:-1])}" if place.key[:-1] else ""
        hint = nearest(name, known) or f"; known: {', '.join(known)}"
        return f"{place.where}: unknown key '{name}'{inside}{hint}"
    subject = f"{_dotted(place.key)}: " if place.key else ""
    return f"{place.where}: {subject}{_complaint(error, context)}"


def follows(error: ErrorDetails, others: Sequence[ErrorDetails]) -> bool:
    """Whether a list is only too short as something in it is wrong, which is said by itself."""
    at = error["loc"]
    inside = (e for e in others if e["loc"][: len(at)] == at and e["loc"] != at)
    return error["type"] == "too_short" and any(inside)


def _complaint(error: ErrorDetails, context: Mapping[str, object]) -> str:
    kind, value = error["type"], error["input"]
    if kind in _SHOULD_BE:
        quote = kind == "string_type" and isinstance(value, (int, float))
        mend = "; put it in quotes" if quote else ""
        return f"should be {_SHOULD_BE[kind]}, not {shown(value)}{mend}"
    if kind in _IS_NOT:
        words, bound = _IS_NOT[kind]
        return f"{shown(value)} is not {words} {context[bound]:g}"
    if kind == "literal_error":
        known = re.findall(r"'([^']*)'|(\d+)", str(context["expected"]))
        names = [text or number for text, number in known]
        hint = nearest(value, names) if isinstance(value, str) else ""
        return f"unknown value {shown(value)}{hint}; known: {', '.join(names)}"
    if kind == "missing":
        return "is missing"
    if kind in ("too_short", "string_too_short"):
        return "is empty"
    if kind == "string_pattern_mismatch":  # only a recipe's name has one
        return (
            f"{shown(value)} is no name: it takes up to 64 letters, digits, '.', '_' and '-', "
            f"a letter or digit first"
        )
    return error["msg"]


def _keys_at(kind: type[BaseModel], path: KeyPath) -> list[str]:
    for key in path:
        if not isinstance(key, int):  # a place in a list of sections
            (kind,) = _sections_in(kind.model_fields[str(key)].annotation)
    return list(kind.model_fields)


def _sections_in(annotation: object) -> list[type[BaseModel]]:
    """The section that an annotation holds, be it optional or in a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for option in get_args(annotation) for found in _sections_in(option)]


def _dotted(path: KeyPath) -> str:
    return shortened(".".join(str(key) for key in path))


def shown(value: object) -> str:
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"'{shortened(value, 60)}'"
    if isinstance(value, (dict, Section)):
        return "a mapping"
    return "a list" if isinstance(value, (tuple, list)) else str(value)

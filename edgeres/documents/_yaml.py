"""YAML text as a tree of nodes of bounded size, and the scalars of YAML 1.2's core schema.

`1e-3` is a number, `off` and `2026-11-21` are text.
"""

from __future__ import annotations

import re
from typing import Any, TypeAlias

import yaml

from edgeres.errors import BadInput

MAX_NODES = 10_000
MAX_DEPTH = 32
Scalar: TypeAlias = "str | int | float | bool | None"
STR = "tag:yaml.org,2002:str"


def compose(text: str, name: str) -> yaml.Node | None:
    """The root node of a text, None if it is empty; `name` stands for the file in messages.

    Raises:
        BadInput: not YAML, too deep or too large.
    """
    try:
        loader = Loader(text)
        try:
            return loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        raise BadInput(f"{where}: not valid YAML: {error.problem or error.context}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        character = f"U+{ord(text[error.position]):04X}"
        raise BadInput(f"{name}:{line}: holds the control character {character}") from None
    except (ValueError, OverflowError) as error:  # e.g. the escape "\UFFFFFFFF"
        raise BadInput(f"{name}: not valid YAML: {error}") from None
    except TooLarge as error:
        raise BadInput(f"{name}: {error}") from None


def implicit_tag(text: str) -> str:
    """What kind of scalar an unquoted text is."""
    for name, pattern, _ in _CORE:
        if re.fullmatch(pattern, text):
            return f"tag:yaml.org,2002:{name}"
    return STR


def scalar(text: str, tag: str) -> Scalar:
    """The value of a scalar of a kind."""
    kind = tag.rpartition(":")[2]
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    if kind == "int":
        return int(text)
    if kind == "float":
        return float(re.sub(r"\.(?=inf|nan)", "", text.lower()))
    return text


class TooLarge(Exception):
    """The text holds more values than any document of ours needs."""


def check_size(count: int, depth: int) -> None:
    """Raise TooLarge for more values, or deeper ones, than any document of ours needs."""
    if count > MAX_NODES:
        raise TooLarge(f"holds more than {MAX_NODES:,} values, aliases included")
    if depth > MAX_DEPTH:
        raise TooLarge(f"is nested more than {MAX_DEPTH} levels deep, or within itself")


class Loader(yaml.SafeLoader):
    """Composes node trees of bounded size, with the scalars of YAML 1.2's core schema."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  filled below, as PyYAML does
    _count = 0
    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self._count += 1
        self._depth += 1
        check_size(self._count, self._depth)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


class Dumper(yaml.SafeDumper):
    """Quotes text that YAML 1.1 or 1.2 would read as something else."""


def _text_node(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    # Unquoted, PyYAML writes some line ends (U+0085) such that they are read back as a space.
    return dumper.represent_scalar(STR, text, style=None if text.isprintable() else '"')


Dumper.add_representer(str, _text_node)

_CORE = (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    # Longer numbers are read as float: no Python integer grows from a long text.
    ("int", r"[-+]?[0-9]{1,18}", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
)
for _name, _pattern, _first in _CORE:
    for _class in (Loader, Dumper):
        _class.add_implicit_resolver(
            f"tag:yaml.org,2002:{_name}", re.compile(rf"(?:{_pattern})\Z"), _first
        )

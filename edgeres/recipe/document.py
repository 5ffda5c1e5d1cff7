"""YAML files, mappings and `--set` texts in; plain values that remember where they stand out.

Nothing here knows what a recipe may say: that is edgeres.recipe_sections. Scalars follow YAML 1.2
(`1e-3` is a number, `off` and `2026-11-21` are text). Only plain values are built, by hand from
the node tree: a tag can't name a Python object, and aliases can't grow without limit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from edgeres.errors import BadInput

MAX_BYTES = 1 << 20
MAX_NODES = 10_000
MAX_DEPTH = 32

KeyPath = tuple[str | int, ...]
_STR = "tag:yaml.org,2002:str"


@dataclass(frozen=True)
class Place:
    """Where a value was written (`recipe.yaml:3`, `--set a.b=1`) and under which keys there."""

    where: str
    key: KeyPath


@dataclass
class Document:
    """Nested dicts, tuples and scalars, the place of each, and what was wrong with the text."""

    tree: dict[str, Any]
    places: dict[KeyPath, Place]
    problems: list[str] = field(default_factory=list)

    def place(self, path: KeyPath) -> Place:
        """The place of a value; of what encloses it where it was not written at all."""
        for length in range(len(path), 0, -1):
            if place := self.places.get(path[:length]):
                return Place(place.where, place.key + path[length:])
        return Place(self.places[()].where, path)

    def merged(self, top: Document) -> Document:
        """This document with `top` laid over it: mappings merge, everything else is replaced."""
        replaced: set[KeyPath] = set()
        tree = _merge(self.tree, top.tree, (), replaced)
        kept = {
            path: place
            for path, place in self.places.items()
            if not any(path[:length] in replaced for length in range(1, len(path) + 1))
        }
        return Document(tree, kept | top.places, self.problems + top.problems)


def _merge(
    base: dict[str, Any], top: dict[str, Any], path: KeyPath, replaced: set[KeyPath]
) -> dict[str, Any]:
    tree = dict(base)
    for key, value in top.items():
        below = base.get(key)
        if isinstance(below, dict) and isinstance(value, dict):
            tree[key] = _merge(below, value, (*path, key), replaced)
        else:
            tree[key] = value
            replaced.add((*path, key))
    return tree


def read(path: Path) -> Document:
    """Read a YAML file.

    Raises:
        BadInput: it can't be read, is no UTF-8 text, too large, not YAML, or not a mapping.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None
    except IsADirectoryError:
        raise BadInput(f"{path}: is a folder; name a recipe file in it") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadInput(f"{path}: can't be read ({reason})") from error
    if len(content) > MAX_BYTES:
        raise BadInput(f"{path}: is larger than {MAX_BYTES >> 20} MiB; that is no recipe")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadInput(f"{path}: is not a text file in UTF-8") from None
    return parse(text, str(path))


def parse(text: str, name: str) -> Document:
    """A document from YAML text; `name` stands for the file in messages.

    Raises:
        BadInput: not YAML, too deep or too large, empty, or not a mapping.
    """
    root = _compose(text, name)
    if root is None:
        raise BadInput(f"{name}: is empty; start with `extends: quickstart`")
    if not isinstance(root, yaml.MappingNode):
        raise BadInput(f"{name}: should hold `key: value` lines at the top")
    builder = _Builder(name)
    tree = builder.value(root, (), 1)
    return Document(tree, builder.places | {(): Place(name, ())}, builder.problems)


def of_mapping(values: Mapping[str, Any], where: str) -> Document:
    """A document from plain values that a program made; `where` stands for their place."""
    return Document(_plain(values), {(): Place(where, ())})


def of_override(text: str) -> Document:
    """A document with the one value of `a.b=value`; the value is a YAML scalar or `[a, b]`."""
    where = f"--set {shortened(text)}"
    key, equals, written = text.partition("=")
    path = tuple(key.strip().split("."))
    if not equals or not all(path) or len(path) > MAX_DEPTH:
        return Document({}, {}, [f"{where}: write KEY=VALUE, e.g. distill.train.epochs=3"])
    value, problems = _override_value(written.strip(), where)
    for name in reversed(path):
        value = {name: value}
    prefixes = (path[:length] for length in range(1, len(path) + 1))
    return Document(value, {p: Place(where, p) for p in prefixes}, problems)


def _override_value(text: str, where: str) -> tuple[Any, list[str]]:
    if not text.startswith(("[", "{", '"', "'")):
        # The whole text is one scalar: a path may hold ` #` or `: `.
        return _scalar(text, _implicit_tag(text)), []
    builder = _Builder(where)
    node = _compose(text, where)
    return builder.value(node, (), 1), builder.problems


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(_plain(item) for item in value)
    return value


def dump(values: Mapping[str, Any]) -> str:
    """YAML text that `parse` reads back to the same values; keys keep their order."""
    text: str = yaml.dump(
        values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=float("inf")
    )
    return text


def shortened(value: str, limit: int = 80) -> str:
    """One printable line of at most `limit` characters."""
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in value[: limit + 1])
    return line if len(line) <= limit else line[: limit - 1] + "…"


class _Loader(yaml.SafeLoader):
    """Composes node trees of bounded size, with the scalars of YAML 1.2's core schema."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  filled below, as PyYAML does
    _count = 0
    _depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self._count += 1
        self._depth += 1
        _check_size(self._count, self._depth)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


class _Dumper(yaml.SafeDumper):
    """Quotes text that YAML 1.1 or 1.2 would read as something else."""


def _text_node(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    # Unquoted, PyYAML writes some line ends (U+0085) such that they are read back as a space.
    return dumper.represent_scalar(_STR, text, style=None if text.isprintable() else '"')


_Dumper.add_representer(str, _text_node)


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
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(
            f"tag:yaml.org,2002:{_name}", re.compile(rf"(?:{_pattern})\Z"), _first
        )


class _TooLarge(Exception):
    """The text holds more values than a recipe can have."""


def _check_size(count: int, depth: int) -> None:
    if count > MAX_NODES:
        raise _TooLarge(f"holds more than {MAX_NODES:,} values, aliases included")
    if depth > MAX_DEPTH:
        raise _TooLarge(f"is nested more than {MAX_DEPTH} levels deep, or within itself")


def _compose(text: str, name: str) -> Any:
    try:
        loader = _Loader(text)
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
    except _TooLarge as error:
        raise BadInput(f"{name}: {error}; that is no recipe") from None


class _Builder:
    """Builds plain values from a node tree and notes where each stands."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.places: dict[KeyPath, Place] = {}
        self.problems: list[str] = []
        self._count = 0

    def value(self, node: yaml.Node, path: KeyPath, line: int) -> Any:
        """The value of a node whose key stands at `line`."""
        self._count += 1
        try:
            _check_size(self._count, len(path) + 1)
        except _TooLarge as error:
            raise BadInput(f"{self.name}: {error}; that is no recipe") from None
        self.places[path] = Place(f"{self.name}:{line}", path)
        if isinstance(node, yaml.MappingNode):
            self._check_tag(node, "tag:yaml.org,2002:map")
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            self._check_tag(node, "tag:yaml.org,2002:seq")
            items = enumerate(node.value)
            return tuple(self.value(item, (*path, i), _line(item)) for i, item in items)
        assert isinstance(node, yaml.ScalarNode)
        implicit = _implicit_tag(node.value) if node.style is None else _STR
        self._check_tag(node, implicit, _STR)
        return _scalar(node.value, node.tag if node.tag == _STR else implicit)

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        found: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key, item in node.value:
            line = _line(key)
            if not isinstance(key, yaml.ScalarNode):
                self.problems.append(f"{self.name}:{line}: a key should be a plain name")
            elif key.value in found:
                self.problems.append(
                    f"{self.name}:{line}: key '{shortened(key.value)}' stands twice, "
                    f"first in line {lines[key.value]}; remove one"
                )
            else:
                lines[key.value] = line
                found[key.value] = self.value(item, (*path, key.value), line)
        return found

    def _check_tag(self, node: yaml.Node, *allowed: str) -> None:
        if node.tag not in allowed:
            tag = shortened(node.tag.replace("tag:yaml.org,2002:", "!!"))
            self.problems.append(
                f"{self.name}:{_line(node)}: tag {tag} is not allowed in a recipe; remove it"
            )


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _implicit_tag(text: str) -> str:
    for name, pattern, _ in _CORE:
        if re.fullmatch(pattern, text):
            return f"tag:yaml.org,2002:{name}"
    return _STR


def _scalar(text: str, tag: str) -> Any:
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

"""YAML files, mappings and `--set` texts in; plain values that remember where they stand out.

Recipes, device profiles and budgets are all read here; what each may say, their own modules know.
Only plain values are built, by hand from the node tree: a tag can't name a Python object, aliases
are counted as often as they are used, before any value is copied, and merge keys are refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from edgeres.disk import read_bounded
from edgeres.documents import _yaml
from edgeres.errors import BadInput

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True)
class Kind:
    """What a document is.

    Attributes:
        name: what messages call it, e.g. "recipe".
        most_bytes: no such document is larger.
        start: what an empty one should begin with.
    """

    name: str
    most_bytes: int
    start: str


@dataclass(frozen=True)
class Place:
    """Where a value was written (`recipe.yaml:3`, `--set a.b=1`) and under which keys there."""

    where: str
    key: KeyPath


@dataclass
class Document:
    """Nested dicts, tuples and scalars, the place of each, and what was wrong with the text."""

    tree: dict[str, object]
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
    base: dict[str, object], top: dict[str, object], path: KeyPath, replaced: set[KeyPath]
) -> dict[str, object]:
    tree = dict(base)
    for key, value in top.items():
        below = base.get(key)
        if isinstance(below, dict) and isinstance(value, dict):
            tree[key] = _merge(below, value, (*path, key), replaced)
        else:
            tree[key] = value
            replaced.add((*path, key))
    return tree


def read(path: Path, kind: Kind) -> Document:
    """Read a YAML file.

    Raises:
        BadInput: it is no regular file, can't be read, is no UTF-8 text, too large, not YAML, or
            not a mapping.
    """
    content = read_bounded(path, kind.most_bytes, kind.name)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadInput(f"{path}: is not a text file in UTF-8") from None
    return parse(text, str(path), kind)


def parse(text: str, name: str, kind: Kind) -> Document:
    """A document from YAML text; `name` stands for the file in messages.

    Raises:
        BadInput: not YAML, too deep or too large, empty, or not a mapping.
    """
    root = _yaml.compose(text, name)
    if root is None:
        raise BadInput(f"{name}: is empty; {kind.start}")
    if not isinstance(root, yaml.MappingNode):
        raise BadInput(f"{name}: should hold `key: value` lines at the top")
    builder = _Builder(name)
    tree = builder.value(root, (), 1)
    assert isinstance(tree, dict)
    return Document(tree, builder.places | {(): Place(name, ())}, builder.problems)


def values(path: Path, kind: Kind) -> dict[str, Any]:
    """The plain values of a file whose places nobody asks for; lists are tuples.

    Raises:
        BadInput: like `read`, and for a tag, a merge key, or a key that stands twice.
    """
    document = read(path, kind)
    if document.problems:
        raise BadInput(document.problems[0])
    return document.tree


def of_mapping(values: Mapping[str, object], where: str) -> Document:
    """A document from plain values that a program made; `where` stands for their place."""
    return Document(_plain_mapping(values), {(): Place(where, ())})


def of_override(text: str) -> Document:
    """A document with the one value of `a.b=value`; the value is a YAML scalar or `[a, b]`."""
    where = f"--set {shortened(text)}"
    key, equals, written = text.partition("=")
    path = tuple(key.strip().split("."))
    if not equals or not all(path) or len(path) > _yaml.MAX_DEPTH:
        return Document({}, {}, [f"{where}: write KEY=VALUE, e.g. distill.train.epochs=3"])
    value, problems = _override_value(written.strip(), where)
    tree: dict[str, object] = {path[-1]: value}
    for name in reversed(path[:-1]):
        tree = {name: tree}
    prefixes = (path[:length] for length in range(1, len(path) + 1))
    return Document(tree, {p: Place(where, p) for p in prefixes}, problems)


def _override_value(text: str, where: str) -> tuple[object, list[str]]:
    if not text.startswith(("[", "{", '"', "'")):
        # The whole text is one scalar: a path may hold ` #` or `: `.
        return _yaml.scalar(text, _yaml.implicit_tag(text)), []
    builder = _Builder(where)
    node = _yaml.compose(text, where)
    assert node is not None
    return builder.value(node, (), 1), builder.problems


def _plain_mapping(values: Mapping[str, object]) -> dict[str, object]:
    return {str(key): _plain(item) for key, item in values.items()}


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return _plain_mapping(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(_plain(item) for item in value)
    return value


def dump(values: Mapping[str, object]) -> str:
    """YAML text that `parse` reads back to the same values; keys keep their order."""
    text: str = yaml.dump(
        values, Dumper=_yaml.Dumper, sort_keys=False, allow_unicode=True, width=float("inf")
    )
    return text


def shortened(value: str, limit: int = 80) -> str:
    """One printable line of at most `limit` characters."""
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in value[: limit + 1])
    return line if len(line) <= limit else line[: limit - 1] + "…"


class _Builder:
    """Builds plain values from a node tree and notes where each stands."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.places: dict[KeyPath, Place] = {}
        self.problems: list[str] = []
        self._count = 0

    def value(self, node: yaml.Node, path: KeyPath, line: int) -> object:
        """The value of a node whose key stands at `line`."""
        self._count += 1
        try:
            _yaml.check_size(self._count, len(path) + 1)
        except _yaml.TooLarge as error:
            raise BadInput(f"{self.name}: {error}") from None
        self.places[path] = Place(f"{self.name}:{line}", path)
        if isinstance(node, yaml.MappingNode):
            self._check_tag(node, "tag:yaml.org,2002:map")
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            self._check_tag(node, "tag:yaml.org,2002:seq")
            items = enumerate(node.value)
            return tuple(self.value(item, (*path, i), _line(item)) for i, item in items)
        assert isinstance(node, yaml.ScalarNode)
        implicit = _yaml.implicit_tag(node.value) if node.style is None else _yaml.STR
        self._check_tag(node, implicit, _yaml.STR)
        return _yaml.scalar(node.value, node.tag if node.tag == _yaml.STR else implicit)

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, object]:
        found: dict[str, object] = {}
        lines: dict[str, int] = {}
        for key, item in node.value:
            line = _line(key)
            if not isinstance(key, yaml.ScalarNode):
                self.problems.append(f"{self.name}:{line}: a key should be a plain name")
            elif key.value == "<<" and key.style is None:
                self.problems.append(
                    f"{self.name}:{line}: a merge key (<<) is not read; write its keys out"
                )
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
            self.problems.append(f"{self.name}:{_line(node)}: tag {tag} is not allowed; remove it")


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1

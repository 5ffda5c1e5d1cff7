"""A network as JSON: bounded, checked against the table of operations, nothing in it trusted."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, get_args

from edgeres.door import is_plain
from edgeres.errors import BadInput
from edgeres.network.graph import INPUT, Network, Node, Value
from edgeres.network.ops import LARGEST, OPS
from edgeres.types import Preprocess

FAMILY = "graph"
SCHEMA = 3

_MOST_NODES = 20_000
_NAME = re.compile(r"[\w][\w-]{0,99}(\.[\w-]{1,100}){0,30}", re.ASCII)


def to_json(network: Network) -> dict[str, object]:
    """The JSON form; `from_json` reads it back equal."""
    nodes = [
        {"name": n.name, "op": n.op, "inputs": list(n.inputs),
         **({"attributes": n.values} if n.attributes else {})}
        for n in network.nodes
    ]  # fmt: skip
    prepared = network.preprocess
    return {
        "schema": SCHEMA, "family": FAMILY, "name": network.name, "classes": network.classes,
        "preprocess": {"size_px": prepared.size_px, "mean": list(prepared.mean),
                       "std": list(prepared.std)},
        "nodes": nodes, "output": network.output,
    }  # fmt: skip


def from_json(data: Mapping[str, Any]) -> Network:
    """Read a network back.

    Raises:
        BadInput: it isn't one: an operation that isn't in the table, a number out of range, an
            input that nothing before it makes.
    """
    try:
        prepared = data["preprocess"]
        mean, std = (_numbers(prepared[key]) for key in ("mean", "std"))
        preprocess = Preprocess(_size(prepared["size_px"]), mean, std)
        name, output, listed = data["name"], data["output"], data["nodes"]
        if not isinstance(name, str) or not is_plain(name):
            raise BadInput(f"spec.json: {name!r:.80} is no name of a network")
        if not isinstance(listed, list) or not 0 < len(listed) <= _MOST_NODES:
            raise BadInput(f"spec.json: a network has 1 to {_MOST_NODES:,} operations")
        made = {INPUT}
        nodes = []
        for entry in listed:
            node = _node(entry)
            if node.name in made:
                raise BadInput(f"spec.json: two operations are named '{node.name}'")
            if missing := [source for source in node.inputs if source not in made]:
                raise BadInput(f"spec.json: '{node.name}' reads {missing[0]!r:.80}, which no "
                               "operation before it makes")  # fmt: skip
            made.add(node.name)
            nodes.append(node)
        if output not in made or output == INPUT:
            raise BadInput(f"spec.json: no operation makes the output, {output!r:.80}")
        return Network(name, tuple(nodes), output, _size(data["classes"]), preprocess)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise BadInput(f"spec.json is not a network: {error!r:.200}") from error


def _node(entry: Any) -> Node:
    name, op, inputs = entry["name"], entry["op"], entry["inputs"]
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name == INPUT:
        raise BadInput(f"spec.json: {name!r:.80} is no name of an operation")
    row = OPS.get(op) if isinstance(op, str) else None
    if row is None:
        raise BadInput(f"spec.json: '{name}': there is no operation {op!r:.80}; upgrade edgeres")
    if not isinstance(inputs, list) or (row.reads or max(1, len(inputs))) != len(inputs):
        raise BadInput(f"spec.json: '{name}': {op} reads {row.reads or 'one or more'} values")
    given = entry.get("attributes", {})
    if set(given) != set(row.attributes):
        odd = sorted(set(given) ^ set(row.attributes), key=str)[0]
        raise BadInput(f"spec.json: '{name}': {op} and {odd!r:.80} don't go together")
    read = {key: _KINDS[kind](given[key]) for key, kind in row.attributes.items()}
    return Node.of(name, op, tuple(str(source) for source in inputs), **read)


def _numbers(value: object) -> tuple[float, ...]:
    if not isinstance(value, list) or len(value) not in (1, 3) or not all(
        type(v) in get_args(int | float) and abs(v) < 1e9 for v in value
    ):  # fmt: skip
        raise ValueError(f"{value!r:.80} is neither 1 nor 3 numbers")
    return tuple(float(v) for v in value)


def _size(value: object, least: int = 1) -> int:
    if type(value) is not int or not least <= value <= LARGEST:
        raise ValueError(f"{value!r:.80} is no whole number between {least} and {LARGEST:,}")
    return value


def _pair(value: object, least: int = 1) -> Value:
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise ValueError(f"{value!r:.80} isn't two numbers")
    return _size(value[0], least), _size(value[1], least)


def _share(value: Any) -> Value:
    if type(value) not in (int, float) or not 0 <= value <= 1:
        raise ValueError(f"{value!r:.80} is not between 0 and 1")
    return float(value)


def _positive(value: Any) -> Value:
    if type(value) not in (int, float) or not 0 < value < 1e6:
        raise ValueError(f"{value!r:.80} is not between 0 and a million")
    return float(value)


def _flag(value: object) -> Value:
    if not isinstance(value, bool):
        raise ValueError(f"{value!r:.80} is neither true nor false")
    return value


_KINDS: dict[str, Callable[[object], Value]] = {
    "size": _size, "pair": _pair, "pad": lambda value: _pair(value, 0), "share": _share,
    "number": _positive, "flag": _flag,
}  # fmt: skip

"""Bytes from bytes, and values from a JSON schema: every case from one seed."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

TOKENS = [
    b"null", b"true", b"-1", b"0", b"1e999", b"-0.0", b"NaN", b"Infinity", b"[]", b"{}", b'""',
    b"18446744073709551616", b"9" * 40, b"9" * 5000, b"[" * 3000, b'{"a":' * 3000, b"\x00", b"\xff\xfe",
    b"\n", b"\r\n", b"\xe2\x80\xae", b"../../../../etc/passwd", b"/etc/passwd", b"$(id)", b"`id`;",
    b"%s%n", b"&a [*a]", b"<<: *a", b"!!python/object/apply:os.system [id]", b"cos\nsystem\n(S'id'\ntR.",
    b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x00\x00\x00\x80", b"\x00" * 64,
]  # fmt: skip


def mutated(seed: bytes, rng: random.Random, tokens: list[bytes] = TOKENS) -> bytes:
    """A few random changes: bits, tokens, cuts, repetitions, numbers."""
    data = bytearray(seed)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        at = rng.randrange(len(data) + 1)
        length = min(rng.choice((1, 1, 2, 4, 8, 64, 1024)), len(data) - at)
        kind = rng.randrange(9)
        if kind == 0 and length:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at : at + length] = rng.randbytes(length)
        elif kind == 2:
            del data[at : at + length]
        elif kind == 3:
            data[at:at] = rng.choice(tokens)
        elif kind == 4:
            token = rng.choice(tokens)
            data[at : at + len(token)] = token
        elif kind == 5:
            data[at:at] = data[at : at + length] * rng.choice((1, 2, 100))
        elif kind == 6:
            del data[at:]
        elif kind == 7:
            other = rng.randrange(len(data) + 1)
            data[at : at + length] = data[other : other + length]
        elif kind == 8 and length:  # another number in place of a number
            data[at : at + 1] = rng.choice((b"-1", b"0", b"1e308", b"65536", b"\xff"))
    return bytes(data)


def mutated_json(seed: bytes, rng: random.Random) -> bytes:
    """A document with some of its values replaced, still JSON; or with bytes changed."""
    if rng.random() < 0.3:
        return mutated(seed, rng)
    document = json.loads(seed)
    for _ in range(rng.choice((1, 1, 2, 4))):
        document = _replaced(document, rng, rng.uniform(0, 0.5))
    return json.dumps(document).encode()


_ODD: tuple[Any, ...] = (
    None, True, -1, 0, 1, 1.5, 1e308, float("nan"), float("inf"), 2**64, 10**400, "", "x", "\ud800",
    "../../etc/passwd", "a" * 5000, [], {}, [[]], {"": {}}, [0], ["x"], {"n": "x"}, "1", "-", "\x1b[31m",
)  # fmt: skip


def _replaced(value: Any, rng: random.Random, chance: float) -> Any:
    """One value somewhere becomes an odd one, or goes."""
    if rng.random() < chance or not isinstance(value, dict | list) or not value:
        return rng.choice(_ODD)
    if isinstance(value, dict):
        key = rng.choice(list(value))
        if rng.random() < 0.15:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: _replaced(value[key], rng, chance)}
    at = rng.randrange(len(value))
    if rng.random() < 0.15:
        return value[:at] + value[at + 1 :]
    return [*value[:at], _replaced(value[at], rng, chance), *value[at + 1 :]]


def of_schema(schema: Mapping[str, Any], root: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    """Values that a JSON schema allows, or nearly: bounds are met, and sometimes not."""
    if "$ref" in schema:
        return of_schema(root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    if "const" in schema:
        return st.just(schema["const"])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    for several in ("anyOf", "oneOf", "allOf"):
        if several in schema:
            return st.one_of(*(of_schema(one, root) for one in schema[several]))
    kind = schema.get("type")
    if kind == "object":
        known = {k: of_schema(v, root) | _anything() for k, v in schema["properties"].items()}
        return st.fixed_dictionaries({}, optional=known)
    if kind == "array":
        return st.lists(of_schema(schema.get("items", {}), root), max_size=4)
    if kind in ("integer", "number"):
        low = schema.get("minimum", schema.get("exclusiveMinimum", -10))
        high = schema.get("maximum", schema.get("exclusiveMaximum", 1_000_000))
        return (
            st.integers(int(low) - 1, int(high) + 1) if kind == "integer" else st.floats(low, high)
        )
    simple = {"string": st.text(max_size=20), "boolean": st.booleans(), "null": st.none()}
    return simple.get(str(kind), _anything())


def _anything() -> st.SearchStrategy[Any]:
    return st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
        max_leaves=6,
    )  # fmt: skip

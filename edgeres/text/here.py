"""What a device is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict


class Device(TypedDict):
    """What a device is."""

    device: str
    address: str
    state: Mapping[str, object]
    identity: str
    missing: list[str]


def device(result: Device) -> str:
    """What a device is, how it is doing, and what it lacks."""
    shown = [(k, v) for k, v in result["state"].items() if v not in (None, {}, [], "")]
    width = max((len(k) for k, _ in shown), default=0)
    lines = [f"{k.replace('_', ' ').ljust(width)}  {_value(v)}" for k, v in shown]
    lacks = [f"missing: {m}" for m in result["missing"]] or ["ready"]
    return "\n".join([f"{result['device']} ({result['address']})", *lines, *lacks])


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_value(v)}" for k, v in value.items() if v is not None)
    if isinstance(value, list):
        return ", ".join(map(_value, value))
    return str(value)

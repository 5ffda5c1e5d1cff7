"""A picture of a file: one row per operation in execution order, with the paths that skip rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeres.reporting import _svg, _units
from edgeres.reporting._markup import Markup, tag

if TYPE_CHECKING:
    from edgeres.records import Layer

_ROW, _TOP, _GUTTER, _BOX = 20, 6, 46, 150
_HIDDEN = ("boundary",)  # quantize and dequantize beside a fused kernel are part of it
_TONES = {"transpose": "invalid"}


@dataclass(frozen=True)
class _Skip:
    start: int
    end: int
    lane: int


def draw(name: str, title: str, layers: Sequence[Layer]) -> Markup:
    """Rows of `targets._graph.described(...)["layers"]` as an inline SVG.

    Args:
        name: unique in the page.
    """
    shown = [layer for layer in layers if layer["role"] not in _HIDDEN]
    skips = _skips(shown, layers)
    height = _TOP * 2 + len(shown) * _ROW
    floats = sum(layer["floating"] for layer in shown)
    words = f"{len(shown)} operations, {floats} of them in floating point."
    rows = [_row(i, layer) for i, layer in enumerate(shown)]
    lines = [line for skip in skips for line in _arc(skip)]
    return _svg.svg(name, title, words, height, *lines, *rows)


def _row(index: int, layer: Layer) -> Markup:
    y = _TOP + index * _ROW
    kind = "float" if layer["floating"] else _TONES.get(layer["role"], "int8")
    shape = " × ".join(map(str, layer["shape"][1:])) if layer["shape"] else ""
    size = _units.size(layer["constant_bytes"]) if layer["constant_bytes"] else ""
    notes = ", ".join(part for part in (shape, size) if part)
    box = tag("rect", x=_GUTTER, y=y + 2, width=_BOX, height=_ROW - 4, rx=3, class_="box")
    label = _svg.text(f"{_GUTTER + 7}", y + 14, _svg.short(layer["kind"], 22), "label")
    after = _svg.text(f"{_GUTTER + _BOX + 10}", y + 14, notes, "tick")
    return tag("g", tag("title", layer["name"]), box, label, after, class_=f"op {kind}")


def _arc(skip: _Skip) -> list[Markup]:
    top, bottom = (_TOP + row * _ROW + _ROW / 2 for row in (skip.start, skip.end))
    x, edge = str(_GUTTER - 8 - 7 * skip.lane), str(_GUTTER)
    ends = ((edge, top, x, top), (x, top, x, bottom), (x, bottom, edge, bottom))
    return [_svg.line(*end, "by") for end in ends]


def _skips(shown: Sequence[Layer], layers: Sequence[Layer]) -> list[_Skip]:
    """Connections between rows that aren't neighbours, each in a lane of its own."""
    producers = {layer["output"]: layer for layer in layers if layer["role"] in _HIDDEN}
    producers |= {layer["output"]: layer for layer in shown}  # a kernel hides the quantize in it
    place = {id(layer): i for i, layer in enumerate(shown)}
    found: list[_Skip] = []
    for end, layer in enumerate(shown):
        for tensor in layer["inputs"]:
            source = producers.get(tensor)
            while source is not None and id(source) not in place:
                source = producers.get(source["inputs"][0]) if source["inputs"] else None
            start = place[id(source)] if source is not None else end
            if start < end - 1:
                used = {s.lane for s in found if s.end > start and s.start < end}
                lane = next(i for i in range(len(used) + 1) if i not in used)
                found.append(_Skip(start, end, min(lane, 4)))
    return found

"""What charts are drawn with: axes and marks as inline SVG.

Horizontal places are percentages and vertical ones pixels, so a chart fills any width while its
text keeps the page's size: the same drawing is readable on a phone and in print.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeres.reporting._markup import Markup, tag
from edgeres.reporting._rungs import INTEGER

if TYPE_CHECKING:
    from edgeres.reporting._document import Toned


@dataclass(frozen=True)
class Axis:
    """Values to places along one direction: percent of the width, or px of the height.

    The default range leaves room for markers at both ends of the width.
    """

    low: float
    high: float
    start: float = 1.5
    end: float = 98.5

    def place(self, value: float) -> float:
        """Where a value is."""
        span = (self.high - self.low) or 1
        return round(self.start + (value - self.low) / span * (self.end - self.start), 2)

    def percent(self, value: float) -> str:
        """`place` as an SVG percentage."""
        return f"{self.place(value):g}%"


def svg(name: str, title: str, description: str, height: float, *content: Markup) -> Markup:
    """A chart of full width and `height` px; `name` is unique in the page."""
    heading = tag("title", title, id=f"{name}-title")
    text = tag("desc", description, id=f"{name}-desc")
    return tag("svg", heading, text, *content, role="img", width="100%", height=f"{height:g}",
               aria_labelledby=f"{name}-title {name}-desc", class_="chart")  # fmt: skip


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers that enclose low and high, about `count` steps."""
    span = max(high - low, 1e-9)
    power = 10 ** math.floor(math.log10(span / count))
    step = power * next(f for f in (1, 2, 2.5, 5, 10) if f * power * count >= span * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, max(last, first + 1) + 1)]


def tone(row: Toned) -> str:
    """CSS classes of a row's marks."""
    name = "int8" if row["precision"] in INTEGER else "float"
    return f"{name} invalid" if row.get("status", "valid") != "valid" else name


def marker(x: str, y: float, precision: str | None) -> Markup:
    """A disc for int8 and int4, a diamond for everything else."""
    if precision in INTEGER:
        return tag("circle", cx=x, cy=f"{y:g}", r=5, class_="marker")
    diamond = tag("path", d="M0-6 6 0 0 6-6 0Z", class_="marker")
    return tag("svg", diamond, x=x, y=f"{y:g}", class_="free")


def line(x1: str, y1: float, x2: str, y2: float, kind: str) -> Markup:
    """A straight line."""
    return tag("line", x1=x1, y1=f"{y1:g}", x2=x2, y2=f"{y2:g}", class_=kind)


def text(x: str, y: float, words: str, kind: str) -> Markup:
    """Words on the baseline y; `kind` says how they look and where they are anchored."""
    return tag("text", words, x=x, y=f"{y:g}", class_=kind)


def short(words: str, limit: int) -> str:
    """Words cut to a number of characters: SVG text doesn't wrap."""
    return words if len(words) <= limit else f"{words[: limit - 1]}…"

"""Charts of spread: latencies as boxes, and how sure against how right, as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgeres.reporting import _units
from edgeres.reporting._markup import Markup, join, tag
from edgeres.reporting._svg import Axis, line, short, svg, text, tone

if TYPE_CHECKING:
    from edgeres.reporting._document import Reliability, Spread

_ROW_PX = 46


def boxes(name: str, device: str, rows: Sequence[Spread]) -> Markup:
    """Per file, when warm: the median, the middle half, and 5 % to 95 %; when cold: every start.

    The axis is logarithmic, for a first start may take a thousand inferences.
    """
    every = [ns for row in rows for ns in _shown(row)]
    unit = _units.time_unit([max(every)])
    low, high = (math.log10(max(bound, 1)) for bound in (min(every), max(every)))
    decades = range(math.floor(low), math.ceil(high) + 1)
    axis = Axis(decades[0], max(decades[-1], decades[0] + 1), 2, 97)
    bottom = 12 + _ROW_PX * len(rows)
    marks = []
    for decade in decades:
        x = axis.percent(decade)
        end = "end" if axis.place(decade) > 94 else "" if decade == decades[0] else "middle"
        marks += [line(x, 4, x, bottom, "grid"),
                  text(x, bottom + 16, f"{10**decade / unit[1]:g}", f"tick {end}")]  # fmt: skip
    marks.append(text("100%", bottom + 34, f"{unit[0]}, logarithmic →", "tick strong end"))
    marks += [_box(row, axis, 10 + _ROW_PX * i) for i, row in enumerate(rows)]
    described = "; ".join(f"{row['target']} {_units.time(row['warm_ns'][50])}"
                          for row in rows if row["warm_ns"])  # fmt: skip
    return svg(name, f"Latency distributions on {device}", described, bottom + 40, *marks)


def reliability(name: str, found: Reliability) -> Markup:
    """Accuracy of the predictions of each confidence, and its gap to the diagonal."""
    up, across = Axis(0, 1, 206, 12), Axis(0, 1, 8, 97)
    marks = []
    for tick in (0, 0.5, 1.0):
        y = up.place(tick)
        marks += [line("0%", y, "100%", y, "grid"),
                  text("0", y - 4, f"{tick:.0%}", "tick"),
                  text(across.percent(tick), 222, f"{tick:.0%}", "tick " + (
                      "end" if tick == 1 else "middle" if tick else ""))]  # fmt: skip
    marks.append(line(across.percent(0), up.place(0), across.percent(1), up.place(1), "reference"))
    largest = max(b["n"] for b in found["bins"])
    for b in found["bins"]:
        x, y = across.percent(b["confidence"]), up.place(b["accuracy"])
        hint = (f"{b['n']:,} predictions, {_units.percent(b['confidence'])} sure, "
                f"{_units.percent(b['accuracy'])} right")  # fmt: skip
        marks.append(tag(
            "g", tag("title", hint), line(x, up.place(b["confidence"]), x, y, "whisker"),
            tag("circle", cx=x, cy=y, r=f"{2.5 + 5 * math.sqrt(b['n'] / largest):.2f}",
                class_="marker"),
        ))  # fmt: skip
    marks += [text("0", 240, "↑ right", "tick strong"),
              text("100%", 240, "sure →", "tick strong end")]  # fmt: skip
    words = f"expected calibration error {_units.percent(found['ece'])}"
    return svg(name, f"Reliability of {found['label']}", words, 246,
               tag("g", *marks, class_="int8" if found.get("integer") else "float"))  # fmt: skip


def _shown(row: Spread) -> list[float]:
    warm = row["warm_ns"]
    return [*([warm[5], warm[95]] if warm else []), *row["load_ns"], *row["first_ns"]]


def _box(row: Spread, axis: Axis, y: float) -> Markup:
    def at(ns: float) -> str:
        return axis.percent(math.log10(max(ns, 1)))

    marks: list[Markup] = [text("0", y + 4, short(row["target"], 34), "label")]
    warm = row["warm_ns"]
    if warm:
        hint = (f"warm: median {_units.time(warm[50])}, 5 % to 95 % {_units.time(warm[5])} to "
                f"{_units.time(warm[95])}")  # fmt: skip
        marks += [text("100%", y + 4, _units.time(warm[50]), "value end"), tag(
            "g", tag("title", hint),
            line(at(warm[5]), y + 19, at(warm[95]), y + 19, "whisker"),
            line(at(warm[25]), y + 19, at(warm[75]), y + 19, "thick"),
            line(at(warm[50]), y + 12, at(warm[50]), y + 26, "whisker"),
        )]  # fmt: skip
    for every, kind, words in (
        (row["load_ns"], "open", "loading"),
        (row["first_ns"], "marker", "first"),
    ):
        marks += [
            tag("circle", tag("title", f"{words}: {_units.time(ns)}"), cx=at(ns), cy=y + 19, r=3.5,
                class_=kind)
            for ns in every
        ]  # fmt: skip
    return tag("g", join(*marks), class_=tone(row))

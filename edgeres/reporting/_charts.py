"""The report's charts: rows of the document in, inline SVG out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgeres.reporting import _units
from edgeres.reporting._markup import Markup, join, tag
from edgeres.reporting._svg import Axis, line, marker, short, svg, text, ticks, tone

if TYPE_CHECKING:
    from edgeres.records import Facts
    from edgeres.reporting._document import Accuracy, Point, Rated, Ratioed

Unit = tuple[str, float]
_ROW_PX = 40
_RUNG_PX = 46
_LABEL_PX = 18
_MIDDLE = 42


def ladder(rows: Sequence[Rated]) -> Markup:
    """Dot and whisker per rung, on one accuracy axis that does not start at zero."""
    known = [(row, found) for row in rows if (found := row["accuracy"])]
    marks_at = _accuracy_ticks([found for _, found in known], 5)
    axis = Axis(marks_at[0], marks_at[-1])
    height = 22 + _RUNG_PX * len(known)
    marks = []
    told = 1 if len(marks_at) <= 5 else 2  # every or every other, for a phone's width
    for i, tick in enumerate(marks_at):
        marks.append(line(axis.percent(tick), 20, axis.percent(tick), height, "grid"))
        if i % told:
            continue
        first, last = i == 0, i == len(marks_at) - 1
        place = "0" if first else "100%" if last else axis.percent(tick)
        anchor = "" if first else "end" if last else "middle"
        marks.append(text(place, 11, _tick_percent(tick, marks_at), f"tick {anchor}"))
    start = axis.percent(known[0][1]["top1"])
    marks.append(line(start, 20, start, height, "reference"))
    marks += [_rung(row, found, axis, 40 + _RUNG_PX * i) for i, (row, found) in enumerate(known)]
    described = "; ".join(f"{r['label']} {_units.percent(found['top1'])}" for r, found in known)
    return svg("ladder-chart", "Top-1 accuracy from rung to rung", described, height, *marks)


def scatter(name: str, device: str, rows: Sequence[Point]) -> Markup:
    """Accuracy against median latency with both intervals; every row has both.

    Labels stand above the plot, one line each, so that none can hide a point or another label.
    """
    rows = sorted(rows, key=lambda row: row["latency"]["median_ns"])
    unit = _units.time_unit([row["latency"]["median_ns"] for row in rows])
    top = 30.0 + _LABEL_PX * len(rows)
    bottom = top + 170
    marks_at = _accuracy_ticks([row["accuracy"] for row in rows], 4)
    up, across = Axis(marks_at[0], marks_at[-1], bottom, top), _TimeAxis(rows, unit)
    marks = []
    for tick in marks_at:
        y = up.place(tick)
        marks += [line("0%", y, "100%", y, "grid"),
                  text("0", y - 4, _tick_percent(tick, marks_at), "tick")]  # fmt: skip
    for tick in across.ticks:
        end = "end" if across.axis.place(tick) > 94 else "middle"
        marks.append(text(across.axis.percent(tick), bottom + 17, across.label(tick),
                          f"tick {end}"))  # fmt: skip
    scale = ", log" if across.logarithmic else ""
    marks += [text("0", bottom + 36, "↑ top-1 accuracy", "tick strong"),
              text("100%", bottom + 36, f"median latency, {unit[0]}{scale} →",
                   "tick strong end")]  # fmt: skip
    marks += [_point(row, across, up, unit) for row in rows]
    # Labels on the left half run rightwards and those on the right half leftwards; in this order
    # few of the lines that lead down from them pass behind another label.
    left = [row for row in rows if across.place(row["latency"]["median_ns"]) <= _MIDDLE]
    marks += [_point_label(row, across, up, unit, 12 + _LABEL_PX * i)
              for i, row in enumerate(left + rows[len(left):][::-1])]  # fmt: skip
    described = "; ".join(f"{_point_name(r, unit)}, {_units.percent(r['accuracy']['top1'])}"
                          for r in rows)  # fmt: skip
    return svg(name, f"Accuracy against latency on {device}", described, bottom + 42, *marks)


def ratios(name: str, title: str, rows: Sequence[Ratioed]) -> Markup:
    """Dot and whisker per measure around 1, on a logarithmic axis; the band is tolerated.

    A row has label, change, interval (or None), tolerance, and a tone: better, same or worse.
    """
    tolerated = [(1 + row["tolerance"]) ** sign for row in rows for sign in (1, -1)]
    ends = [end for r in rows for end in (*(r["interval"] or ()), r["change"])]
    marks_at = _ratio_ticks([_clipped(end) for end in (*tolerated, *ends)])
    axis = Axis(math.log(marks_at[0]), math.log(marks_at[-1]), 3, 97)
    height, marks = 22 + _RUNG_PX * len(rows), []
    for i, tick in enumerate(marks_at):
        x = axis.percent(math.log(tick))
        anchor = "" if i == 0 else " end" if i == len(marks_at) - 1 else " middle"
        place = "0" if i == 0 else "100%" if anchor == " end" else x
        marks += [line(x, 20, x, height, "reference" if tick == 1 else "grid"),
                  text(place, 11, f"{tick:g}×", f"tick{anchor}")]  # fmt: skip
    marks += [_ratio(row, axis, 40 + _RUNG_PX * i) for i, row in enumerate(rows)]
    described = "; ".join(f"{row['label']} {_ratio_words(row)}" for row in rows)
    return svg(name, title, described, height, *marks)


def bars(name: str, title: str, rows: Sequence[tuple[str, int, str]]) -> Markup:
    """Sizes as (label, bytes, css class), from zero."""
    largest = max(size for _, size, _ in rows) or 1
    marks = []
    for i, (label, size, kind) in enumerate(rows):
        y, width = 15 + _ROW_PX * i, f"{100 * size / largest:.2f}%"
        marks.append(join(
            text("0", y, short(label, 34), "label"),
            text("100%", y, _units.size(size), "value end"),
            tag("rect", x=0, y=y + 7, width="100%", height=7, rx=2, class_="track"),
            tag("rect", x=0, y=y + 7, width=width, height=7, rx=2, class_=f"bar {kind}"),
        ))  # fmt: skip
    described = "; ".join(f"{label} {_units.size(size)}" for label, size, _ in rows)
    return svg(name, title, described, _ROW_PX * len(rows) - 8, *marks)


def curves(name: str, title: str, rows: Sequence[Facts]) -> Markup:
    """Validation top-1 above and training loss below, by epoch."""
    highest = max((v for r in rows if (v := r.get("loss")) is not None), default=0) or 1
    top1, loss = _last(rows, "validation_top1"), _last(rows, "loss")
    ends = (_units.percent(top1) if top1 is not None else "not known",
            _units.number(loss) if loss is not None else "not finite")  # fmt: skip
    return svg(
        name, f"Training of {title}",
        f"{len(rows)} epochs; validation top-1 ends at {ends[0]}, training loss at {ends[1]}", 226,
        _panel(rows, "validation_top1", Axis(0, 1, 104, 24), "validation top-1", ends[0], "int8"),
        _panel(rows, "loss", Axis(0, highest, 206, 136), "training loss", ends[1], "float"),
        text("0", 222, f"epoch {rows[0].get('epoch', 1)}", "tick"),
        text("100%", 222, str(rows[-1].get("epoch", len(rows))), "tick end"),
    )  # fmt: skip


def swatch(kind: str) -> Markup:
    """The marker of a legend entry: "int8", "float" or "invalid"."""
    mark = marker("50%", 8, "fp32" if kind == "float" else "int8")
    return tag("svg", tag("g", mark, class_=kind), width=16, height=16, class_="swatch",
               aria_hidden="true")  # fmt: skip


class _TimeAxis:
    """Latency from zero, or logarithmic where the slowest is over 10 times the fastest."""

    def __init__(self, rows: Sequence[Point], unit: Unit):
        self.factor = unit[1]
        bounds = [bound for row in rows for bound in row["latency"]["median_ci_ns"]]
        low, high = (max(bound, 1) / self.factor for bound in (min(bounds), max(bounds)))
        self.logarithmic = high > 10 * low
        if self.logarithmic:
            decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
            self.ticks = [float(decade) for decade in decades]
        else:
            self.ticks = ticks(0, high, 5)
        self.axis = Axis(self.ticks[0], self.ticks[-1], 14, 97)

    def place(self, nanoseconds: float) -> float:
        value = max(nanoseconds, 1) / self.factor
        return self.axis.place(math.log10(value) if self.logarithmic else value)

    def label(self, tick: float) -> str:
        return f"{10**tick if self.logarithmic else tick:g}"


def _rung(row: Rated, found: Accuracy, axis: Axis, y: float) -> Markup:
    middle = y + 12
    low, high = axis.percent(found["low"]), axis.percent(found["high"])
    interval = _units.percent_range(found["low"], found["high"])
    model = row["detail"] if row["kind"] == "network" else ""
    hint = f"{row['label']}: {_units.percent(found['top1'])} ({interval}), n={found['n']}"
    return tag(
        "g", tag("title", hint),
        text("0", y, short(f"{row['label']} {model}".strip(), 34), "label"),
        text("100%", y, _units.percent(found["top1"]), "value end"),
        line(low, middle, high, middle, "whisker"),
        line(low, middle - 4, low, middle + 4, "whisker"),
        line(high, middle - 4, high, middle + 4, "whisker"),
        marker(axis.percent(found["top1"]), middle, row["precision"]), class_=tone(row),
    )  # fmt: skip


def _ratio(row: Ratioed, axis: Axis, y: float) -> Markup:
    middle, band = y + 12, math.log(_clipped(1 + row["tolerance"]))
    ends = [axis.percent(math.log(_clipped(end))) for end in row["interval"] or ()]
    whiskers = [line(ends[0], middle, ends[1], middle, "whisker")] if ends else []
    whiskers += [line(x, middle - 4, x, middle + 4, "whisker") for x in ends]
    width = f"{axis.place(band) - axis.place(-band):.2f}%"
    return tag(
        "g", tag("title", f"{row['label']}: {_ratio_words(row)}"),
        tag("rect", x=axis.percent(-band), y=middle - 7, width=width, height=14, class_="track"),
        text("0", y, short(row["label"], 30), "label"),
        text("100%", y, _ratio_words(row), "value end"), *whiskers,
        marker(axis.percent(math.log(_clipped(row["change"]))), middle, "int8"), class_=row["tone"],
    )  # fmt: skip


def _ratio_words(row: Ratioed) -> str:
    span = row["interval"]
    return f"{row['change']:.2f}×" + (f" ({span[0]:.2f}–{span[1]:.2f})" if span else "")


def _clipped(ratio: float) -> float:
    """As far out as an axis goes."""
    return min(max(ratio, 2.0**-12), 2.0**12)


def _ratio_ticks(ratios: Sequence[float]) -> list[float]:
    """Ratios that enclose these and 1, and have 1 among them."""
    low, high = min(*ratios, 1.0), max(*ratios, 1.0)
    if low >= 0.8 and high <= 1.25:
        return [0.8, 1.0, 1.25]
    first, last = math.floor(math.log2(low)), math.ceil(math.log2(high))
    step = 1 + (last - first) // 6
    return [2.0**k for k in range(step * (first // step), last + step, step)]


def _point(row: Point, across: _TimeAxis, up: Axis, unit: Unit) -> Markup:
    found, latency = row["accuracy"], row["latency"]
    x, y = f"{across.place(latency['median_ns']):g}%", up.place(found["top1"])
    low, high = (f"{across.place(bound):g}%" for bound in latency["median_ci_ns"])
    hint = (f"{row['target']}: {_units.time_range(latency['median_ci_ns'], unit)}, "
            f"{_units.percent_range(found['low'], found['high'])}")  # fmt: skip
    ends = (up.place(found["low"]), up.place(found["high"]))
    return tag(
        "g", tag("title", hint),
        line(low, y, high, y, "whisker"), line(x, ends[0], x, ends[1], "whisker"),
        *(line(bound, y - 4, bound, y + 4, "whisker") for bound in (low, high)),
        marker(x, y, row["precision"]), class_=tone(row),
    )  # fmt: skip


def _point_label(row: Point, across: _TimeAxis, up: Axis, unit: Unit, y: float) -> Markup:
    """The name beside a thin line that leads down to the point's whisker."""
    place = across.place(row["latency"]["median_ns"])
    x, kind, shift = f"{place:g}%", "label over", 5
    if place > _MIDDLE:
        kind, shift = "label over end", -5
    name = tag("text", _point_name(row, unit), x=shift, y=4, class_=kind)
    return join(
        line(x, y - 6, x, up.place(row["accuracy"]["high"]) - 3, "leader"),
        tag("svg", name, x=x, y=y, class_="free"),
    )


def _point_name(row: Point, unit: Unit) -> str:
    invalid = "" if row["status"] == "valid" else " (invalid)"
    return f"{short(row['target'], 24)}{invalid} {_units.time(row['latency']['median_ns'], unit)}"


def _panel(rows: Sequence[Facts], key: str, up: Axis, title: str, end: str, kind: str) -> Markup:
    """One curve between two lines; a value that wasn't finite leaves a gap."""
    top, height = up.end, up.start - up.end
    axis = Axis(0, max(len(rows) - 1, 1), 0, 100)
    segments: list[list[str]] = [[]]
    dot = None
    for i, row in enumerate(rows):
        if row.get(key) is None:
            segments.append([])
            continue
        y = up.place(row[key])
        segments[-1].append(f"{axis.place(i):g},{100 * (y - top) / height:.2f}")
        dot = tag("circle", cx=axis.percent(i), cy=y, r=3.5, class_="marker")
    lines = [tag("polyline", points=" ".join(s), class_="curve") for s in segments if len(s) > 1]
    return tag(
        "g", line("0%", top, "100%", top, "grid"),
        line("0%", top + height, "100%", top + height, "grid"),
        tag("svg", *lines, x=0, y=top, width="100%", height=height, viewBox="0 0 100 100",
            preserveAspectRatio="none", class_="free"),
        dot, text("0", top - 6, title, "tick"), text("100%", top - 6, end, "value end"),
        class_=kind,
    )  # fmt: skip


def _last(rows: Sequence[Facts], key: str) -> float | None:
    return rows[-1].get(key)


def _accuracy_ticks(found: Sequence[Accuracy], count: int) -> list[float]:
    return ticks(min(f["low"] for f in found), max(f["high"] for f in found), count)


def _tick_percent(tick: float, marks_at: Sequence[float]) -> str:
    step = 100 * (marks_at[1] - marks_at[0])
    return _units.percent(tick, 0 if abs(step - round(step)) < 1e-6 else 1)

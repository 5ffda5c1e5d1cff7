"""The report's interactive plots: rows of the document in, Plotly figures as plain values out.

A colour is the name of one of the page's own, `@int8` or `@ink`; `_plots.js` looks it up and looks
again when the reader changes the theme. Every name is escaped: Plotly reads some tags in text.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from edgeres.reporting import _units
from edgeres.reporting._markup import Markup, tag
from edgeres.reporting._rungs import INTEGER

if TYPE_CHECKING:
    from edgeres.reporting._document import Point, Spread, Toned, Trained

Figure = dict[str, object]
"""Data and layout as Plotly has them."""

_TONES = {"int8": "@accent", "float": "@float", "invalid": "@warn"}
_DASHES = ("solid", "dash", "dot", "dashdot", "longdashdot")
# One shape a file: names are told apart without colours, too.
_SHAPES = ("circle", "square", "diamond", "triangle-up", "cross", "star", "triangle-down",
           "pentagon", "x", "hexagon", "bowtie", "hourglass")  # fmt: skip
_FAR = 10  # a logarithmic axis where the largest is more than 10 times the smallest


def place(name: str, words: str) -> Markup:
    """Where `_plots.js` draws the figure of that name."""
    return tag("div", id=f"plot-{name}", class_="plot", role="img", aria_label=words)


def data(figures: Mapping[str, Figure]) -> Markup:
    """The figures as a data block that no name in it can end."""
    text = json.dumps(figures, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return tag("script", Markup(text), type="application/json", id="plots")


def pareto(rows: Sequence[Point]) -> Figure:
    """Top-1 in percent against median latency with both intervals, and the front of the best."""
    unit = _units.time_unit([row["latency"]["median_ns"] for row in rows])
    points = sorted((row["latency"]["median_ns"] / unit[1], 100 * row["accuracy"]["top1"])
                    for row in rows)  # fmt: skip
    front: list[tuple[float, float]] = []
    for x, y in points:
        if not front or y > front[-1][1]:
            front.append((x, y))
    traces: list[Figure] = []
    if len(front) > 1:
        xs, ys = zip(*front, strict=True)
        traces.append(_line(xs, ys, "Pareto front", "@soft", dash="dot", width=1, shape="hv"))
    traces += [_point(row, unit, _SHAPES[i % len(_SHAPES)]) for i, row in enumerate(rows)]
    axis = _axis(f"median latency, {unit[0]}", [x for x, _ in points])
    return _figure(traces, axis, {"title": {"text": "top-1, %"}})


def warm(rows: Sequence[Spread]) -> Figure:
    """Share of inferences that took at most so long, one line per file."""
    unit = _units.time_unit([row["warm_ns"][50] for row in rows])
    traces = []
    for i, row in enumerate(rows):
        x = [_rounded(ns / unit[1]) for ns in row["warm_ns"]]
        traces.append(_line(x, list(range(len(x))), _name(row), _tone(row), _DASHES[i % 5],
                            hover="%{y} % within %{x} " + unit[0]))  # fmt: skip
    body = [ns / unit[1] for row in rows for ns in row["warm_ns"][1:99]]
    axis = _axis(f"one inference, {unit[0]}", body, (min(body), max(body)))
    return _figure(traces, axis, {"title": {"text": "share of inferences, %"}, "range": [0, 101]})


def cold(rows: Sequence[Spread]) -> Figure:
    """Loading and first inference of every fresh process, a row of dots per file."""
    traces: list[Figure] = []
    every = [ns for row in rows for ns in (*row["load_ns"], *row["first_ns"])]
    unit = _units.time_unit([max(every)])
    loads, firsts = ([row["load_ns"] for row in rows], [row["first_ns"] for row in rows])
    for what, times, symbol in (("loading the file", loads, "circle-open"),
                                ("first inference", firsts, "circle")):  # fmt: skip
        for tone in _TONES.values():
            mine = [(ns / unit[1], _name(row)) for row, starts in zip(rows, times, strict=True)
                    if _tone(row) == tone for ns in starts]  # fmt: skip
            if mine:
                marker = {"color": tone, "symbol": symbol, "size": 9, "opacity": 0.75}
                traces.append({
                    "type": "scatter", "mode": "markers", "name": what, "legendgroup": what,
                    "showlegend": not any(t["name"] == what for t in traces),
                    "x": [_rounded(x) for x, _ in mine], "y": [name for _, name in mine],
                    "marker": marker, "hovertemplate": f"%{{x}} {unit[0]}<extra>{what}</extra>",
                })  # fmt: skip
    names = [_name(row) for row in rows]
    axis = _axis(f"in a fresh process, {unit[0]}", [ns / unit[1] for ns in every])
    up = {"categoryorder": "array", "categoryarray": names[::-1], "automargin": True,
          "type": "category"}  # fmt: skip
    return _figure(traces, axis, up, height=140 + 34 * len(rows))


def curves(trained: Sequence[Trained], key: str, words: str, factor: float = 1.0) -> Figure:
    """One line per network over its epochs; a value that wasn't finite leaves a gap."""
    traces = []
    for i, found in enumerate(trained):
        y = [None if row.get(key) is None else _rounded(row[key] * factor) for row in found["rows"]]
        x = [row.get("epoch", n) for n, row in enumerate(found["rows"], 1)]
        tone = "@accent" if found["step"] == "quantize" else "@float"
        traces.append(_line(x, y, _safe(found["label"]), tone, _DASHES[i % 5], points=True))
    return _figure(traces, {"title": {"text": "epoch"}}, {"title": {"text": words}}, height=300)


def _point(row: Point, unit: tuple[str, float], shape: str) -> Figure:
    found, latency, tone = row["accuracy"], row["latency"], _tone(row)
    x, y = latency["median_ns"] / unit[1], 100 * found["top1"]
    low, high = (ns / unit[1] for ns in latency["median_ci_ns"])
    error = {"type": "data", "symmetric": False, "color": tone, "thickness": 1.5, "width": 4}
    return {
        "type": "scatter", "mode": "markers", "name": _name(row),
        "x": [_rounded(x)], "y": [_rounded(y)],
        "error_x": {**error, "array": [_rounded(high - x)], "arrayminus": [_rounded(x - low)]},
        "error_y": {**error, "array": [_rounded(100 * found["high"] - y)],
                    "arrayminus": [_rounded(y - 100 * found["low"])]},
        "marker": {"color": tone, "size": 12,
                   "symbol": shape + ("-open" if tone == _TONES["invalid"] else "")},
        "hovertemplate": f"%{{x}} {unit[0]} ({low:.3g}–{high:.3g})<br>%{{y}} % "
                         f"({100 * found['low']:.1f}–{100 * found['high']:.1f})",
    }  # fmt: skip


def _line(
    x: Sequence[float], y: Sequence[float | None], name: str, tone: str, dash: str = "solid",
    width: float = 2, shape: str = "linear", hover: str = "%{y} at %{x}", points: bool = False,
) -> Figure:  # fmt: skip
    return {"type": "scatter", "mode": "lines+markers" if points and len(x) < 60 else "lines",
            "name": name, "x": list(x), "y": list(y), "hovertemplate": hover,
            "line": {"color": tone, "dash": dash, "width": width, "shape": shape},
            "marker": {"color": tone, "size": 6}}  # fmt: skip


def _axis(words: str, values: Sequence[float], shown: tuple[float, float] | None = None) -> Figure:
    """From zero, or logarithmic where the values are far apart."""
    import math

    positive = [v for v in values if v > 0] or [1.0]
    far = max(positive) > _FAR * min(positive)
    axis: Figure = {"title": {"text": words + (", log scale" if far else "")},
                    "type": "log" if far else "linear"}  # fmt: skip
    if far and shown:
        axis["range"] = [math.log10(max(shown[0], min(positive)) * 0.9), math.log10(shown[1] * 1.1)]
    elif not far:
        axis["range"] = [0, 1.08 * (shown[1] if shown else max(positive))]
    return axis


def _figure(traces: Iterable[Figure], across: Figure, up: Figure, height: int = 380) -> Figure:
    grid = {"gridcolor": "@grid", "linecolor": "@line", "zeroline": False, "automargin": True,
            "tickfont": {"color": "@soft"}}  # fmt: skip
    titled = [{**axis, "title": {**_title(axis), "font": {"size": 12}, "standoff": 12}}
              for axis in (across, up)]  # fmt: skip
    return {"data": list(traces), "layout": {
        "height": height, "xaxis": {**grid, **titled[0]}, "yaxis": {**grid, **titled[1]},
        "margin": {"l": 8, "r": 14, "t": 34, "b": 8}, "hovermode": "closest",
        "paper_bgcolor": "@card", "plot_bgcolor": "@card",
        "font": {"family": "system-ui, sans-serif", "size": 12.5, "color": "@ink"},
        "legend": {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom",
                   "x": 0, "font": {"color": "@soft"}},
        "hoverlabel": {"bgcolor": "@card", "bordercolor": "@soft", "font": {"color": "@ink"}},
    }}  # fmt: skip


def _title(axis: Figure) -> Figure:
    title = axis.get("title")
    return title if isinstance(title, dict) else {}


def _tone(row: Toned) -> str:
    if row.get("status", "valid") != "valid":
        return _TONES["invalid"]
    return _TONES["int8" if row["precision"] in INTEGER else "float"]


def _name(row: Point | Spread) -> str:
    return _safe(row["target"]) + ("" if row.get("status", "valid") == "valid" else " (invalid)")


def _safe(words: str) -> str:
    clean = "".join(c if c.isprintable() else "\ufffd" for c in words)
    return html.escape(clean[:40], quote=False).replace("%{", "% {").replace("@", "＠")


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")

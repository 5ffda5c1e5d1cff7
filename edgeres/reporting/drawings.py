"""The report's drawings as SVG files of their own: the document in, text out.

The page's style sheet becomes one that every program reads: light colours in place of variables.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import resources
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from edgeres.reporting import _charts, _figures, _network, _spreads
from edgeres.reporting._markup import Markup, tag

if TYPE_CHECKING:
    from edgeres.reporting._document import Report

_WIDTH, _EDGE, _HEAD = 720, 20, 48
_TONES = {"int8": "accent", "float": "float", "invalid": "warn"}
_FONT = "system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def every(report: Report) -> dict[str, str]:
    """File name -> an SVG document, of everything that the page draws."""
    style = _style()
    found: dict[str, str] = {}
    for name, drawing in _drawn(report):
        number, file = 2, f"{_slug(name)}.svg"
        while file in found:
            number, file = number + 1, f"{_slug(name)}-{number}.svg"
        found[file] = _alone(drawing, style)
    return found


def _drawn(report: Report) -> Iterator[tuple[str, Markup]]:
    if any(row["accuracy"] for row in report["ladder"]):
        yield "ladder", _charts.ladder(report["ladder"])
    for name, device, rows in _figures.tradeoffs(report):
        yield f"accuracy-latency-{device}", _charts.scatter(name, device, rows)
    if bars := _figures.sizes(report):
        yield "sizes", _charts.bars("sizes", "Sizes", bars)
    for name, device, spread in _figures.distributions(report):
        yield f"latency-{device}", _spreads.boxes(f"boxes-{name}", device, spread)
    for found in report["training"]:
        yield f"training-{found['step']}", _charts.curves(found["step"], found["label"],
                                                          found["rows"])  # fmt: skip
    for row in _figures.reliability(report):
        yield f"calibration-{row['step']}", _spreads.reliability(row["step"], row)
    for network in report["networks"]:
        target, layers = network["target"], network["layers"]
        yield f"inside-{target}", _network.draw(target, f"Inside {target}", layers)
        if layer_bars := _figures.layer_sizes(layers)[0]:
            words = f"Size by layer of {target}"
            yield f"layers-{target}", _charts.bars(target, words, layer_bars)


def _alone(drawing: Markup, style: Markup) -> str:
    """A drawing under its title, of a fixed width, on a white ground."""
    read = ElementTree.fromstring(drawing)
    height = float(read.attrib["height"])
    whole = f"{height + _HEAD + _EDGE:g}"
    document = tag(
        "svg", tag("style", style), tag("rect", width="100%", height="100%", class_="ground"),
        tag("text", read.findtext("title"), x=_EDGE, y=28, class_="heading"),
        tag("svg", drawing, x=_EDGE, y=_HEAD, width=_WIDTH, height=f"{height:g}"),
        xmlns="http://www.w3.org/2000/svg", width=_WIDTH + 2 * _EDGE, height=whole,
    )  # fmt: skip
    # A viewBox lets a program scale it; `tag` would write the attribute's name in its own way.
    box = f'viewBox="0 0 {_WIDTH + 2 * _EDGE} {whole}"'
    document = Markup(document.replace("<svg ", f"<svg {box} ", 1))
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{document}\n'


def _style() -> Markup:
    """The drawings' rules without variables, which few programs beside browsers know."""
    folder = resources.files("edgeres.reporting")
    page, drawing = ((folder / n).read_text("utf-8") for n in ("_style.css", "_drawing.css"))
    root = page[: page.index("}")]
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]+)", root))
    rules = [
        f"svg {{ font-family: {_FONT}; overflow: visible; }}",
        f".ground {{ fill: {colours['card']}; }}",
        f".heading {{ font-size: 15px; font-weight: 600; fill: {colours['ink']}; }}",
    ]
    for selector, body in re.findall(r"([^{}/*]+)\{([^{}]+)\}", drawing):
        rules += _toned(selector.strip(), " ".join(body.split()))
    rules.append(".chart text { stroke: none; }")  # a halo hides text where paint-order is unknown
    return Markup(re.sub(r"var\(--([a-z]+)\)", lambda m: colours[m[1]], "\n".join(rules)))


def _toned(selector: str, body: str) -> list[str]:
    """A rule whose colour is its group's, as one rule for each tone."""
    if "--tone:" in body:
        return []
    if "var(--tone" not in body:
        return [f"{selector} {{ {body} }}"]
    if ".invalid" in selector:
        return [f"{selector} {{ {body.replace('var(--tone)', 'var(--warn)')} }}"]
    before, _, last = selector.rpartition(" ")
    rules = []
    if "var(--tone," in body:
        plain = re.sub(r"var\(--tone, (var\(--[a-z]+\))\)", r"\1", body)
        rules.append(f"{selector} {{ {plain} }}")
    for tone, colour in _TONES.items():
        toned = re.sub(r"var\(--tone(, var\(--[a-z]+\))?\)", f"var(--{colour})", body)
        rules.append(f"{before} .{tone} {last}, {before} {last}.{tone} {{ {toned} }}".strip())
    return rules


def _slug(name: str) -> str:
    """A file's name from a device's or a target's, which may be anything."""
    clean = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")
    return clean[:80] or "drawing"

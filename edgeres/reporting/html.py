"""The report as one HTML file: the document of `ladder.build` in, a page as text out.

The page loads nothing: its style, scripts and pictures are in it, and its content policy allows no
others. It follows the reader's light or dark setting, fits a phone and prints. The plots are drawn
by plotly.js (its `basic` bundle); on paper, and where scripts are off, drawings in SVG stand in.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib import resources
from typing import TYPE_CHECKING

from edgeres.reporting import _evidence, _figures, _plots, _sections, _tiles
from edgeres.reporting._markup import Child, Markup, join, tag

if TYPE_CHECKING:
    from edgeres.reporting._document import Report

_SECTIONS = (
    ("ladder", "Ladder", _sections.ladder),
    ("tradeoff", "Latency and size", _sections.tradeoff),
    ("distributions", "Distributions", _evidence.distributions),
    ("budgets", "Budgets", _evidence.budgets),
    ("files", "Files", _sections.files),
    ("verification", "Verification", _sections.verification),
    ("inside", "Inside", _sections.inside),
    ("training", "Training", _sections.training),
    ("answers", "Answers", _evidence.answers),
    ("explained", "Where they look", _evidence.explained),
    ("data", "Data", _sections.data),
    ("environment", "Environment", _sections.environment),
    ("recipe", "Recipe", _sections.recipe),
)
_METHOD = (
    "Shares have Wilson 95 % intervals. Changes are paired, image by image: exact two-sided "
    "McNemar test, adjusted Wald interval (Bonett and Price 2012). The range of a speed-up is from "
    "the ends of both files' 95 % intervals and session medians. 1 kB = 1000 B, 1 MB = 1000 kB, "
    "1 ms = 1000 µs."
)


def render(report: Report) -> str:
    """The whole page.

    Args:
        report: what `ladder.build` returned, or the same read back from report.json.
    """
    parts = [(name, title, draw(report)) for name, title, draw in _SECTIONS]
    shown = [(name, title, part) for name, title, part in parts if part is not None]
    links = [tag("li", tag("a", title, href=f"#{name}")) for name, title, _ in shown]
    sentences = report["summary"]["sentences"]
    header = tag(
        "header", tag("p", "edgeres report", class_="kicker"), tag("h1", report["title"]),
        _about(report),
        tag("p", sentences[0], class_="headline"),
        tag("p", " ".join(sentences[1:]), class_="more") if sentences[1:] else None,
        _tiles.tiles(report["summary"]), _next(report),
    )  # fmt: skip
    nav = tag("nav", tag("ul", *links), aria_label="Sections") if len(shown) > 1 else None
    figures = _figures.every(report)
    scripts = [_plots.data(figures), *(tag("script", s) for s in _scripts())] if figures else []
    body = tag(
        "body", tag("a", "Skip to the results", href="#main", class_="skip"), header, nav,
        tag("main", *(part for _, _, part in shown), id="main"),
        tag("footer", tag("p", _METHOD)), *scripts,
    )  # fmt: skip
    return document(join(report["title"], " – edgeres report"), body, _scripts())


def document(title: Child, body: Markup, scripts: Sequence[Markup] = ()) -> str:
    """A page's text: it loads nothing, and of scripts only these may run in it."""
    return f"<!DOCTYPE html>\n{tag('html', _head(title, scripts), body, lang='en')}\n"


def _about(report: Report) -> Markup | None:
    """Which run, when, made and measured where, and its recipe."""
    devices = [f"{d['device']} ({d['state']['cpu_model']})" if d["state"].get("cpu_model")
               else d["device"] for d in report["devices"]]  # fmt: skip
    recipe = tag("a", "every setting", href="#recipe") if report["recipe"].strip() else None
    rows = [
        ("Run", report.get("run")),
        ("Written", (report.get("written_at") or "").replace("T", " ").replace("+00:00", " UTC")),
        ("Made on", report["environment"].get("system")),
        ("Measured on", ", ".join(devices)), ("Recipe", recipe),
    ]  # fmt: skip
    shown = [tag("div", tag("dt", name), tag("dd", said)) for name, said in rows if said]
    return tag("dl", *shown, class_="about") if shown else None


def _next(report: Report) -> Markup | None:
    """What limits accuracy, latency and size, each with the command that changes it."""
    rows = report.get("next")
    if not rows:
        return None
    items = [tag("li", tag("b", row["limit"].capitalize()), ": ", row["says"], " ",
                 tag("code", row["command"])) for row in rows]  # fmt: skip
    return tag("div", tag("h2", "What to do next"), tag("ul", *items), class_="next")


def _scripts() -> list[Markup]:
    """plotly.js, and what draws our figures with it."""
    folder = resources.files("edgeres.reporting")
    library = (folder / "plotly" / "plotly-basic.min.js").read_text("utf-8")
    return [Markup(library), Markup((folder / "_plots.js").read_text("utf-8"))]


def _head(title: Child, scripts: Sequence[Markup]) -> Markup:
    folder = resources.files("edgeres.reporting")
    style = "".join((folder / name).read_text("utf-8") for name in ("_drawing.css", "_style.css"))
    allowed = " ".join(map(_hash, scripts)) or "'none'"
    # plotly.js adds an empty <style> and fills it by script, and sets style attributes.
    policy = "; ".join([
        "default-src 'none'", f"script-src {allowed}",
        f"style-src {_hash(style)} {_hash('')}", "style-src-attr 'unsafe-inline'",
        "img-src data:", "base-uri 'none'", "form-action 'none'",
    ])  # fmt: skip
    return tag(
        "head", tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name_="color-scheme", content="light dark"),
        tag("meta", name_="referrer", content="no-referrer"),
        tag("title", title), tag("style", Markup(style)),
    )  # fmt: skip


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

"""What sections are put together from: headed parts, figures and notes."""

from __future__ import annotations

from edgeres.reporting._markup import Child, Markup, tag


def section(name: str, title: str, *content: Child) -> Markup:
    """A headed part of the page, reachable as #name."""
    return tag("section", tag("h2", title, id=f"{name}-h"), *content, id=name,
               aria_labelledby=f"{name}-h")  # fmt: skip


def figure(*content: Child, caption: str = "", above: Child = None) -> Markup:
    """Plots and charts with words above or below them."""
    return tag("figure", tag("figcaption", above, class_="above") if above else None, *content,
               tag("figcaption", caption) if caption else None)  # fmt: skip


def chart(drawing: Child) -> Markup:
    """A drawing that a plot beside it replaces on the screen, where scripts run."""
    return tag("div", drawing, class_="drawing")


def note(words: Child) -> Markup:
    """A remark in small type."""
    return tag("p", words, class_="note")

"""HTML as values: names and children in, `Markup` out, with every plain string escaped on the way.

Only `tag` and `join` make Markup, and both escape whatever isn't Markup yet, so a device name or a
recipe can't become a tag by being forgotten.
"""

from __future__ import annotations

import html

Child = object
"""Markup, or anything else as escaped text; None is nothing."""

_VOID = {"img", "meta"}
# Controls, lone surrogates and bidirectional overrides: not valid in HTML, or able to make a text
# read as another.
_REPLACED = dict.fromkeys(
    [*range(9), 11, 12, *range(14, 32), *range(127, 160), *range(0x202A, 0x202F),
     *range(0x2066, 0x206A), *range(0xD800, 0xE000), 0xFFFE, 0xFFFF],
    "\ufffd",
)  # fmt: skip


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def escape(value: Child) -> Markup:
    """Any value as HTML text; Markup stays as it is, None is empty."""
    if isinstance(value, Markup):
        return value
    text = "" if value is None else str(value)
    return Markup(html.escape(text.replace("\r", "").translate(_REPLACED)))


def tag(name: str, *children: Child, **attributes: object) -> Markup:
    """An element: `tag("td", 3, class_="n", aria_label="x")`.

    In attribute names a last underscore falls away and others become hyphens; None and False
    leave the attribute out, True gives it without a value.
    """
    parts = [name]
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        if value is True:
            parts.append(key)
        elif value is not None and value is not False:
            parts.append(f'{key}="{escape(str(value))}"')
    opening = f"<{' '.join(parts)}>"
    return Markup(opening if name in _VOID else f"{opening}{join(*children)}</{name}>")


def join(*children: Child) -> Markup:
    """Children one after the other."""
    return Markup("".join(map(escape, children)))

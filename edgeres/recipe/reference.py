"""Every key of a recipe as a page of Markdown, out of the JSON schema."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from edgeres.recipe.schema import schema
from edgeres.recipe.sections import TrainSection

if TYPE_CHECKING:
    from pydantic.json_schema import JsonSchemaValue

_PAGE = """# Every key of a recipe

`edgeres list recipes --keys` writes this page from the schema, which `--schema` gives to editors. A
recipe says what differs from the defaults below, `extends: NAME` lays it over another one, and
`--set SECTION.KEY=VALUE` lays a value over both. A key without a default has to be said, or follows
from the others, as its row says.
"""
_NUMBERS = {"integer": "a whole number", "number": "a number"}


def reference() -> list[str]:
    """The page's lines: a table per section, in the order of the chain, then what sections hold."""
    whole = schema()
    sections: JsonSchemaValue = whole["$defs"]
    places = _places(whole, sections)
    inner = {name: paths for name, paths in places.items() if "." in paths[0]}
    own = {path: name for name, paths in places.items() for path in paths if "." not in path}
    top = {key: value for key, value in whole["properties"].items() if key not in own}
    lines = [*_PAGE.splitlines(), "", "## The recipe itself", "", *_table(top, places)]
    for key in whole["properties"]:
        if key in own:
            lines += _section(key, sections[own[key]], places)
    for name, paths in inner.items():
        lines += _section(paths[0], sections[name], places, paths[1:])
    return lines


def _section(
    heading: str,
    section: JsonSchemaValue,
    places: Mapping[str, list[str]],
    also: Sequence[str] = (),
) -> Iterator[str]:
    yield from ("", f"## {heading}", "")
    others = [f"`{path}`" for path in also]
    said = " ".join(section.get("description", "").split())
    if said or others:
        yield from (
            " ".join([said, *([f"Also {', '.join(others)}."] if others else [])]).strip(),
            "",
        )
    keys = section["properties"]
    if not heading.endswith(".train"):
        yield from _table(keys, places)
        return
    shared = TrainSection.model_json_schema()["properties"]
    own = {key: value for key, value in keys.items() if value != shared.get(key)}
    yield from (*_table(own, places), "", "The other keys are those of [train](#train).")


def _table(keys: JsonSchemaValue, places: Mapping[str, list[str]]) -> Iterator[str]:
    yield from ("| key | what | values | default |", "|---|---|---|---|")
    for key, value in keys.items():
        cells = (f"`{key}`", value.get("description", ""), _values(value, places), _default(value))
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _places(whole: JsonSchemaValue, sections: JsonSchemaValue) -> dict[str, list[str]]:
    """Each section and the paths where it may stand, the first one first."""
    found: dict[str, list[str]] = {}
    waiting = [("", whole)]
    for path, here in waiting:  # which grows
        for key, value in here["properties"].items():
            for name in _references(value):
                place = f"{path}.{key}".lstrip(".")
                if name not in found:
                    waiting.append((place, sections[name]))
                found.setdefault(name, []).append(place)
    return found


def _references(value: object) -> Iterator[str]:
    if isinstance(value, Mapping):
        if "$ref" in value:
            yield value["$ref"].rpartition("/")[2]
        for part in (*value.get("anyOf", ()), value.get("items")):
            yield from _references(part)


def _values(value: JsonSchemaValue, places: Mapping[str, list[str]]) -> str:
    """What may stand there, in words."""
    if options := value.get("anyOf"):
        return " or ".join(dict.fromkeys(_values(option, places) for option in options))
    if "$ref" in value:
        path = places[value["$ref"].rpartition("/")[2]][0]
        return f"[{path}](#{path.replace('.', '').lower()})"
    if "const" in value:
        return f"`{json.dumps(value['const'])}`"
    if "enum" in value:
        return ", ".join(f"`{option}`" for option in value["enum"])
    kind = value.get("type")
    if kind == "array":
        return f"a list: {_values(value['items'], places)}" if "items" in value else "a list"
    if kind in _NUMBERS:
        return _NUMBERS[kind] + _range(value)
    return {"boolean": "`true`, `false`", "null": "`null`", "string": "a text"}.get(str(kind), "")


def _range(value: JsonSchemaValue) -> str:
    low, high = value.get("minimum"), value.get("maximum")
    over, under = value.get("exclusiveMinimum"), value.get("exclusiveMaximum")
    bounds = (("from", low), ("above", over), ("to", high), ("below", under))
    return "".join(f" {word} {bound:,}" for word, bound in bounds if bound is not None)


def _default(value: JsonSchemaValue) -> str:
    if "default" not in value:
        return ""
    return f"`{json.dumps(value['default'], ensure_ascii=False)}`"

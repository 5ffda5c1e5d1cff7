"""Recipes: a YAML file, a shipped name or a mapping plus `--set` texts in, one frozen `Recipe` out.

A document is read, laid over what it `extends`, and overridden; then false sections go, the shared
`train` settings fill each stage's own, and the models of edgeres.recipe_sections check the result.
Every problem is told at once, each in one line with its file and line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from edgeres import recipe_yaml
from edgeres.errors import BadInput, nearest, unknown
from edgeres.recipe_sections import (
    BenchmarkSection,
    BudgetsSection,
    DataSection,
    DistillSection,
    ExportSection,
    HintSection,
    LabelsSection,
    MixSection,
    PruneSection,
    QuantizeSection,
    Recipe,
    RecipeFile,
    ReportSection,
    Section,
    TeacherSection,
    TrainSection,
    VerifySection,
)
from edgeres.recipe_yaml import Document, KeyPath, shortened

__all__ = [
    "BenchmarkSection",
    "BudgetsSection",
    "DataSection",
    "DistillSection",
    "ExportSection",
    "HintSection",
    "LabelsSection",
    "MixSection",
    "PruneSection",
    "QuantizeSection",
    "Recipe",
    "ReportSection",
    "TeacherSection",
    "TrainSection",
    "VerifySection",
    "checked",
    "dump",
    "load",
    "load_mapping",
    "recipes",
    "schema",
    "shipped_folder",
    "to_mapping",
]

_REQUIRED = ("data", "teacher", "train")
_OPTIONAL = ("distill", "prune", "quantize", "export", "verify", "benchmark", "budgets", "report")
_TRAINED = ("teacher", "distill", "prune", "quantize")
_MAX_CHAIN = 8
_MAX_LINES = 20

S = TypeVar("S", bound=Section)


def load(path_or_name: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Load a recipe.

    Args:
        path_or_name: a YAML file, or the name of a shipped recipe. A text without `/` and
            `.yaml` is a name.
        overrides: `a.b=value` texts; later ones win.

    Raises:
        BadInput: one line per problem, each with its place.
    """
    return _resolved(_extended(_located(path_or_name, Path())), overrides)


def load_mapping(
    values: Mapping[str, Any], overrides: Sequence[str] = (), where: str = "the command line"
) -> Recipe:
    """The recipe that a program put together as plain values; raises BadInput like `load`."""
    return _resolved(_normal(recipe_yaml.of_mapping(values, where)), overrides)


def checked(kind: type[S], values: Mapping[str, Any], where: str = "the command line") -> S:
    """One section of a recipe from plain values; raises BadInput like `load`."""
    return _validated(kind, recipe_yaml.of_mapping(values, where))


def to_mapping(recipe: Recipe) -> dict[str, Any]:
    """Every setting as JSON-ready values, without the stages that are left out."""
    values = recipe.model_dump(mode="json")
    return {key: value for key, value in values.items() if value is not None}


def dump(recipe: Recipe) -> str:
    """Every setting as YAML that loads back to an equal recipe."""
    return recipe_yaml.dump(to_mapping(recipe))


def schema() -> dict[str, Any]:
    """The JSON schema of recipe files, for editors."""
    written = RecipeFile.model_json_schema()
    for model in (written, *written["$defs"].values()):
        model.pop("required", None)  # what is missing may come from what the file extends
        for name, value in model["properties"].items():
            if "$ref" in value:  # a section: empty means its defaults
                options = [{"$ref": value["$ref"]}, {"type": "null"}]
                model["properties"][name] = {"anyOf": options} | _description(value)
    for name in _OPTIONAL:
        del written["properties"][name]["default"]  # left out, not the same as null
        written["properties"][name]["anyOf"].append({"const": False})
    written["properties"]["data"]["anyOf"].append({"type": "string", "minLength": 1})
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **written,
        "title": "edgeres recipe",
        "anyOf": [{"required": ["name"]}, {"required": ["extends"]}],
    }


def _description(value: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": value["description"]} if "description" in value else {}


def recipes() -> list[tuple[str, str]]:
    """Name and description of each shipped recipe."""
    return [(name, load(path).description) for name, path in sorted(_shipped().items())]


def shipped_folder() -> Path:
    """The folder of shipped recipes: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).parent
    installed = package / "_recipes"
    return installed if installed.is_dir() else package.parent / "recipes"


def _shipped() -> dict[str, Path]:
    return {path.stem: path for path in shipped_folder().glob("*.yaml")}


def _located(path_or_name: str | Path, folder: Path) -> Path:
    """The file a person means; relative paths start at `folder`."""
    shipped = _shipped()
    if isinstance(path_or_name, str) and path_or_name in shipped:
        return shipped[path_or_name]
    path = folder / path_or_name
    name = str(path_or_name)
    named = not isinstance(path_or_name, Path) and path.suffix not in (".yaml", ".yml")
    if named and "/" not in name and "\\" not in name:
        raise unknown("recipe", shortened(name), shipped)
    return path


def _extended(path: Path) -> Document:
    """A file laid over what it extends, over what that extends, and so on."""
    document, files = _normal(recipe_yaml.read(path)), [path]
    while (base := document.tree.pop("extends", None)) is not None:
        where = f"{document.place(('extends',)).where}: extends"
        document.places.pop(("extends",), None)
        if not isinstance(base, str) or not base:
            raise BadInput(f"{where}: should be a recipe's name or file, not {_shown(base)}")
        try:
            target = _located(base, files[-1].parent)
            below = _normal(recipe_yaml.read(target))
        except BadInput as error:
            raise BadInput(f"{where}: {error}") from None
        files.append(target)
        if target.resolve() in [file.resolve() for file in files[:-1]]:
            circle = " -> ".join(str(file) for file in files)
            raise BadInput(f"{where}: goes in a circle: {circle}")
        if len(files) > _MAX_CHAIN:
            raise BadInput(f"{where}: more than {_MAX_CHAIN} recipes extend one another")
        document = below.merged(document)
    return document


def _normal(document: Document) -> Document:
    """The short forms written out: `data: digits`, and empty sections."""
    tree, places = document.tree, document.places
    if isinstance(tree.get("data"), str):
        tree["data"] = {"source": tree["data"]}
        places["data", "source"] = document.place(("data",))
    for name in (*_REQUIRED, *_OPTIONAL):
        if name in tree and tree[name] is None:
            tree[name] = {}
        section = tree.get(name)
        if isinstance(section, dict) and "train" in section and section["train"] is None:
            section["train"] = {}
    return document


def _resolved(document: Document, overrides: Sequence[str]) -> Recipe:
    for text in overrides:
        override = recipe_yaml.of_override(text)
        if override.tree.pop("extends", None) is not None:
            where = override.places["extends",].where
            override.problems.append(f"{where}: only a recipe file can extend another")
        document = document.merged(_normal(override))
    for name in _OPTIONAL:
        if document.tree.get(name) is False:
            del document.tree[name]
    _spread_train(document)
    written = _validated(RecipeFile, document)
    return Recipe(**{name: getattr(written, name) for name in Recipe.model_fields})


def _spread_train(document: Document) -> None:
    """Put the shared `train` settings below each stage's own."""
    tree = document.tree
    shared = tree.get("train")
    if not isinstance(shared, dict):
        return
    tree.setdefault("teacher", {})
    for stage in _TRAINED:
        section = tree.get(stage)
        own = section.get("train", {}) if isinstance(section, dict) else None
        if not isinstance(own, dict):
            continue
        tree[stage] = {**tree[stage], "train": {**shared, **own}}
        for key in shared.keys() - own.keys():
            document.places[stage, "train", key] = document.place(("train", key))


def _validated(kind: type[S], document: Document) -> S:
    problems = list(document.problems)
    value = None
    try:
        value = kind.model_validate(document.tree, strict=True)
    except ValidationError as error:
        problems += [_sentence(e, document, kind) for e in error.errors(include_url=False)]
    if value is None or problems:
        raise BadInput(_joined(problems))
    return value


def _joined(problems: Iterable[str]) -> str:
    lines = list(dict.fromkeys(problems))  # a shared `train` key is found in each stage
    more = len(lines) - _MAX_LINES
    if more > 0:
        lines = [*lines[:_MAX_LINES], f"and {more:,} more problems"]
    return "\n".join(lines)


_SHOULD_BE = {
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
    "string_unicode": "text",
    "tuple_type": "a list such as [a, b]",
    "model_type": "a mapping of settings",
}
_IS_NOT = {
    "greater_than": ("greater than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}


def _sentence(error: ErrorDetails, document: Document, root: type[BaseModel]) -> str:
    """`FILE:LINE: prune.macs: 1.5 is not less than 1` from one of pydantic's findings."""
    context = error.get("ctx", {})
    place = document.place((*error["loc"], *context.get("at", ())))
    if error["type"] == "extra_forbidden":
        name = shortened(str(place.key[-1]))
        known = _keys_at(root, error["loc"][:-1])
        inside = f" in {_dotted(place.key[:-1])}" if place.key[:-1] else ""
        hint = nearest(name, known) or f"; known: {', '.join(known)}"
        return f"{place.where}: unknown key '{name}'{inside}{hint}"
    subject = f"{_dotted(place.key)}: " if place.key else ""
    return f"{place.where}: {subject}{_complaint(error, context)}"


def _complaint(error: ErrorDetails, context: Mapping[str, Any]) -> str:
    kind, value = error["type"], error["input"]
    if kind in _SHOULD_BE:
        quote = kind == "string_type" and isinstance(value, (int, float))
        mend = "; put it in quotes" if quote else ""
        return f"should be {_SHOULD_BE[kind]}, not {_shown(value)}{mend}"
    if kind in _IS_NOT:
        words, bound = _IS_NOT[kind]
        return f"{_shown(value)} is not {words} {context[bound]:g}"
    if kind == "literal_error":
        known = re.findall(r"'([^']*)'|(\d+)", context["expected"])
        names = [text or number for text, number in known]
        hint = nearest(value, names) if isinstance(value, str) else ""
        return f"unknown value {_shown(value)}{hint}; known: {', '.join(names)}"
    if kind == "missing":
        return "is missing"
    if kind in ("too_short", "string_too_short"):
        return "is empty"
    if kind == "string_pattern_mismatch":  # only a recipe's name has one
        return (
            f"{_shown(value)} is no name: it takes up to 64 letters, digits, '.', '_' and '-', "
            f"a letter or digit first"
        )
    return error["msg"]


def _keys_at(kind: type[BaseModel], path: KeyPath) -> list[str]:
    for key in path:
        if not isinstance(key, int):  # a place in a list of sections
            (kind,) = _sections_in(kind.model_fields[str(key)].annotation)
    return list(kind.model_fields)


def _sections_in(annotation: Any) -> list[type[BaseModel]]:
    """The section that an annotation holds, be it optional or in a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for option in get_args(annotation) for found in _sections_in(option)]


def _dotted(path: KeyPath) -> str:
    return shortened(".".join(str(key) for key in path))


def _shown(value: Any) -> str:
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"'{shortened(value, 60)}'"
    if isinstance(value, (dict, Section)):
        return "a mapping"
    return "a list" if isinstance(value, (tuple, list)) else str(value)

"""A recipe file, a shipped name or a mapping plus `--set` texts in, one frozen `Recipe` out.

A document is read, laid over what it `extends`, and overridden; then false sections go, the shared
`train` settings fill each stage's own, and the models of `sections` check the result. What a
person set and has no effect is remarked (`idle`).
Every problem is told at once, each in one line with its file and line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

import edgeres
from edgeres import documents, procs, terminal
from edgeres.documents import Document, KeyPath, shortened
from edgeres.errors import BadInput, unknown
from edgeres.recipe import idle
from edgeres.recipe.complaints import follows, joined, sentence, shown
from edgeres.recipe.sections import Recipe, RecipeFile, Section, TeacherSection

_REQUIRED = ("data", "teacher", "train")
OPTIONAL = ("distill", "prune", "quantize", "export", "verify", "benchmark", "budgets", "report")
_TRAINED = ("teacher", "distill", "prune", "quantize")
_OF_IMAGES = ("size", "resize", "links")
_MAX_CHAIN = 8
_SUFFIXES = (".yaml", ".yml")
_KIND = documents.Kind("recipe", 1 << 20, "start with `extends: quickstart`")

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
    path = _located(path_or_name, Path())
    document, own = _extended(path)
    return _resolved(document, overrides, () if path in _shipped().values() else own)


def load_text(text: str, where: str) -> Recipe:
    """The recipe that a run has recorded, which extends no other; raises BadInput like `load`."""
    document = documents.parse(text, where, _KIND)
    if "extends" in document.tree:
        raise BadInput(f"{document.place(('extends',)).where}: extends: a run's recipe is whole, "
                       "it extends no other")  # fmt: skip
    return _resolved(_normal(document), ())


def load_mapping(
    values: Mapping[str, object], overrides: Sequence[str] = (), where: str = "the command line"
) -> Recipe:
    """The recipe that a program put together as plain values; raises BadInput like `load`."""
    return _resolved(_normal(documents.of_mapping(values, where)), overrides)


def checked(kind: type[S], values: Mapping[str, object], where: str = "the command line") -> S:
    """One section of a recipe from plain values; raises BadInput like `load`."""
    return _validated(kind, documents.of_mapping(values, where))


def to_mapping(recipe: Recipe) -> dict[str, object]:
    """Every setting as JSON-ready values, without the stages that are left out."""
    values = recipe.model_dump(mode="json")
    return {key: value for key, value in values.items() if value is not None}


def dump(recipe: Recipe) -> str:
    """Every setting as YAML that loads back to an equal recipe."""
    return documents.dump(to_mapping(recipe))


def recipes() -> list[tuple[str, str]]:
    """Name and description of each shipped recipe."""
    return [(name, load(path).description) for name, path in sorted(_shipped().items())]


def shipped_folder() -> Path:
    """The folder of shipped recipes: inside an installed package, or beside it in a checkout."""
    package = Path(edgeres.__file__).parent
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
    named = not isinstance(path_or_name, Path) and path.suffix not in _SUFFIXES
    if named and "/" not in name and "\\" not in name:
        raise unknown("recipe", shortened(name), shipped)
    return path


def _extended(path: Path) -> tuple[Document, list[KeyPath]]:
    """A file laid over what it extends, over what that extends, and so on; and its own keys."""
    document, files = _normal(documents.read(path, _KIND)), [path]
    own = list(idle.leaves(document.tree))
    while (base := document.tree.pop("extends", None)) is not None:
        where = f"{document.place(('extends',)).where}: extends"
        document.places.pop(("extends",), None)
        if not isinstance(base, str) or not base:
            raise BadInput(f"{where}: should be a recipe's name or file, not {shown(base)}")
        try:
            target = _base(base, files)
            below = _normal(documents.read(target, _KIND))
        except BadInput as error:
            raise BadInput(f"{where}: {error}") from None
        files.append(target)
        if target.resolve() in [file.resolve() for file in files[:-1]]:
            circle = " -> ".join(str(file) for file in files)
            raise BadInput(f"{where}: goes in a circle: {circle}")
        if len(files) > _MAX_CHAIN:
            raise BadInput(f"{where}: more than {_MAX_CHAIN} recipes extend one another")
        _leave_images(below, [document])
        document = below.merged(document)
    return document, own


def _leave_images(below: Document, above: Sequence[Document]) -> None:
    """Drop what a document says of its images, if those laid over it name another data set."""
    data, own = below.tree.get("data"), _source(below)
    others = {_source(document) for document in above} - {None, own}
    if isinstance(data, dict) and own is not None and others:
        below.tree["data"] = {k: v for k, v in data.items() if k not in _OF_IMAGES}


def _source(document: Document) -> str | None:
    """The name of a document's data set, if it says one."""
    data = document.tree.get("data")
    source = data.get("source") if isinstance(data, dict) else None
    return source.partition(":")[0].strip() if isinstance(source, str) else None


def _base(name: str, files: Sequence[Path]) -> Path:
    """The recipe that the last of `files` extends.

    A recipe may come from anybody, and messages quote what is read: it names shipped recipes, and
    recipe files below the folder of the first one, nothing else of this machine.
    """
    path = _located(name, files[-1].parent)
    if name in _shipped():
        return path
    try:
        inside = path.resolve().is_relative_to(files[0].parent.resolve())
    except (OSError, RuntimeError, ValueError):  # links in a circle, a NUL
        inside = False
    if path.suffix not in _SUFFIXES or not inside:
        raise BadInput(f"'{shortened(name)}' is neither a shipped recipe nor a .yaml file below "
                       f"the recipe's own folder; copy it there")  # fmt: skip
    return path


def _normal(document: Document) -> Document:
    """The short forms written out: `data: digits`, and empty sections."""
    tree, places = document.tree, document.places
    if isinstance(tree.get("data"), str):
        tree["data"] = {"source": tree["data"]}
        places["data", "source"] = document.place(("data",))
    for name in (*_REQUIRED, *OPTIONAL):
        if name in tree and tree[name] is None:
            tree[name] = {}
        section = tree.get(name)
        if isinstance(section, dict) and "train" in section and section["train"] is None:
            section["train"] = {}
    return document


def _resolved(document: Document, overrides: Sequence[str], own: Sequence[KeyPath] = ()) -> Recipe:
    """The recipe of a document and overrides.

    Args:
        own: what a person set in the document.
    """
    given = [_normal(documents.of_override(text)) for text in overrides]
    written = [own, *(list(idle.leaves(override.tree)) for override in given)]
    _leave_images(document, given)
    for override in given:
        if override.tree.pop("extends", None) is not None:
            where = override.places["extends",].where
            override.problems.append(f"{where}: only a recipe file can extend another")
        document = document.merged(override)
    for name in OPTIONAL:
        if document.tree.get(name) is False:
            del document.tree[name]
    shared = _spread_train(document)
    whole = _validated(RecipeFile, document)
    recipe = Recipe(**{name: getattr(whole, name) for name in Recipe.model_fields})
    for line in idle.sentences(recipe, written, shared) if procs.first() else ():
        terminal.remark(f"note: {line}")
    return recipe


def _spread_train(document: Document) -> dict[str, list[str]]:
    """Put the shared `train` settings below each stage's own; which stages have each from there.

    How many epochs isn't said to a teacher with weights, which needs none where its classes are
    the data's.
    """
    tree = document.tree
    taken: dict[str, list[str]] = {}
    shared = tree.get("train")
    if not isinstance(shared, dict):
        return taken
    tree.setdefault("teacher", {})
    for stage in _TRAINED:
        section = tree.get(stage)
        if not isinstance(section, dict) or not isinstance(own := section.get("train", {}), dict):
            continue
        if stage == "teacher" and TeacherSection.starts_trained(section):
            own = {"epochs": None, **own}
        tree[stage] = {**section, "train": {**shared, **own}}
        for key in shared.keys() - own.keys():
            taken.setdefault(key, []).append(stage)
            document.places[stage, "train", key] = document.place(("train", key))
    return taken


def _validated(kind: type[S], document: Document) -> S:
    problems = list(document.problems)
    value = None
    try:
        value = kind.model_validate(document.tree, strict=True)
    except ValidationError as error:
        found = error.errors(include_url=False)
        problems += [sentence(e, document, kind) for e in found if not follows(e, found)]
    if value is None or problems:
        raise BadInput(joined(problems))
    return value

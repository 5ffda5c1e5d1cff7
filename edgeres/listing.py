"""What there is: recipes, models, plugins of each kind, device profiles and runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TypeAlias, TypedDict, TypeGuard

from edgeres.errors import BadInput, MissingComponent, unknown
from edgeres.plugins import Plugins
from edgeres.records import Counted
from edgeres.text import kilobytes, table

LISTS = ("recipes", "models", "datasets", "losses", "teachers", "pretrained", "targets",
         "runtimes", "devices", "runs")  # fmt: skip
_OURS = "edgeres"
Row: TypeAlias = dict[str, object]


class ModelRow(TypedDict):
    """A row of `edgeres list models`."""

    model: str
    px: int
    classes: int
    parameters: int
    macs: int
    int8_bytes: int


class InInt8(Counted):
    """An int8 file that comes along."""

    size_bytes: int


class Card(TypedDict):
    """A row of `edgeres list pretrained`, as docs/teachers.md says."""

    pretrained: str
    data: str
    float: Counted
    int8: InInt8


def rows(what: str, runs: Path) -> list[Row]:
    """The rows of `edgeres list`.

    Raises:
        BadInput: there is no such list.
    """
    if what not in LISTS:
        raise unknown("list", what, LISTS)
    lists: tuple[Callable[[], list[Row]], ...] = (
        _recipes, _models, _datasets, _losses, _teachers, _pretrained, _targets, _runtimes,
        _devices, lambda: _runs(runs),
    )  # fmt: skip
    return dict(zip(LISTS, lists, strict=True))[what]()


def text(found: list[Row]) -> str:
    """Rows as a table; whose they are only where some aren't edgeres' own."""
    if all(row.get("from", _OURS) == _OURS for row in found):
        found = [{key: value for key, value in row.items() if key != "from"} for row in found]
    if _are_models(found):
        return _models_text(found)
    if _are_cards(found):
        return _pretrained_text(found)
    if found and "runtime" in found[0]:
        return _runtimes_text(found)
    return table(found, tuple(found[0])) if found else "none"


def _are_models(found: list[Row]) -> TypeGuard[list[ModelRow]]:
    return bool(found) and "int8_bytes" in found[0]


def _are_cards(found: list[Row]) -> TypeGuard[list[Card]]:
    return bool(found) and "pretrained" in found[0]


def _recipes() -> list[Row]:
    from edgeres.recipe import recipes

    return [{"recipe": name, "description": about} for name, about in recipes()]


def _models() -> list[Row]:
    from edgeres.models import spec
    from edgeres.models.modules import complexity
    from edgeres.models.resnet import int8_bytes

    found = []
    for name in spec.names():
        big = len(spec.parse(name, 10, spec.default_preprocess(32)).stages) == 4
        size_px, classes = (224, 1000) if big else (32, 10)
        model = spec.parse(name, classes, spec.default_preprocess(size_px))
        parameters, macs = complexity(model)
        found.append({"model": name, "px": size_px, "classes": classes, "parameters": parameters,
                      "macs": macs, "int8_bytes": int8_bytes(model)})  # fmt: skip
    return found


def _models_text(found: list[ModelRow]) -> str:
    rows = [{"model": row["model"], "input": f"{row['px']} px", "classes": row["classes"],
             "parameters": f"{row['parameters'] / 1e6:.2f} M",
             "MACs": f"{row['macs'] / 1e6:,.0f} M",
             "int8 file": kilobytes(row["int8_bytes"])} for row in found]  # fmt: skip
    return "\n".join([
        table(rows, tuple(rows[0])), "",
        "Other depths: resnet<6n+2>, wrn-<6n+4>-<wide>, resnext<9n+2>-<groups>x<width>d.",
        "Endings, in any order: -w0.75 widths, -d2 blocks per stage, -se, -preact,",
        "-mobile (depthwise-separable), -D (average-pooled shortcuts), -A (CIFAR nets).",
        "int8 file: estimated, TFLite.",
    ])  # fmt: skip


def _modules(plugins: Plugins) -> Iterator[tuple[str, ModuleType, str]]:
    """Name, module and whose it is, of each plugin that can be used."""
    yield from ((name, plugins.load(name), _OURS) for name in plugins.own)
    yield from ((p.name, module, p.origin) for p, module in plugins.usable())


def _unusable(plugins: Plugins, *columns: str) -> list[Row]:
    """A row for each plugin that can't be used, with the reason in the last column."""
    first, *between, last = columns
    return [{first: p.name, **dict.fromkeys(between, "-"), last: why, "from": p.origin}
            for p in plugins.installed() if (why := plugins.trouble(p))]  # fmt: skip


def _datasets() -> list[Row]:
    from edgeres.datasets import PLUGINS

    found = []
    for own, module, whose in _modules(PLUGINS):
        name = own.replace("_", "-")
        path = f"{name}:PATH" if module.NEEDS_PATH else name
        found.append({"dataset": path, "size": f"{module.SIZE} px", "about": module.SUMMARY,
                      "from": whose})  # fmt: skip
    return found + _unusable(PLUGINS, "dataset", "size", "about")


def _losses() -> list[Row]:
    from edgeres.losses import PLUGINS

    found = [{"loss": name, "about": module.SUMMARY, "from": whose}
             for name, module, whose in _modules(PLUGINS)]  # fmt: skip
    return found + _unusable(PLUGINS, "loss", "about")


def _teachers() -> list[Row]:
    from edgeres.teachers import PLUGINS

    found = [{"teacher": f"{name}:…", "about": module.SUMMARY, "from": whose}
             for name, module, whose in _modules(PLUGINS)]  # fmt: skip
    return found + _unusable(PLUGINS, "teacher", "about")


def _pretrained() -> list[Row]:
    from edgeres.teachers import pretrained

    return [{"pretrained": f"pretrained:{name}", **pretrained.card(name)}
            for name in pretrained.names()]  # fmt: skip


def _pretrained_text(found: list[Card]) -> str:
    from edgeres.statistics import wilson

    rows = []
    for card in found:
        whole, ours = card["float"], card["int8"]
        low, high = wilson(ours["correct"], ours["n"])
        rows.append({
            "pretrained": card["pretrained"], "data": card["data"],
            "float": f"{whole['correct'] / whole['n']:.2%}",
            "int8": f"{ours['correct'] / ours['n']:.2%} ({100 * low:.1f}-{100 * high:.1f})",
            "int8 file": kilobytes(ours["size_bytes"]),
        })  # fmt: skip
    return table(rows, tuple(rows[0]))


def _targets() -> list[Row]:
    from edgeres import targets

    found = []
    rows = (
        (f"{own}-{precision}", module, whose)
        for own, module, whose in _modules(targets.PLUGINS)
        for precision in module.PRECISIONS
    )
    for name, module, whose in rows:
        form = targets.compiled(name)
        there = targets.installed(module) and not (form and form.missing())
        foreign = module.PACKAGE if whose != _OURS else "-"
        needs = "a runtime" if form else module.EXTRA or foreign
        found.append({"target": name, "needs": needs if there else f"{needs} (missing)",
                      "run here by": module.RUNTIME, "for": module.SUMMARY,
                      "from": whose})  # fmt: skip
    return found + _unusable(targets.PLUGINS, "target", "needs", "run here by", "for")


def _runtimes() -> list[Row]:
    from edgeres import runtimes, targets

    rows, known = [], targets.names()
    owned = [(name, module, whose) for _, module, whose in _modules(runtimes.PLUGINS)
             for name in module.NAMES]  # fmt: skip
    for name, module, whose in owned:
        why = runtimes.missing(name)
        formats = dict.fromkeys(
            targets.load(target)[0].SUFFIX.rsplit(".", 1)[-1] if target in known else target
            for target in module.TAKES
        )
        own_licence = ", own licence" if getattr(module, "ACCEPT", False) else ""
        here = "yes" if why is None else "no" if runtimes.installed(name) else "not installed"
        rows.append({"runtime": name, "here": here, "takes": ", ".join(formats),
                     "about": module.SUMMARY + own_licence, "from": whose})  # fmt: skip
    return rows + _unusable(runtimes.PLUGINS, "runtime", "here", "takes", "about")


def _runtimes_text(found: list[Row]) -> str:
    """A row for all that differ only in name."""
    alike: dict[tuple[object, ...], list[str]] = {}
    columns = [column for column in found[0] if column != "runtime"]
    for row in found:
        alike.setdefault(tuple(row[c] for c in columns), []).append(str(row["runtime"]))
    rows = [{"runtime": names[0], **dict(zip(columns, values, strict=True))}
            for values, names in alike.items()]  # fmt: skip
    more = [f"like {names[0]}: {', '.join(names[1:])}" for names in alike.values() if names[1:]]
    return "\n".join([table(rows, tuple(rows[0])), "", *more])


def _devices() -> list[Row]:
    from edgeres import devices

    rows: list[Row] = []
    for name in devices.names():
        try:
            profile = devices.load(name)
            plugin = devices.PLUGINS.of_package(profile.kind)
            rows.append({"device": name, "kind": profile.kind, "about": profile.description,
                         "from": plugin.origin if plugin else _OURS})  # fmt: skip
        except (BadInput, MissingComponent) as error:  # one broken file hides no other
            rows.append({"device": name, "kind": "-", "about": f"can't be used: {error}",
                         "from": _OURS})  # fmt: skip
    known = {row["kind"] for row in rows}
    rows += [{"device": "-", "kind": plugin.name, "from": plugin.origin,
              "about": "a kind of device; a profile of yours may name it"}
             for plugin, _ in devices.PLUGINS.usable() if plugin.name not in known]  # fmt: skip
    return rows + _unusable(devices.PLUGINS, "device", "kind", "about")


def _runs(folder: Path) -> list[Row]:
    """The newest last; before them, apart, what failed or isn't finished."""
    from edgeres.run_rows import row
    from edgeres.runs import all_runs

    found = [row(run) for run in all_runs(folder)]
    return sorted(found, key=lambda row: row["state"] == "done")

"""What there is: recipes, models, data sets, targets, devices and runs."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeres.errors import BadInput, unknown
from edgeres.text import kilobytes, table


def rows(what: str, runs: Path) -> list[dict[str, Any]]:
    """The rows of `edgeres list`.

    Raises:
        BadInput: there is no such list.
    """
    lists: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "recipes": _recipes, "models": _models, "datasets": _datasets, "targets": _targets,
        "runtimes": _runtimes, "devices": _devices, "runs": lambda: _runs(runs),
    }  # fmt: skip
    if what not in lists:
        raise unknown("list", what, lists)
    return lists[what]()


def text(found: list[dict[str, Any]]) -> str:
    """Rows as a table."""
    if found and "int8_bytes" in found[0]:
        return _models_text(found)
    if found and "runtime" in found[0]:
        return _runtimes_text(found)
    return table(found, tuple(found[0])) if found else "none"


def _recipes() -> list[dict[str, Any]]:
    from edgeres.recipe import recipes

    return [{"recipe": name, "description": about} for name, about in recipes()]


def _models() -> list[dict[str, Any]]:
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


def _models_text(found: list[dict[str, Any]]) -> str:
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


def _datasets() -> list[dict[str, Any]]:
    from edgeres import datasets

    found = []
    for name in datasets.names():
        module = importlib.import_module(f"edgeres.datasets.{name.replace('-', '_')}")
        path = f"{name}:PATH" if module.NEEDS_PATH else name
        found.append({"dataset": path, "size": f"{module.SIZE} px", "about": module.SUMMARY})
    return found


def _targets() -> list[dict[str, Any]]:
    from edgeres import targets

    found = []
    for name in targets.names():
        module, _ = targets.load(name)
        form = targets.compiled(name)
        there = importlib.util.find_spec(module.PACKAGE) and not (form and form.missing())
        needs = "a runtime" if form else module.EXTRA or "-"
        found.append({"target": name, "needs": needs if there else f"{needs} (missing)",
                      "run here by": module.RUNTIME, "for": module.SUMMARY})  # fmt: skip
    return found


def _runtimes() -> list[dict[str, Any]]:
    from edgeres import runtimes, targets

    rows = []
    for name, own in runtimes.names().items():
        module, why = runtimes.module(own), runtimes.missing(name)
        formats = dict.fromkeys(
            targets.load(target)[0].SUFFIX.rsplit(".", 1)[-1] for target in module.TAKES
        )
        own_licence = ", own licence" if getattr(module, "ACCEPT", False) else ""
        here = "yes" if why is None else "no" if runtimes.installed(name) else "not installed"
        rows.append({"runtime": name, "here": here, "takes": ", ".join(formats),
                     "about": module.SUMMARY + own_licence})  # fmt: skip
    return rows


def _runtimes_text(found: list[dict[str, Any]]) -> str:
    """A row for all that differ only in name."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for row in found:
        alike.setdefault((row["here"], row["takes"], row["about"]), []).append(row["runtime"])
    rows = [{"runtime": names[0], "here": here, "takes": takes, "about": about}
            for (here, takes, about), names in alike.items()]  # fmt: skip
    more = [f"like {names[0]}: {', '.join(names[1:])}" for names in alike.values() if names[1:]]
    return "\n".join([table(rows, tuple(rows[0])), "", *more])


def _devices() -> list[dict[str, Any]]:
    from edgeres import devices

    rows = []
    for name in devices.names():
        try:
            profile = devices.load(name)
            rows.append({"device": name, "kind": profile.kind, "about": profile.description})
        except BadInput as error:  # one broken file hides no other
            rows.append({"device": name, "kind": "-", "about": f"can't be used: {error}"})
    return rows


def _runs(folder: Path) -> list[dict[str, Any]]:
    """The newest last; before them, apart, what failed or isn't finished."""
    from edgeres.run_rows import row
    from edgeres.runs import all_runs

    found = [row(run) for run in all_runs(folder)]
    return sorted(found, key=lambda row: row["state"] == "done")

"""Importers: what other tools measured, as reports.

In: a file that another tool wrote. Out: one report in the shape of ours (docs/results.md). Nobody
saw the device while it was measured, so that such a report is never valid. A module in this folder
is one tool, with `SOURCE` and `parse(data) -> Imported | None`.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import Any

from edgeres.errors import BadInput
from edgeres.measurement.importers import _report


def names() -> list[str]:
    """The importers there are: one module of this folder each."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def of_file(path: Path) -> dict[str, Any]:
    """The report of a file, whose tool is told by its content.

    Raises:
        BadInput: it can't be read, is too large, or no known tool wrote it.
    """
    data = _report.content(path)
    modules: list[Any] = [importlib.import_module(f"{__name__}.{name}") for name in names()]
    for module in modules:
        found = module.parse(data)
        if found is not None:
            return _report.report(path, module.SOURCE, found)
    known = ", ".join(module.SOURCE for module in modules)
    raise BadInput(f"{path}: no known tool's results; known: {known}")

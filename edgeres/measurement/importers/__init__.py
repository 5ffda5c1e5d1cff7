"""Importers: what other tools measured, as reports.

In: a file that another tool wrote. Out: reports in the shape of ours (docs/results.md), one for
each thing that the file tells of. Nobody saw the device while it was measured, so that such a
report is never valid. A module in this folder is one tool, with `SOURCE` and
`parse(data) -> Sequence[Imported]`.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING

from edgeres.errors import BadInput
from edgeres.measurement.importers import _report

if TYPE_CHECKING:
    from types import ModuleType

    from edgeres.records import Report


def names() -> list[str]:
    """The importers there are: one module of this folder each."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def of_file(path: Path) -> list[Report]:
    """The reports of a file, whose tool is told by its content.

    Raises:
        BadInput: it can't be read, is too large, or no known tool wrote it.
    """
    data = _report.content(path)
    modules: list[ModuleType] = [importlib.import_module(f"{__name__}.{name}") for name in names()]
    for module in modules:
        if found := module.parse(data):
            return _report.reports(path, module.SOURCE, found)
    known = ", ".join(module.SOURCE for module in modules)
    raise BadInput(f"{path}: no known tool's results; known: {known}")

"""What was measured: in a run, by `benchmark --json`, or by another tool."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from edgeres.commands._result_file import wrong
from edgeres.disk import read_bounded
from edgeres.errors import BadInput
from edgeres.measurement import importers
from edgeres.runs import Run, find_run
from edgeres.targets import of_file

if TYPE_CHECKING:
    from edgeres.records import Report

_MAX_BYTES = 256 * 1024 * 1024


def is_model(what: str) -> bool:
    """Whether this is the path of a model file."""
    path = Path(what)
    if not path.exists() or (path / "recipe.lock.yaml").exists():
        return False
    try:
        of_file(path)
    except BadInput:
        return False
    return True


def reports(what: str, runs: Path) -> list[Report]:
    """The device reports of a run or of a file of results, ours or another tool's.

    Raises:
        BadInput: it is neither, or nothing was measured in it.
    """
    path = Path(what)
    if path.exists() and not path.is_dir() and not is_model(what):
        return _ours(path) or [*importers.of_file(path)]
    if is_model(what):
        raise BadInput(f"{what}: a model file says nothing of what was measured; measure it: "
                       f"edgeres benchmark {what} --json > result.json")  # fmt: skip
    return reports_of(find_run(what, runs))


def reports_of(run: Run) -> list[Report]:
    """The device reports of a run; BadInput if nothing was measured in it."""
    if "benchmark" not in run.artifacts:
        raise BadInput(f"{run.path}: nothing was measured in it; "
                       f"edgeres benchmark {run.path} --json > result.json")  # fmt: skip
    found: list[Report] = run.artifacts["benchmark"].facts["reports"]
    return found


def _ours(path: Path) -> list[Report]:
    """What `edgeres benchmark --json` printed; nothing if this isn't it."""
    content = read_bounded(path, _MAX_BYTES, "result")
    try:
        document = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError):
        return []
    if not isinstance(document, dict) or "reports" not in document:
        return []
    if found := wrong(document["reports"]):
        raise BadInput(f"{path}: not a result of `edgeres benchmark --json`: {found}")
    reports: list[Report] = document["reports"]
    return reports

"""The command check: what was measured and a file of limits in, a pass or fail for each out."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgeres.commands.results import reports
from edgeres.measurement import budgets
from edgeres.runs import find_run


def checked(what: str, file: Path, runs: Path) -> dict[str, Any]:
    """Each limit against the measurements of a run or of a result file.

    Raises:
        BadInput: as `budgets.load` and `results.reports`.
    """
    limits, allowed = budgets.load(file)
    agreement = {} if Path(what).is_file() else _agreement(what, runs)
    found = budgets.check(limits, reports(what, runs), agreement, allowed)
    return {"passed": all(r.verdict == "pass" for r in found),
            "results": [asdict(r) for r in found]}  # fmt: skip


def _agreement(what: str, runs: Path) -> dict[str, float]:
    artifact = find_run(what, runs).artifacts.get("verify")
    rows = artifact.facts["files"] if artifact else ()
    return {row["target"]: row["parity"]["agreement"] for row in rows if row.get("parity")}

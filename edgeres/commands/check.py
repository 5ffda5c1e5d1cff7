"""The command check: what was measured and limits in, a pass or fail for each out."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from edgeres.commands.results import reports
from edgeres.disk import storage_errors
from edgeres.errors import BadInput
from edgeres.measurement import budgets, slo
from edgeres.runs import find_run


def checked(
    what: str | None, file: Path | None, runs: Path, prometheus: Path | None, grafana: Path | None,
    allow_invalid: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Each limit against the measurements of a run or of a result file.

    Args:
        what: a run or a result file; None is the newest run.
        file: of limits; those of the run's own recipe if None.
        allow_invalid: judge measurements that are marked invalid, whatever the limits say.
        prometheus, grafana: where to write the results for Prometheus, and a dashboard.

    Raises:
        BadInput: as `budgets.load` and `results.reports`, or there are no limits.
    """
    what = what or find_run(None, runs).name
    limits = budgets.load(file) if file else _own(what, runs)
    limits = replace(limits, invalid=limits.invalid or allow_invalid)
    of_file = Path(what).is_file()
    artifact = None if of_file else find_run(what, runs).artifacts.get("verify")
    agreement = budgets.agreement(artifact.facts if artifact else None)
    measured = reports(what, runs)
    found = budgets.check(limits, measured, agreement)
    name = Path(what).stem if of_file else find_run(what, runs).name
    written = {prometheus: slo.prometheus(found, name),
               grafana: json.dumps(slo.dashboard(found, name), indent=1)}  # fmt: skip
    for path, text in written.items():
        if path is not None:
            with storage_errors(path):
                path.write_text(text, "utf-8")
    return {"passed": all(r.verdict == "pass" for r in found),
            "results": [asdict(r) for r in found],
            "notes": [f"{r['target']}: {note}" for r in measured if r.get("source")
                      for note in r["notes"]]}  # fmt: skip


def _own(what: str, runs: Path) -> budgets.Limits:
    """The limits of the run's recipe."""
    section = None if Path(what).is_file() else find_run(what, runs).recipe.budgets
    if section is None:
        raise BadInput(f"{what}: has no budgets of its own; give a file of them: "
                       f"edgeres check {what} budgets.yaml")  # fmt: skip
    from edgeres.stages.budgets import limits

    return limits(section)

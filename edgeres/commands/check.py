"""The command check: what was measured and limits in, a pass or fail for each out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgeres.commands.results import reports, reports_of
from edgeres.disk import storage_errors, write_whole
from edgeres.errors import BadInput
from edgeres.measurement import budgets, slo
from edgeres.runs import Run, find_run
from edgeres.types import to_json

if TYPE_CHECKING:
    from edgeres.text.files import Checked


def checked(
    what: str | None, file: Path | None, runs: Path, prometheus: Path | None, grafana: Path | None,
    allow_invalid: bool = False,
) -> Checked:  # fmt: skip
    """Each limit against the measurements of a run or of a result file.

    Args:
        what: a run or a result file; None is the newest run.
        file: of limits; those of the run's own recipe if None.
        allow_invalid: judge measurements that are marked invalid, whatever the limits say.
        prometheus, grafana: where to write the results for Prometheus, and a dashboard.

    Raises:
        BadInput: as `budgets.load` and `results.reports`, or there are no limits.
    """
    run = None if what and Path(what).is_file() else find_run(what, runs)
    limits = budgets.load(file) if file else _own(run, what)
    limits = replace(limits, invalid=limits.invalid or allow_invalid)
    artifact = run.artifacts.get("verify") if run else None
    agreement = budgets.agreement(artifact.facts if artifact else None)
    measured = reports_of(run) if run else reports(str(what), runs)
    found = budgets.check(limits, measured, agreement)
    name = run.name if run else Path(str(what)).stem
    written = {prometheus: slo.prometheus(found, name),
               grafana: json.dumps(slo.dashboard(found, name), indent=1)}  # fmt: skip
    for path, text in written.items():
        if path is not None:
            with storage_errors(path):
                write_whole(path, text)
    return {"passed": all(r.verdict == "pass" for r in found),
            "results": [to_json(r) for r in found],
            "notes": [f"{r['target']}: {note}" for r in measured if r.get("source")
                      for note in r.get("notes", ())]}  # fmt: skip


def _own(run: Run | None, what: str | None) -> budgets.Limits:
    """The limits of the run's recipe."""
    section = run.recipe.budgets if run else None
    if section is None:
        what = what or str(run.path if run else "")
        raise BadInput(f"{what}: has no budgets of its own; give a file of them: "
                       f"edgeres check {what} budgets.yaml")  # fmt: skip
    from edgeres.stages.budgets import limits

    return limits(section)

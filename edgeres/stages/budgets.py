"""Budgets: a recipe's limits and what was measured in, a pass or fail for each out.

A miss doesn't stop the chain, so that the report can show it; the run fails at its end.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from edgeres.artifact import Artifact
from edgeres.recipe import BudgetsSection
from edgeres.stages import Context, keyed_as_is

if TYPE_CHECKING:
    from edgeres.measurement.budgets import Limits
    from edgeres.records import Facts

VERSION = 2
LIBRARIES: tuple[str, ...] = ()
keyed = keyed_as_is


def run(
    section: BudgetsSection, inputs: Mapping[str, Artifact], out: Path, context: Context
) -> dict[str, object]:
    """Hold the device reports, and the certificates' agreement, against every limit."""
    from edgeres.measurement import budgets

    certified = inputs["verify"].facts if "verify" in inputs else None
    found = budgets.check(
        limits(section), inputs["benchmark"].facts["reports"], budgets.agreement(certified)
    )
    rows = [asdict(result) for result in found]
    (out / "budgets.json").write_text(json.dumps({"schema": 1, "results": rows}, indent=1), "utf-8")
    return {"met": all(r.verdict == "pass" for r in found), "results": rows}


def limits(section: BudgetsSection) -> Limits:
    """The section's limits, one by one, as `measurement.budgets.Limits`."""
    from edgeres.measurement.budgets import Budget, Limits

    budgets = [
        Budget(name, float(value), row.target, row.device)
        for row in section.limits
        for name, value in row.model_dump(exclude={"target", "device"}).items()
        if value is not None
    ]
    return Limits(budgets, section.allow_unmeasurable, section.allow_invalid)


def failures(facts: Facts) -> list[str]:
    """`tflite-int8 on host: latency_p95_ms is 3.1, budget 2` for each limit that is not met.

    Judged from the values, whatever verdict was noted beside them.
    """
    from edgeres.measurement.budgets import judged

    found = []
    for r in facts["results"]:
        if judged(r["measure"], r["limit"], r["value"]) != "pass":
            where = r["target"] if r["device"] == "-" else f"{r['target']} on {r['device']}"
            what = f"is {r['value']:.4g}" if r["value"] is not None else "was not measured"
            if r.get("reason") not in (None, "", "not measured"):
                what = f"isn't measurable ({r['reason']})"
            found.append(f"{where}: {r['measure']} {what}, budget {r['limit']:g}")
    return found


def summary(facts: Facts) -> str:
    """`3 of 4 budgets met`."""
    met = sum(r["verdict"] == "pass" for r in facts["results"])
    return f"{met} of {len(facts['results'])} budgets met"

"""The commands promote, rollback and history."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgeres import registry, stages
from edgeres.errors import BadInput
from edgeres.runs import Run, find_run


def promoted(name: str | None, channel: str, reason: str, runs: Path) -> dict[str, Any]:
    """Point a channel to a run, if its gates are met or a reason is given."""
    run = find_run(name, runs)
    if run.path.resolve().parent != runs.resolve():
        raise BadInput(f"{run.path}: isn't in {runs}; give its folder with --runs")
    artifacts = {step: a.digest for step, a in run.artifacts.items()}
    return asdict(registry.promote(runs, channel, run.name, artifacts, _findings(run), reason))


def rolled_back(channel: str, reason: str, runs: Path) -> dict[str, Any]:
    """Point a channel to the run before."""
    return asdict(registry.rollback(runs, channel, reason))


def history(channel: str | None, runs: Path) -> list[dict[str, Any]]:
    """Every promotion and rollback, the oldest first."""
    return [asdict(entry) for entry in registry.history(runs, channel)]


def _findings(run: Run) -> tuple[str, ...]:
    """The gates of a run that are not met."""
    if "verify" not in run.artifacts:
        return (f"its files were never verified (edgeres run {run.path}/recipe.lock.yaml)",)
    module: Any = stages.load("verify")
    facts = run.artifacts["verify"].facts
    found = [] if facts["passed"] else list(module.failures(facts))
    if "budgets" in run.artifacts:
        module = stages.load("budgets")
        found += module.failures(run.artifacts["budgets"].facts)
    return tuple(found)

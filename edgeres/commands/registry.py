"""The commands promote, rollback and history."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgeres import proof, registry
from edgeres.errors import BadInput
from edgeres.runs import find_run, promoted_run
from edgeres.types import to_json

if TYPE_CHECKING:
    from edgeres.text.runs import Entry


def promoted(name: str | None, channel: str, reason: str, runs: Path) -> Entry:
    """Point a channel to a run, if its gates are met or a reason is given.

    Raises:
        GateFailed: they aren't, and there is no reason.
        StorageError: a file of it was changed since it was made; no reason helps there.
    """
    run = find_run(name, runs)
    if run.path.resolve().parent != runs.resolve():
        raise BadInput(f"{run.path}: isn't in {runs}; give its folder with --runs")
    proof.require_whole(run)
    artifacts = {step: a.digest for step, a in run.artifacts.items()}
    findings = proof.findings(run)
    entry: Entry = to_json(registry.promote(runs, channel, run.name, artifacts, findings, reason))
    return entry


def rolled_back(channel: str, reason: str, runs: Path) -> Entry:
    """Point a channel to the run before.

    Raises:
        BadInput: there is none, or it is gone or was changed since.
    """
    promoted_run(registry.before(runs, channel), runs)
    entry: Entry = to_json(registry.rollback(runs, channel, reason))
    return entry


def history(channel: str | None, runs: Path) -> list[Entry]:
    """Every promotion and rollback, the oldest first."""
    return [to_json(entry) for entry in registry.history(runs, channel)]

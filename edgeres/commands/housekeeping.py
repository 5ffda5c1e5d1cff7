"""Commands around runs: report, init, clean."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import Any

from edgeres import stages
from edgeres.artifact import folder_size, storage_errors
from edgeres.commands.chain import described
from edgeres.runs import find_run, store_of, unreferenced


def reported(name: str | None, runs: Path) -> dict[str, Any]:
    """Write the report of whatever a run has."""
    run = find_run(name, runs)
    recipe = run.recipe
    inputs = {step: a for step, a in run.artifacts.items() if step != "report"}
    module: Any = stages.load("report")
    with tempfile.TemporaryDirectory() as folder:
        context = stages.Context(recipe.seed, Path(folder), lambda *_: None)
        from edgeres.recipe import ReportSection

        module.run(recipe.report or ReportSection(), inputs, Path(folder), context)
        with storage_errors(run.path):
            for file in ("report.html", "report.json"):
                shutil.copyfile(Path(folder) / file, run.path / file)
    return {**described(run), "report": str(run.path / "report.html")}


def cleaned(runs: Path, dry_run: bool) -> dict[str, Any]:
    """Remove artifacts that no run refers to, and unfinished work.

    Raises:
        StorageError: a run is at work in the store, whose artifacts aren't linked yet.
    """
    store = store_of(runs) if dry_run else store_of(runs).open()
    rows: list[dict[str, Any]] = []
    with contextlib.nullcontext() if dry_run else store.in_use(alone=True):
        for artifact in unreferenced(store, runs):
            rows.append({"artifact": artifact.path.name, "size_bytes": folder_size(artifact.path)})
            if not dry_run:
                store.remove(artifact)
        work = folder_size(store.root / "work")
        if not dry_run:
            store.sweep_work()
    return {"removed": not dry_run, "artifacts": rows, "work_bytes": work,
            "freed_bytes": work + sum(r["size_bytes"] for r in rows)}  # fmt: skip

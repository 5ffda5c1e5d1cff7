"""Commands around runs: report, init, clean."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeres import stages
from edgeres.artifact import Artifact
from edgeres.commands.chain import described
from edgeres.disk import folder_size, storage_errors
from edgeres.runs import Run, find_run, store_of, unreferenced

if TYPE_CHECKING:
    from edgeres.recipe import Recipe


def reported(name: str | None, runs: Path, figures: Path | None = None) -> dict[str, Any]:
    """Write the report of whatever a run has.

    Args:
        figures: a folder for its drawings as SVG files; made if it isn't there.
    """
    from edgeres.recipe import ReportSection

    run = find_run(name, runs)
    recipe = run.recipe
    section = recipe.report or ReportSection()
    section = section.model_copy(update={"title": section.title or recipe.name})
    module: Any = stages.load("report")
    with tempfile.TemporaryDirectory() as folder:
        context = stages.Context(recipe.seed, Path(folder), lambda *_: None, run.name)
        module.run(section, _in_order(run, recipe), Path(folder), context)
        with storage_errors(run.path):
            for file in ("report.html", "report.json"):
                shutil.copyfile(Path(folder) / file, run.path / file)
    drawn = _drawn(run.path / "report.json", figures) if figures else []
    return {**described(run), "report": str(run.path / "report.html"), "figures": drawn}


def _in_order(run: Run, recipe: Recipe) -> dict[str, Artifact]:
    """What a report is about, with the files in the recipe's order."""
    wanted = [f"export:{target}" for target in recipe.export.targets] if recipe.export else []
    found = {step: a for step, a in run.artifacts.items() if step != "report"}
    files = sorted((step for step in found if step in wanted), key=wanted.index)
    fill = iter(files)
    return {(at := next(fill) if step in wanted else step): found[at] for step in found}


def _drawn(report: Path, folder: Path) -> list[str]:
    from edgeres.reporting import drawings

    files = drawings.every(json.loads(report.read_text("utf-8")))
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text, "utf-8")
    return [str(folder / name) for name in files]


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

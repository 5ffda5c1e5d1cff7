"""Commands around runs: report, init, clean."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from edgeres import door, scratch, stages
from edgeres.artifact import Artifact
from edgeres.commands.chain import described
from edgeres.disk import folder_size, storage_errors, write_whole
from edgeres.runs import REPORTS, Run, find_run, store_of, unreferenced
from edgeres.runs import report as write_report

if TYPE_CHECKING:
    from edgeres.recipe import Recipe
    from edgeres.text.runs import Cleaned, Reported, Unused


def reported(name: str | None, runs: Path, figures: Path | None = None) -> Reported:
    """Write the report of whatever a run has.

    Args:
        figures: a folder for its drawings as SVG files; made if it isn't there.
    """
    from edgeres.recipe import ReportSection

    run = find_run(name, runs)
    recipe = run.recipe
    section = recipe.report or ReportSection()
    section = section.model_copy(update={"title": section.title or recipe.name})
    from edgeres.stages import report

    with scratch.folder("work") as folder:
        context = stages.Context(recipe.seed, folder, lambda *_: None, run.name)
        report.run(section, _in_order(run, recipe), folder, context)
        for file in REPORTS:
            write_report(run, file, (folder / file).read_bytes())
        drawn = _drawn(folder / "report.json", figures) if figures else []
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

    files = drawings.every(door.read_json(report, door.MOST_DATA))
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            write_whole(folder / name, text)
    return [str(folder / name) for name in files]


def cleaned(runs: Path, dry_run: bool, tell: Callable[[Cleaned], None] = lambda _: None) -> Cleaned:
    """Remove artifacts that no run refers to, and unfinished work.

    Args:
        tell: is told what goes, before it goes.

    Raises:
        StorageError: a run is at work in the store, whose artifacts aren't linked yet; or a folder
            of runs can't be read.
    """
    store = store_of(runs) if dry_run else store_of(runs).open()
    with contextlib.nullcontext() if dry_run else store.in_use(alone=True):
        sizes = {name: folder_size(store.artifacts / name) for name in unreferenced(store, runs)}
        work = folder_size(store.root / "work")
        rows: list[Unused] = [
            {"artifact": name, "size_bytes": size} for name, size in sizes.items()
        ]
        found: Cleaned = {"removed": False, "artifacts": rows, "work_bytes": work,
                          "freed_bytes": work + sum(sizes.values())}  # fmt: skip
        if dry_run:
            return found
        tell(found)
        for name in sizes:
            store.remove(name)
        store.sweep_work()
    return {**found, "removed": True}

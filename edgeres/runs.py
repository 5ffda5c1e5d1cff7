"""Runs: folders that hold a recipe, links to its artifacts, its events and its report.

A run is `recipe.lock.yaml` (every setting), `events.jsonl`, `artifacts/` and the report. Its name
carries a hash of the recipe, so the same recipe always continues the same run. A copy of the folder
with its links followed is whole by itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from edgeres import registry, run_state
from edgeres.artifact import Artifact, load
from edgeres.disk import storage_errors, write_whole
from edgeres.errors import BadInput, unknown
from edgeres.recipe import Recipe, dump
from edgeres.recipe import load as load_recipe
from edgeres.stages import ORDER
from edgeres.store import Store


@dataclass
class Run:
    """A run folder."""

    path: Path
    artifacts: dict[str, Artifact] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Its folder's name."""
        return self.path.name

    @property
    def recipe(self) -> Recipe:
        """The recipe it was made from."""
        return load_recipe(self.path / "recipe.lock.yaml")


def store_of(runs: Path) -> Store:
    """The store that a folder of runs shares."""
    return Store(runs / "store")


def run_name(recipe: Recipe) -> str:
    """`<recipe name>-<hash of its settings>`."""
    return f"{recipe.name}-{hashlib.sha256(dump(recipe).encode()).hexdigest()[:6]}"


def all_runs(folder: Path) -> list[Run]:
    """The runs below a folder, oldest first, each with the artifacts it has."""
    found = sorted(folder.glob("*/recipe.lock.yaml"), key=lambda p: _touched(p.parent))
    return [open_run(path.parent) for path in found]


def open_run(path: Path) -> Run:
    """Read a run folder; its artifacts come in the chain's order."""
    links = sorted((path / "artifacts").glob("[!.]*"))
    found = {_step_id(link.name): load(link) for link in links if (link / "artifact.json").exists()}
    return Run(path, dict(sorted(found.items(), key=lambda item: ORDER.index(item[1].stage))))


def find_run(name: str | None, folder: Path) -> Run:
    """A run by path or name, by `@stable` or `@canary`, or the newest that is done.

    One that failed or isn't finished counts only where there is no other.

    Raises:
        BadInput: there is none, or it is no longer what was promoted.
    """
    if name is not None and name.startswith("@"):
        return _promoted(name[1:], folder)
    if name is not None:
        for path in (Path(name), folder / name):
            if (path / "recipe.lock.yaml").exists():
                return open_run(path)
        raise unknown("run", name, [r.name for r in all_runs(folder)])
    runs = all_runs(folder)
    if not runs:
        raise BadInput(f"{folder}: no runs yet; start one with `edgeres run quickstart`")
    done = next((run for run in reversed(runs) if run_state.of(run.path).whole), runs[-1])
    state = run_state.of(runs[-1].path)
    if not state.whole:
        print(f"{runs[-1].path} is {state.word} ({state.step}); "
              f"{'it is the only one' if done is runs[-1] else f'taking {done.path}'}",
              file=sys.stderr)  # fmt: skip
    return done


def _promoted(channel: str, folder: Path) -> Run:
    entry = registry.current(folder, channel)
    if entry is None:
        raise BadInput(f"nothing is promoted to {channel}; edgeres promote RUN --to {channel}")
    run = open_run(folder / entry.run)
    if {step: a.digest for step, a in run.artifacts.items()} != dict(entry.artifacts):
        raise BadInput(
            f"{run.path}: isn't any more what was promoted to {channel}; promote it anew"
        )
    return run


def unreferenced(store: Store, folder: Path) -> list[Artifact]:
    """Artifacts that no run links to, directly or as an ancestor."""
    kept: set[str] = set()
    waiting = [a for run in all_runs(folder) for a in run.artifacts.values()]
    while waiting:
        artifact = waiting.pop()
        if artifact.key in kept:
            continue
        kept.add(artifact.key)
        waiting += [p for role in artifact.parents if (p := store.parent(artifact, role))]
    return [a for a in store.all() if a.key not in kept]


def begin(run: Run, recipe: Recipe) -> None:
    """Make the run's folder; one process at a time."""
    with storage_errors(run.path):
        run.path.mkdir(parents=True, exist_ok=True)
        write_whole(run.path / "recipe.lock.yaml", dump(recipe))


def link(run: Run, step: str, artifact: Artifact) -> None:
    """Point the run at a step's artifact; a report is copied beside it. One process at a time."""
    folder = run.path / "artifacts"
    link = folder / step.replace(":", "-", 1)
    with storage_errors(link):
        folder.mkdir(exist_ok=True)
        fresh = folder / f".{link.name}.partial"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(os.path.relpath(artifact.path.resolve(), folder.resolve()))
        fresh.replace(link)
        for name in ("report.html", "report.json"):
            if artifact.stage == "report" and artifact.file(name).exists():
                write_whole(run.path / name, artifact.file(name).read_text("utf-8"))


def event(run: Run, **what: Any) -> None:
    """Add a line to the run's events."""
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    with storage_errors(run.path), (run.path / "events.jsonl").open("ab+") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(end - 1, 0))
        cut = b"" if file.read(1) in (b"", b"\n") else b"\n"  # a killed process's last line
        file.write(cut + json.dumps({"time": now, **what}).encode() + b"\n")


def _step_id(link: str) -> str:
    return link.replace("export-", "export:", 1) if link.startswith("export-") else link


def _touched(run: Path) -> float:
    events = run / "events.jsonl"
    return (events if events.exists() else run).stat().st_mtime

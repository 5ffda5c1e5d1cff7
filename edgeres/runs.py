"""Runs: folders that hold a recipe, links to its artifacts, its events and its report.

A run is `recipe.lock.yaml` (every setting), `events.jsonl`, `artifacts/` and the report. Its name
carries a hash of the recipe, so the same recipe always continues the same run. A copy of the folder
with its links followed is whole by itself.

A run folder may come from anywhere: what is read in it is bounded and no link, but for those in
`artifacts/`, which lead to a store; what is written there replaces a link and never follows one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from edgeres import door, registry, run_state, terminal
from edgeres.artifact import DESCRIPTION, Artifact, load
from edgeres.disk import append_line, point, storage_errors, sweep, write_whole
from edgeres.errors import BadInput, StorageError, unknown
from edgeres.recipe import Recipe, dump, load_text
from edgeres.stages import ORDER
from edgeres.store import Store

LOCK = "recipe.lock.yaml"
REPORTS = ("report.html", "report.json")
_DIGITS, _FEWER_DIGITS = 12, 6  # of the recipe's hash in a run's name: now, and in earlier versions
_STORED = re.compile(r"[a-z]+-[0-9a-f]{20}")  # the folder of an artifact in a store
_MOST_RECIPE = 1 << 20
_ABOVE = 4  # folders above a run that was moved, in which its store is looked for


@dataclass
class Run:
    """A run folder.

    Attributes:
        damage: why it can't be used; None if it can.
    """

    path: Path
    artifacts: dict[str, Artifact] = field(default_factory=dict)
    damage: str | None = None

    @property
    def name(self) -> str:
        """Its folder's name."""
        return self.path.name

    @property
    def recipe(self) -> Recipe:
        """The recipe it was made from."""
        return load_text(_locked(self.path), str(self.path / LOCK))


def store_of(runs: Path) -> Store:
    """The store that a folder of runs shares."""
    return Store(runs / "store")


def run_folder(recipe: Recipe, folder: Path) -> Path:
    """Where the run of a recipe is, or will be: `<recipe name>-<hash of its settings>`.

    Raises:
        StorageError: there is a run of this name already, of another recipe.
    """
    text = dump(recipe)
    path = folder / f"{recipe.name}-{_hash(text)[:_DIGITS]}"
    if os.path.lexists(path / LOCK):
        if _locked(path) != text:
            raise StorageError(f"{path}: holds another recipe than its name says; move it away")
        return path
    shorter = folder / f"{recipe.name}-{_hash(text)[:_FEWER_DIGITS]}"
    if os.path.lexists(shorter / LOCK) and _locked(shorter) == text:
        return shorter
    return path


def require_name(run: Run) -> None:
    """Make sure that a run's name ends in the hash of its recipe, if it ends in a hash.

    Raises:
        StorageError: the recipe was changed after the run was made.
    """
    _, _, digits = run.name.rpartition("-")
    named = re.fullmatch(f"[0-9a-f]{{{_DIGITS}}}|[0-9a-f]{{{_FEWER_DIGITS}}}", digits)
    if named and not _hash(_locked(run.path)).startswith(digits):
        raise StorageError(f"{run.path / LOCK}: was changed after the run was made; "
                           "run the recipe that is meant")  # fmt: skip


def all_runs(folder: Path) -> list[Run]:
    """The runs below a folder, oldest first; of a damaged one its name and the damage."""
    found = sorted(folder.glob(f"*/{LOCK}"), key=lambda path: _touched(path.parent))
    return [_opened(path.parent) for path in found]


def _opened(path: Path) -> Run:
    try:
        return open_run(path)
    except BadInput as error:
        return Run(path, damage=str(error))


def open_run(path: Path) -> Run:
    """Read a run folder; its artifacts come in the chain's order.

    Raises:
        BadInput: something in it is damaged, or not what its name says.
    """
    if path.name in ("", ".."):  # `.` has no name of its own, and a run is known by its name
        path = path.resolve()
    _locked(path)
    folder = path / "artifacts"
    if not folder.exists() and not folder.is_symlink():
        return Run(path)
    if folder.is_symlink() or not folder.is_dir():
        raise StorageError(f"{folder}: is a link or a file, not a folder; remove it and run again")
    with storage_errors(folder):
        names = sorted(entry.name for entry in folder.iterdir() if entry.name[0] != ".")
    found = {_step_id(name): _linked(path, folder / name) for name in names}
    return Run(path, dict(sorted(found.items(), key=lambda item: ORDER.index(item[1].stage))))


def find_run(name: str | None, folder: Path) -> Run:
    """A run by path or name, by `@stable` or `@canary`, or the newest that is done and whole.

    One that failed or isn't finished counts only where there is no other; a damaged one never.

    Raises:
        BadInput: there is none, or it is no longer what was promoted.
    """
    if name is not None and name.startswith("@"):
        return _promoted(name[1:], folder)
    if name is not None:
        for path in (Path(name), folder / name):
            if os.path.lexists(path / LOCK):
                return open_run(path)
        kind = "run or file" if Path(name).suffix or os.sep in name else "run"
        raise unknown(kind, name, [r.name for r in all_runs(folder)])
    runs = all_runs(folder)
    whole = [run for run in runs if not run.damage]
    if not runs:
        raise BadInput(f"{folder}: no runs yet; start one with `edgeres run quickstart`")
    if not whole:
        raise BadInput(f"{runs[-1].damage}")
    if whole[-1] is not runs[-1]:
        terminal.remark(f"the newest run is passed over: {runs[-1].damage}")
    newest = whole[-1]
    state = run_state.of(newest.path)
    done = next((run for run in reversed(whole) if run_state.of(run.path).whole), newest)
    if not state.whole:
        taken = "it is the only one" if done is newest else f"taking {done.path}"
        terminal.remark(f"{newest.path} is {state}; {taken}")
    return done


def _promoted(channel: str, folder: Path) -> Run:
    entry = registry.current(folder, channel)
    if entry is None:
        raise BadInput(f"nothing is promoted to {channel}; edgeres promote RUN --to {channel}")
    return promoted_run(entry, folder)


def promoted_run(entry: registry.Entry, folder: Path) -> Run:
    """The run that an entry of the registry means.

    Raises:
        BadInput: it is gone, or no longer what was promoted.
    """
    path = folder / entry.run
    if not os.path.lexists(path):
        raise BadInput(f"{path}: was promoted to {entry.channel} and is gone; promote another run")
    run = open_run(path)
    if {step: a.digest for step, a in run.artifacts.items()} != dict(entry.artifacts):
        raise BadInput(
            f"{run.path}: isn't any more what was promoted to {entry.channel}; promote it anew"
        )
    return run


def unreferenced(store: Store, folder: Path) -> list[str]:
    """Folder names of artifacts that no run links to, directly or as an ancestor.

    Every folder of runs that uses the store is looked through, with all that is below it; a link
    counts by its name, so that a run may lie anywhere there.

    Raises:
        StorageError: one of them can't be read.
    """
    kept: set[str] = set()
    waiting = [name for runs in store.users(folder) for name in _links(runs)]
    while waiting:
        name = waiting.pop()
        if name not in kept:
            kept.add(name)
            waiting += store.parents(name)
    return [name for name in store.names() if name not in kept]


def _links(runs: Path) -> Iterator[str]:
    """What all links below a folder of runs lead to in a store, whether it is there or not."""

    def refused(error: OSError) -> None:
        raise StorageError(f"{error.filename}: can't be read ({error.strerror}), so that nobody "
                           "knows what its runs need; nothing was removed")  # fmt: skip

    beside = [p for p in runs.glob("*") if p.is_symlink() and p.is_dir() and p.name != "store"]
    for root in (runs, *beside):  # an archive elsewhere may be linked
        for folder, inner, files in os.walk(root, onerror=refused):
            for name in (*inner, *files):
                path = Path(folder, name)
                if path.is_symlink() and _STORED.fullmatch(target := path.readlink().name):
                    yield target
            inner[:] = [n for n in inner if not Path(folder, n, "CACHEDIR.TAG").exists()]


def begin(run: Run, recipe: Recipe) -> None:
    """Make the run's folder; one process at a time."""
    with storage_errors(run.path):
        run.path.mkdir(parents=True, exist_ok=True)
        require_own(run)
        for folder in (run.path, run.path / "artifacts"):
            sweep(folder)
        write_whole(run.path / LOCK, dump(recipe))


def link(run: Run, step: str, artifact: Artifact) -> None:
    """Point the run at a step's artifact; a report is copied beside it. One process at a time."""
    require_own(run)
    folder = run.path / "artifacts"
    link = folder / step.replace(":", "-", 1)
    with storage_errors(link):
        folder.mkdir(exist_ok=True)
        point(link, os.path.relpath(artifact.path.resolve(), folder.resolve()))
        for name in REPORTS:
            if artifact.stage == "report" and artifact.has(name):
                report(run, name, artifact.read(name, door.MOST_DATA))


def report(run: Run, name: str, content: bytes) -> None:
    """Write a file of the run's report."""
    require_own(run)
    with storage_errors(run.path):
        write_whole(run.path / name, content)


def event(run: Run, **what: object) -> None:
    """Add a line to the run's events."""
    require_own(run)
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    log = run.path / "events.jsonl"
    with storage_errors(log):
        append_line(log, json.dumps({"time": now, **what}).encode())


def require_own(run: Run) -> None:
    """Refuse to write where a link leads; the folder of all runs may be one."""
    for folder in (run.path, run.path / "artifacts"):
        if folder.is_symlink():
            raise StorageError(f"{folder}: is a link, and nothing is written through one; put the "
                               "folder itself there, or choose another --runs DIR")  # fmt: skip


def _linked(run: Path, entry: Path) -> Artifact:
    """The artifact that a run has for a step."""
    path, target = entry, entry.readlink().name if entry.is_symlink() else ""
    if target and not entry.exists():  # the run was moved: its store is still above it
        above = (up / "store" / "artifacts" / target for up in run.absolute().parents[:_ABOVE])
        path = next((p for p in above if (p / DESCRIPTION).exists()), entry)
        if path is entry:
            raise StorageError(f"{entry}: leads to an artifact that isn't there any more; run "
                               f"{run / LOCK} again")  # fmt: skip
    artifact = load(path)
    step = artifact.stage
    if artifact.stage == "export":
        step = f"export:{artifact.section['targets'][0]}"
    own = f"{artifact.stage}-{artifact.key}"
    if step != _step_id(entry.name) or step.partition(":")[0] not in ORDER or (
        _STORED.fullmatch(target) and target != own
    ):  # fmt: skip
        raise StorageError(f"{entry}: holds {own}, another artifact than its name says; run "
                           f"{run / LOCK} again")  # fmt: skip
    return artifact


def _locked(path: Path) -> str:
    """The text of a run's recipe."""
    try:
        return door.read(path / LOCK, _MOST_RECIPE).decode("utf-8")
    except UnicodeDecodeError:
        raise StorageError(f"{path / LOCK}: is not a text file in UTF-8; remove it") from None


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _step_id(link: str) -> str:
    return link.replace("export-", "export:", 1) if link.startswith("export-") else link


def _touched(run: Path) -> float:
    """When something was last done in a run; links aren't asked where they lead."""
    events = run / "events.jsonl"
    return (events if os.path.lexists(events) else run).lstat().st_mtime

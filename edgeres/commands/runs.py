"""The commands around finding runs again: show, rename, note, delete."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from edgeres import registry, run_state
from edgeres.disk import folder_size, storage_errors
from edgeres.errors import BadInput
from edgeres.plugins import packages
from edgeres.run_rows import row
from edgeres.runs import Run, find_run

if TYPE_CHECKING:
    from edgeres.text.runs import Deleted, RunStep

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_LIKE_A_HASH = re.compile(r"-[0-9a-f]{6}(?:[0-9a-f]{6})?$")


def shown(name: str, runs: Path) -> dict[str, object]:
    """What a run is, its steps and files."""
    run = find_run(name, runs)
    steps: list[RunStep] = [
        {"step": step, "seconds": round(a.seconds, 1), "digest": a.digest,
         "path": str(run.path / "artifacts" / step.replace(":", "-", 1))}
        for step, a in run.artifacts.items()
    ]  # fmt: skip
    page = run.path / "report.html"
    return {**row(run), "path": str(run.path), "promoted": _channels(run),
            "plugins": packages(p for a in run.artifacts.values() for p in a.plugins),
            "report": str(page) if page.exists() else None, "steps": steps}  # fmt: skip


def noted(name: str, text: str, runs: Path) -> dict[str, object]:
    """Keep a note with a run."""
    run = find_run(name, runs)
    _require_folder(run)
    run_state.write_note(run.path, " ".join(text.split()))
    return shown(str(run.path), runs)


def renamed(name: str, to: str, runs: Path) -> dict[str, object]:
    """Give a run's folder another name. Its recipe, run again, then starts a new run.

    Raises:
        BadInput: the name can't be one, is taken, or the run is promoted under its old name.
    """
    run = find_run(name, runs)
    _require_folder(run)
    _require_free(run, "renamed")
    if not _NAME.fullmatch(to) or _LIKE_A_HASH.search(to) or to in ("store", "registry"):
        raise BadInput(f"a run can't be named '{to[:100]}': letters, digits, '.', '_' and '-', and "
                       "no ending that looks like a recipe's hash")  # fmt: skip
    target = run.path.parent / to
    if target.exists() or target.is_symlink():
        raise BadInput(f"{target}: is there already; choose another name")
    with storage_errors(target):
        run.path.rename(target)
    return shown(str(target), runs)


def deleted(name: str, sure: bool, runs: Path) -> Deleted:
    """Remove a run's folder; `clean` frees what it alone used of the store.

    Raises:
        BadInput: it is promoted, or nobody said that it is meant.
    """
    run = find_run(name, runs)
    _require_folder(run)
    _require_free(run, "deleted")
    found: Deleted = {"run": run.name, "path": str(run.path), "size_bytes": folder_size(run.path)}
    if not sure:
        raise BadInput(f"{run.path}: would be deleted with its report and events; say --yes if it "
                       "is meant")  # fmt: skip
    with storage_errors(run.path):
        shutil.rmtree(run.path)
    return found


def _channels(run: Run) -> list[str]:
    """Those of the folder that the run is in, wherever the command looks for runs."""
    return registry.channels_of(run.path.resolve().parent, run.name)


def _require_free(run: Run, what: str) -> None:
    if channels := _channels(run):
        raise BadInput(f"{run.path}: is promoted ({', '.join(channels)}) and can't be {what}; "
                       "promote another run first")  # fmt: skip


def _require_folder(run: Run) -> None:
    """Nothing is changed through a link."""
    if run.path.is_symlink():
        raise BadInput(f"{run.path}: is a link to another folder; name the folder itself")

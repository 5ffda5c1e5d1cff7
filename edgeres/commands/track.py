"""The command track: a run in, what a tracker made of it out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgeres import tracking
from edgeres.errors import unknown
from edgeres.recipe import to_mapping
from edgeres.runs import find_run, require_own

if TYPE_CHECKING:
    from edgeres.text.runs import InFolder, OnServer


def tracked(name: str | None, to: str, experiment: str, runs: Path) -> InFolder | OnServer:
    """Tell a tracker everything about a run.

    Raises:
        BadInput: no such tracker or run; and as the tracker's own module says.
    """
    if to not in tracking.TRACKERS:
        raise unknown("tracker", to, tracking.TRACKERS)
    run = find_run(name, runs)
    told = tracking.described(run.name, to_mapping(run.recipe), run.artifacts, run.path)
    if to == "tensorboard":
        from edgeres.tracking import tensorboard

        require_own(run)
        return tensorboard.track(told, run.path / "tensorboard")
    from edgeres.tracking import mlflow

    return mlflow.track(told, experiment)

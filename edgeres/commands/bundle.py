"""The command bundle, and verify of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeres.runs import find_run


def bundled(
    name: str | None, kind: str, out: Path | None, key: Path | None, runs: Path
) -> dict[str, Any]:
    """Write a bundle of a run."""
    from edgeres import bundle, stages

    run = find_run(name, runs)
    module: Any = stages.load("benchmark")
    images = module.prepared_test_images(run.artifacts, bundle.GOLDEN)
    path = out or Path(f"{run.name}-{kind}.zip")
    return bundle.make(run.name, run.artifacts, kind, images, path, key)

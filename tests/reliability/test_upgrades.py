"""What earlier versions of edgeres wrote is read, or refused with the way out."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from edgeres import recipe
from edgeres.artifact import SCHEMA
from edgeres.commands import housekeeping
from edgeres.errors import BadInput
from edgeres.runs import all_runs, find_run, store_of
from edgeres.stages import _checkpoint

STORED = sorted((Path(__file__).parents[1] / "fixtures").glob("run-v*.tar.xz"))


@pytest.fixture(params=STORED, ids=lambda path: path.name.split(".")[0])
def runs(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder of runs that a version has left."""
    with tarfile.open(request.param) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "runs"


def test_there_is_a_stored_run_of_every_version() -> None:
    assert [path.name for path in STORED] == [f"run-v{n}.tar.xz" for n in range(1, SCHEMA + 1)]


def test_a_stored_run_is_whole(runs: Path) -> None:
    (run,) = all_runs(runs)
    assert len(run.artifacts) == 9
    assert run.recipe.version == 1
    store = store_of(runs)
    for artifact in run.artifacts.values():
        assert store.find(artifact.stage, artifact.key) is not None
    assert housekeeping.reported(run.name, runs)["artifacts"].keys() == run.artifacts.keys()
    assert housekeeping.cleaned(runs, dry_run=True)["artifacts"] == []


def test_the_images_of_a_stored_run_are_read(runs: Path) -> None:
    (run,) = all_runs(runs)
    train, _, test = _checkpoint.splits(run.artifacts["data"])
    size_px = run.artifacts["data"].facts["size_px"]
    assert train.images.shape[1:] == test.images.shape[1:] == (3, size_px, size_px)
    # Compared with the hashes that the run has stored:
    assert len(_checkpoint.calibration_images(run.artifacts["data"], train, test))


def test_a_later_version_is_refused_with_the_way_out(runs: Path) -> None:
    (run,) = all_runs(runs)
    description = run.artifacts["teacher"].path / "artifact.json"
    document = json.loads(description.read_text())
    description.write_text(json.dumps({**document, "schema": SCHEMA + 1}))
    with pytest.raises(BadInput, match=r"schema 2 needs another edgeres version; make it anew"):
        find_run(run.name, runs)


def test_a_later_recipe_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("name: later\nversion: 2\n")
    with pytest.raises(BadInput, match=r"r\.yaml:2: version: "):
        recipe.load(tmp_path / "r.yaml")

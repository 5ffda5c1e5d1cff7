"""Whose test images a file by itself answers, and how they are prepared: said, never guessed."""

from __future__ import annotations

import json
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgeres import runs
from edgeres.artifact import Artifact
from edgeres.commands import files
from edgeres.errors import BadInput

FIXTURE = Path(__file__).parent / "fixtures" / "run-v1.tar.xz"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stored run."""
    home = tmp_path_factory.mktemp("stored")
    with tarfile.open(FIXTURE) as archive:
        archive.extractall(home, filter="data")
    return home / "runs"


@pytest.fixture(scope="module")
def own(folder: Path) -> Artifact:
    """Its .onnx file, as a file by itself."""
    return files._alone(next(folder.glob("store/artifacts/*/*.onnx")))


def changed(artifact: Artifact, metadata: dict[str, str], **exported: Any) -> dict[str, Artifact]:
    facts = {"metadata": metadata, "exported": {**artifact.facts["exported"], **exported}}
    return {"m.onnx": replace(artifact, facts=facts)}


def test_a_file_that_says_what_the_newest_run_says(folder: Path, own: Artifact) -> None:
    known, ready, said = files._test_of({"m.onnx": own}, None, folder)
    run = runs.find_run(None, folder)
    assert known["data"].digest == run.artifacts["data"].digest
    noted = json.loads(own.facts["metadata"]["edgeres.preprocess"])
    assert ready["m.onnx"].facts["preprocess"] == noted
    assert (
        f"on the test images of {run.name}, prepared as the file says: {noted['size_px']} px"
        in said
    )


def test_a_file_that_says_nothing_needs_a_run(folder: Path, own: Artifact) -> None:
    with pytest.raises(BadInput, match="--against RUN"):
        files._test_of(changed(own, {}), None, folder)
    name = runs.find_run(None, folder).name
    _, _, said = files._test_of(changed(own, {}), name, folder)
    assert "prepared as the run says" in said
    zero = json.dumps({"size_px": 8, "mean": [0.5], "std": [0]})
    for damaged in (zero, "{", "[]", "null", '{"size_px": "x"}', "[" * 9000):
        with pytest.raises(BadInput, match="--against RUN"):
            files._test_of(changed(own, {"edgeres.preprocess": damaged}), None, folder)


def test_another_preprocessing_of_the_file_counts_and_is_said(folder: Path, own: Artifact) -> None:
    noted = json.loads(own.facts["metadata"]["edgeres.preprocess"]) | {"mean": [0.25]}
    notes = own.facts["metadata"] | {"edgeres.preprocess": json.dumps(noted)}
    with pytest.raises(BadInput, match="--against RUN"):
        files._test_of(changed(own, notes), None, folder)
    name = runs.find_run(None, folder).name
    _, ready, said = files._test_of(changed(own, notes), name, folder)
    assert ready["m.onnx"].facts["preprocess"]["mean"] == [0.25] and "mean 0.25" in said


def test_what_does_not_fit_is_refused(folder: Path, own: Artifact) -> None:
    name = runs.find_run(None, folder).name
    spec, notes = own.facts["exported"]["input"], own.facts["metadata"]
    larger = {**spec, "shape": [1, 3, 96, 96]}
    with pytest.raises(BadInput, match="give a file, and --accuracy"):
        files.benchmarked(None, ["host"], "quick", False, folder, True, name)
    with pytest.raises(BadInput, match="takes images of 96 px"):
        files._test_of(changed(own, {}, input=larger), name, folder)
    output = {**own.facts["exported"]["output"], "shape": [1, 1000]}
    with pytest.raises(BadInput, match="gives 1000 values, and the run's test set has 10"):
        files._test_of(changed(own, {}, output=output), name, folder)
    labels = "\n".join(reversed(notes["edgeres.labels"].split("\n")))
    with pytest.raises(BadInput, match="in another order"):
        files._test_of(changed(own, {**notes, "edgeres.labels": labels}), name, folder)


def test_two_files_of_different_tasks_are_not_compared(
    folder: Path, own: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = {**own.facts["exported"]["output"], "shape": [1, 1000]}
    (other,) = changed(own, {}, output=output).values()
    given = {Path("a.onnx"): own, Path("b.onnx"): other}
    monkeypatch.setattr(files, "_alone", given.__getitem__)
    with pytest.raises(BadInput, match="different tasks"):
        files.measured_in_turn([*given], ["host"], "quick", folder, True)


def test_files_that_say_nothing_of_their_images_are_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(files, "_measured", lambda *_: {"reports": [], "error": ""})
    file = next(folder.glob("store/artifacts/*/*.onnx"))
    files.measured_in_turn([file, file], ["host"], "quick", folder / "none", False)
    assert "top-1 isn't measured: " in capsys.readouterr().err

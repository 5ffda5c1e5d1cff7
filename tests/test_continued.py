"""A network that somebody names is the one that is exported: it is never trained a second time."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from edgeres import artifact, stages
from edgeres.commands import chain
from edgeres.errors import BadInput, StorageError
from edgeres.pipeline import _planning
from edgeres.recipe import load_mapping
from edgeres.runs import open_run
from edgeres.stages import distill, quantize, teacher
from edgeres.store import Store

RECIPE = {
    "name": "small", "data": {"source": "digits", "size": 8, "calibration": 32},
    "teacher": {"model": "resnet8", "train": {"epochs": 1}},
    "distill": {"student": "resnet8", "train": {"epochs": 1}},
    "quantize": {"method": "ptq"},
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was made once: each test has a copy, in which nothing may be made again."""
    folder = tmp_path_factory.mktemp("made") / "runs"
    chain.perform(load_mapping(RECIPE), folder, None, quiet=True)
    return folder


@pytest.fixture
def runs(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made, tmp_path / "runs", symlinks=True)

    def never(*_: Any) -> dict[str, Any]:
        raise AssertionError("trained a second time")

    for stage in (teacher, distill):
        monkeypatch.setattr(stage, "run", never)
    return tmp_path / "runs"


def weights(runs: Path, name: str) -> list[bytes]:
    return sorted(
        p.read_bytes() for p in runs.glob(f"store/artifacts/{name}-*/weights.safetensors")
    )


def newer(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after an upgrade of PyTorch and of edgeres."""
    real = artifact.library_versions

    def versions(names: Any) -> dict[str, str]:
        return {**real(names), **({"torch": "9.9.9"} if "torch" in names else {})}

    for module in (_planning, stages):
        if hasattr(module, "library_versions"):
            monkeypatch.setattr(module, "library_versions", versions)
    monkeypatch.setattr("edgeres.pipeline._performing.library_versions", versions)
    monkeypatch.setattr(distill, "VERSION", distill.VERSION + 1)


@pytest.mark.parametrize("what", ["run", "artifact"])
def test_newer_libraries_train_nothing_again(
    what: str, runs: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (run,) = (p for p in runs.iterdir() if p.name.startswith("small"))
    named = run if what == "run" else (run / "artifacts/quantize").resolve()
    newer(monkeypatch)
    monkeypatch.setattr(quantize, "run", distill.run)
    result = chain.exported(str(named), None, None, runs, None, ["onnx-int8"], False)
    facts = result["artifacts"]["verify"]["facts"]
    assert facts["passed"] is True
    assert "made with torch" in capfd.readouterr().err
    assert result["artifacts"]["quantize"]["path"].startswith(str(runs))
    assert len(weights(runs, "quantize")) == 1


def test_a_recipe_that_is_run_counts_libraries(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    newer(monkeypatch)
    with pytest.raises(AssertionError, match="trained a second time"):
        chain.perform(load_mapping(RECIPE), runs, None, quiet=True)


def test_another_seed_quantizes_the_same_network(runs: Path) -> None:
    (run,) = (p for p in runs.iterdir() if p.name.startswith("small"))
    recipe, given = chain.continued(str(run), None, None, runs, "quantize", ["seed=1"],
                                    {"method": "ptq"})  # fmt: skip
    result = chain.perform(recipe, runs, "quantize", quiet=True, given=given)
    assert result["artifacts"]["distill"]["digest"] == given["distill"].digest
    before, after = (open_run(path).artifacts["quantize"] for path in (run, Path(result["run"])))
    assert after.key != before.key, "what is asked for is made, though the run has one"


def test_a_run_of_another_folder_is_brought_along(runs: Path, tmp_path: Path) -> None:
    """What comes of it doesn't need that folder any more."""
    (run,) = (p for p in runs.iterdir() if p.name.startswith("small"))
    here = tmp_path / "here"
    result = chain.exported(str(run), None, None, here, None, ["onnx-int8"], True)
    shutil.rmtree(runs)
    made = open_run(Path(result["run"]))
    assert made.damage is None and "verify" in made.artifacts
    for one in made.artifacts.values():
        assert one.folder().resolve().is_relative_to(here.resolve())


def test_another_network_of_the_same_settings_is_told(runs: Path, tmp_path: Path) -> None:
    (run,) = (p for p in runs.iterdir() if p.name.startswith("small"))
    mine = open_run(run).artifacts["teacher"]
    other = Store(tmp_path / "other")
    other.open()
    with other.staging("teacher", mine.key) as staged:
        (staged / "weights.safetensors").write_bytes(b"another")
        other.commit(staged, "teacher", mine.key, parents={}, section={}, facts=mine.facts,
                     libraries={}, seconds=0)  # fmt: skip
    with pytest.raises(StorageError, match="the same settings gave another teacher here"):
        other.bring(mine)


def test_other_settings_are_another_network(runs: Path) -> None:
    (run,) = (p for p in runs.iterdir() if p.name.startswith("small"))
    recipe, given = chain.continued(str(run), None, None, runs, "export", ["distill.alpha=0.5"],
                                    {"targets": ["onnx-int8"]})  # fmt: skip
    with pytest.raises(AssertionError, match="trained a second time"):
        chain.perform(recipe, runs, "export", quiet=True, given=given)


def test_other_data_are_said(runs: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (run,) = (p for p in runs.iterdir() if p.name.startswith("small"))
    for data, times in (("digits", 0), ("cifar10:elsewhere", 1)):
        chain.continued(str(run), None, data, runs, "export", None, {"targets": ["onnx-int8"]})
        assert capfd.readouterr().err.count("its networks are trained anew") == times


def test_an_artifact_without_what_it_was_made_of(runs: Path, tmp_path: Path) -> None:
    """Of a float network the weights are all that counts; of a quantized one they aren't."""
    (run,) = (p for p in runs.iterdir() if p.name.startswith("small"))
    for stage in ("distill", "quantize"):
        shutil.copytree((run / "artifacts" / stage).resolve(), tmp_path / "away" / stage)
    with pytest.raises(
        BadInput, match=r"what it was made of \(data, .*distill.*\) isn't in a store"
    ):
        chain.continued(str(tmp_path / "away/quantize"), None, None, runs, "export", None,
                        {"targets": ["onnx-int8"]})  # fmt: skip
    recipe, given = chain.continued(str(tmp_path / "away/distill"), None, "digits", runs, "export",
                                    None, {"targets": ["onnx-int8"]})  # fmt: skip
    assert recipe.teacher.model == f"checkpoint:{tmp_path / 'away/distill'}" and not given
    document = json.loads((tmp_path / "away/distill/artifact.json").read_text("utf-8"))
    assert document["stage"] == "distill"

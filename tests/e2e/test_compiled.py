"""A run with a file for NPUs, through the command line: what was lost, what isn't installed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from in_process import edgeres
from runtime_files import needs

NPUS = ("ethos-u55-128", "ethos-u85-256")
RECIPE = """
name: compiled
data: {source: digits, size: 16}
teacher: {model: resnet8, train: {epochs: 1}}
quantize: {method: ptq}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder, and a run below it that has tflite-int8, and ethosu-int8 for two NPUs."""
    needs(NPUS[0])
    folder = tmp_path_factory.mktemp("compiled")
    (folder / "r.yaml").write_text(RECIPE, "utf-8")
    assert edgeres("run", "r.yaml", "--quiet", cwd=folder).returncode == 0
    done = edgeres("export", "--target", "tflite-int8", "--target", "ethosu-int8", "--npu",
                   ",".join(NPUS), "--no-verify", "--quiet", "--json", cwd=folder)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)["added_to"]


@pytest.fixture
def here(made: tuple[Path, str], tmp_path: Path) -> tuple[Path, str]:
    """A copy, to spoil."""
    shutil.copytree(made[0], tmp_path / "copy", symlinks=True)
    return tmp_path / "copy", made[1]


def _package(here: tuple[Path, str]) -> Path:
    (package,) = (here[0] / here[1] / "artifacts/export-ethosu-int8").resolve().glob("*.ethosu")
    return package


def _verified(here: tuple[Path, str], *more: str, code: int) -> dict[str, Any]:
    done = edgeres("verify", here[1], "--quiet", "--json", *more, cwd=here[0])
    assert done.returncode == code, done.stderr
    return dict(json.loads(done.stdout))


def _only_tflite(found: dict[str, Any]) -> str:
    """Why ethosu-int8 isn't verified, where tflite-int8 is."""
    assert [(f["target"], f["passed"]) for f in found["files"]] == [("tflite-int8", True)]
    assert not found["passed"] and found["failures"] == []
    (row,) = found["unverified"]
    assert row["target"] == "ethosu-int8"
    return str(row["why"])


def test_both_npus_of_a_comma_are_compiled_for_and_verified(made: tuple[Path, str]) -> None:
    assert sorted(p.name for p in _package(made).iterdir()) == [*NPUS, "model.tflite"]
    found = _verified(made, code=0)
    assert found["passed"] and not found["unverified"]
    asked = [f["runtimes"] for f in found["files"] if f["target"] == "ethosu-int8"]
    assert [r["runtime"] for r in asked[0]] == list(NPUS)
    for npu, words in (("ethos-u55-128,ethos-u55-182", "unknown NPU 'ethos-u55-182'"),
                       (",", "--npu names nothing")):  # fmt: skip
        done = edgeres("export", made[1], "--target", "ethosu-int8", "--npu", npu, cwd=made[0])
        assert done.returncode == 2 and words in done.stderr, done.stderr


@pytest.mark.parametrize("lost", [f"{NPUS[0]}/model_vela.tflite", NPUS[1], "model.tflite", ""])
def test_what_was_lost_is_named_and_the_others_are_verified(
    lost: str, here: tuple[Path, str]
) -> None:
    package = _package(here)
    path = package / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    why = _only_tflite(_verified(here, code=2))
    name = f"{package.name}/{lost}".rstrip("/")
    assert why.startswith(str(package.parent)) and name in why
    link = f"{here[1]}/artifacts/export-ethosu-int8"
    command = f"edgeres export {here[1]} --target ethosu-int8 --npu {','.join(NPUS)}"
    assert why.endswith(
        f"; to export it again, remove {package.parent} and {link}, then: {command}"
    )
    done = edgeres("verify", here[1], "--quiet", "--junit", "r.xml", cwd=here[0])
    assert done.returncode == 2 and "NOT VERIFIED" in done.stdout
    assert 'failures="1"' in (here[0] / "r.xml").read_text("utf-8")
    if lost == NPUS[1]:  # as it is said
        shutil.rmtree(package.parent)
        (here[0] / link).unlink()
        again = edgeres(*command.split()[1:], "--quiet", cwd=here[0])
        assert again.returncode == 0, again.stderr
        assert _verified(here, code=0)["passed"]


def test_a_copy_that_lost_what_it_was_exported_for_fails(here: tuple[Path, str]) -> None:
    copy = here[0] / "m.ethosu"
    shutil.copytree(_package(here), copy)
    shutil.rmtree(copy / NPUS[0])
    done = edgeres("verify", copy, "--against", here[1], "--quiet", cwd=here[0])
    assert done.returncode == 1
    assert f"{NPUS[0]} is missing, which it was exported for: export it again" in done.stdout


def test_without_its_compiler_the_others_are_verified(
    made: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGERES_RUNTIMES", str(tmp_path / "none"))
    why = _only_tflite(_verified(made, code=4))
    assert why.endswith(f"it isn't installed: edgeres runtimes install {NPUS[0]}")
    alone = edgeres("verify", _package(made), "--against", made[1], cwd=made[0])
    assert alone.returncode == 4 and f"edgeres runtimes install {NPUS[0]}" in alone.stderr


def test_samples_are_for_runtimes_that_answer(made: tuple[Path, str]) -> None:
    done = edgeres("verify", made[1], "--on-samples", "5", cwd=made[0])
    assert done.returncode == 2
    assert f"--on-samples: {', '.join(NPUS)} only compile and answer no image" in done.stderr
    found = _verified(made, "--on-samples", "5", "--on", "litert-builtin", code=0)
    asked = {f["target"]: {r["runtime"]: r["n"] for r in f["runtimes"]} for f in found["files"]}
    assert asked["ethosu-int8"] == {**dict.fromkeys(NPUS), "litert-builtin": 5}


def test_samples_are_also_for_the_simulator_of_a_compiled_file(made: tuple[Path, str]) -> None:
    needs("qnn-htp")
    folder, run = made
    done = edgeres("export", run, "--target", "qnn-int8", "--npu", "qnn-sm8650", "--no-verify",
                   "--quiet", "--json", cwd=folder)  # fmt: skip
    assert done.returncode == 0, done.stderr
    (file,) = (folder / json.loads(done.stdout)["run"]).glob("artifacts/export-qnn-int8/*.qnn")
    found = json.loads(edgeres("verify", file, "--against", run, "--on-samples", "5", "--quiet",
                               "--json", cwd=folder).stdout)  # fmt: skip
    asked = {r["runtime"]: r["n"] for r in found["files"][0]["runtimes"]}
    assert found["passed"] and asked == {"qnn-sm8650": None, "qnn-htp": 5}


def test_faults_planted_in_what_was_compiled_are_caught(made: tuple[Path, str]) -> None:
    """By compiling anew: nothing else can tell what a compiler's file should be."""
    found = json.loads(edgeres("verify", _package(made), "--against", made[1], "--self-test",
                               "--quiet", "--json", cwd=made[0]).stdout)  # fmt: skip
    assert found["passed"]
    trials = {t["fault"]: t for t in found["trials"]}
    compiled = [f"a bit turned in {npu}/model_vela.tflite" for npu in NPUS]
    for fault in (*compiled, "compiled files of another network"):
        assert trials[fault]["planted"] and trials[fault]["caught"]
        assert trials[fault]["gate"] == "parts that are not the network's"

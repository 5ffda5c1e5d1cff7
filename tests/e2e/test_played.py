"""What the docs tell people to do with a run, done: the CI templates' commands, and the rollout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from edgeres import registry

ROOT = Path(__file__).parents[2]
RECIPE = """
name: tiny
data: {source: digits, size: 16, calibration: 64}
teacher: {model: resnet8-w0.5, train: {epochs: 2}}
quantize: {method: ptq}
export: {targets: [tflite-int8]}
verify: {agreement: 0.9}
benchmark: {preset: quick}
budgets: {limits: [{target: tflite-int8, size_kb: 100, agreement: 0.9}]}
report: {}
"""
# edgeres with short sessions: no test here looks at a latency.
EDGERES = f"""#!{sys.executable}
from edgeres.__main__ import main
from edgeres.measurement import protocol
from edgeres.measurement.runners import Preset
protocol.PRESETS.update(dict.fromkeys(("quick", "normal"), Preset(16, 0.01, 1.0, 0.1, sessions=2)))
main()
"""
TOLD = '#!/bin/sh\necho "$(basename "$0") $*" >> told.txt\n'


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a recipe, and programs that stand in for a CI system's."""
    folder = tmp_path_factory.mktemp("played")
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "bin").mkdir()
    for name, text in (("edgeres", EDGERES), ("python", TOLD), ("gh", TOLD), ("curl", TOLD)):
        (folder / "bin" / name).write_text(text)
        (folder / "bin" / name).chmod(0o755)
    sh(folder, "edgeres run recipe.yaml --quiet && edgeres benchmark --json > main.json")
    return folder


def sh(folder: Path, script: str, **more: str) -> None:
    """A step, as CI systems run one."""
    path = f"{folder / 'bin'}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-e", "-c", script], cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PATH": path, **more},
    )  # fmt: skip
    assert done.returncode == 0, (script, done.stdout, done.stderr)


def test_the_ci_templates_run(place: Path) -> None:
    text = (ROOT / "docs" / "ci.md").read_text("utf-8")
    github, gitlab, _ = (yaml.safe_load(b)
                      for b in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL))  # fmt: skip
    steps = [step["run"] for step in github["jobs"]["model"]["steps"] if "run" in step]
    for script in steps:
        sh(place, script, NUMBER="7", GH_TOKEN="secret")
    for name in ("verify.xml", "check.xml"):
        assert "<testcase" in (place / name).read_text()
    compared = (place / "compare.md").read_text()
    assert compared.startswith("**") and "| tflite-int8 | host | size |" in compared
    assert (place / "told.txt").read_text().splitlines() == [
        "python -m pip install edgeres", "gh pr comment 7 --body-file compare.md",
    ]  # fmt: skip
    theirs = [*gitlab["model"]["script"], *gitlab["model"]["after_script"]]
    assert theirs[:-1] == [line for step in steps for line in step.splitlines()][: len(theirs) - 1]
    sh(place, theirs[-1], CI_API_V4_URL="https://gitlab.invalid/api/v4", CI_PROJECT_ID="3",
       CI_MERGE_REQUEST_IID="9", COMMENT_TOKEN="secret")  # fmt: skip
    asked = (place / "told.txt").read_text().splitlines()[-1]
    assert asked.startswith("curl --fail ") and asked.endswith("projects/3/merge_requests/9/notes")
    kept = (set(github["jobs"]["model"]["steps"][-1]["with"]["path"].split()),
            set(gitlab["model"]["artifacts"]["reports"]["junit"]))  # fmt: skip
    assert kept == ({"*.xml"}, {"verify.xml", "check.xml"})


def test_the_hook_before_a_commit_finds_a_typo(place: Path, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "ci.md").read_text("utf-8")
    *_, hooks = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    ((hook,),) = (repo["hooks"] for repo in yaml.safe_load(hooks)["repos"])
    assert re.search(hook["files"], "recipe.yaml") and not hook["pass_filenames"]
    shutil.copytree(place / "bin", tmp_path / "bin")
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    sh(tmp_path, hook["entry"])
    assert not (tmp_path / "runs").exists()
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("method: ptq", "methd: ptq"))
    done = subprocess.run(
        ["sh", "-c", hook["entry"]],
        cwd=tmp_path,
        check=False,
        text=True,
        capture_output=True,
        env={**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"},
    )
    assert done.returncode == 2 and "recipe.yaml:5" in done.stderr and "methd" in done.stderr


def test_a_canary_that_drifts_is_rolled_back(place: Path, tmp_path: Path) -> None:
    (run,) = place.glob("runs/tiny-*")
    newer = run.with_name(f"newer-{run.name.rpartition('-')[2]}")  # its recipe's hash stays
    shutil.copytree(run, newer, symlinks=True)
    argv = [run.name, newer.name, "--runs", run.parent, "--folder", tmp_path]
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "canary.py", *argv], check=False,
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("golden test passed") == 5
    assert done.stdout.count("(exit code 1)") == 1
    first, *others = done.stdout.split("$ edgeres drift ")[1:]
    assert first.startswith("canary.zip board-1/log.jsonl") and "\ndrift in" in first
    assert len(others) == 3 and all("\nno drift in" in other for other in others)
    steps = [(e.action, e.run, e.reason) for e in registry.history(run.parent, "canary")]
    assert steps[1:] == [("promote", newer.name, ""), ("rollback", run.name, "drift on board-1")]
    assert (tmp_path / "board-1" / "bundle" / "golden_test.py").is_file()

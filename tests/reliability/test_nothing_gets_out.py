"""A run needs no network, tells nobody's secrets, and gives the same bytes in another place."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from reliability import kill_harness

from edgeres import devices
from edgeres.pipeline import _performing
from edgeres.recipe import BenchmarkSection

RECIPE = (
    kill_harness.SHORT.replace("short", "alone")
    + """\
verify: {agreement: 0, worst_codes: 255, mean_codes: 255, layer_codes: 255}
benchmark: {preset: quick}
report: {}
"""
)
EDGERES = """
from edgeres.__main__ import main
from edgeres.measurement import protocol
from edgeres.measurement.runners import Preset
protocol.PRESETS["quick"] = Preset(16, 0.01, 1.0, 0.1, sessions=2)  # what it measures isn't asked
main()
"""
SECRET = "planted-3f7a9c51-secret"
NAMES = ("AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "HF_TOKEN", "SSH_AUTH_SOCK", "PASSWORD")
ROUTES = "import socket; socket.create_connection(('192.0.2.1', 80), 2)"


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, made without any network and with secrets in its environment."""
    folder = tmp_path_factory.mktemp("alone")
    done = _without_network(folder, "-c", EDGERES, "run", _recipe(folder), "--json")
    assert done.returncode == 0, done.stderr[-2000:]
    (folder / "said").write_text(done.stdout + done.stderr)
    return folder


def _recipe(folder: Path) -> str:
    (folder / "alone.yaml").write_text(RECIPE)
    return "alone.yaml"


def _without_network(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python in a network namespace that has no route, not even to itself."""
    for unshare in (["unshare", "-n"], ["unshare", "-rn"]):
        tried = [*unshare, "true"]
        if shutil.which("unshare") and not subprocess.run(tried, capture_output=True).returncode:
            planted = dict.fromkeys(NAMES, SECRET)
            return subprocess.run(
                [*unshare, sys.executable, *arguments], cwd=folder, capture_output=True, text=True,
                check=False, timeout=900, env={**os.environ, **planted},
            )  # fmt: skip
    pytest.skip("needs Linux, and the right to make a network namespace")


def test_there_really_is_no_way_out(tmp_path: Path) -> None:
    assert "Network is unreachable" in _without_network(tmp_path, "-c", ROUTES).stderr


def test_a_run_without_any_route_completes(alone: Path) -> None:
    said = (alone / "said").read_text()
    result = json.loads(said[said.index("{") : said.rindex("\n}") + 2])
    steps = "data teacher quantize export:onnx-int8 verify benchmark report"
    assert list(result["artifacts"]) == steps.split()
    assert (alone / result["report"]).stat().st_size > 10_000


def test_no_secret_is_written_anywhere(alone: Path) -> None:
    (run,) = alone.glob("runs/alone-*")
    done = _without_network(alone, "-c", EDGERES, "bundle", str(run), "--for", "web-service",
                            "--out", "bundle.zip")  # fmt: skip
    assert done.returncode == 0, done.stderr
    shutil.unpack_archive(alone / "bundle.zip", alone / "bundle")
    files = [p for p in alone.rglob("*") if p.is_file()]
    assert len(files) > 30
    assert [p for p in files if SECRET.encode() in p.read_bytes()] == []


def test_the_user_at_a_device_is_not_recorded() -> None:
    assert devices.load("board@anna@nas.local").name == "board-nas.local"
    section = BenchmarkSection(devices=("host", "board@anna@nas.local"))
    assert _performing._recorded(section)["devices"] == ["host", "board-nas.local"]


def test_where_a_device_is_and_who_logs_in_stay_here(alone: Path, tmp_path: Path) -> None:
    """A profile of one's own, and a board that is away: only the recipe has what one wrote."""
    profile = tmp_path / SECRET / "board.yaml"
    profile.parent.mkdir()
    settings = {"user": SECRET, "host": f"{SECRET}.invalid", "identity": f"/{SECRET}/key"}
    profile.write_text(json.dumps({
        "name": "mine", "kind": "ssh", "description": "a board", "settings": settings,
    }))  # fmt: skip
    here = f'["host", "{profile}", "board@{SECRET}@nas.invalid"]'
    done = _without_network(alone, "-c", EDGERES, "run", "alone.yaml", "--set", "name=away",
                            "--allow-device-programs",
                            "--set", f"benchmark.devices={here}")  # fmt: skip
    assert done.returncode != 0 and "can't find" in done.stderr, done.stderr[-2000:]
    assert list(alone.glob("runs/away-*"))
    files = [p for p in (alone / "runs").rglob("*") if p.is_file()]
    with_it = {p.name for p in files if SECRET.encode() in p.read_bytes()}
    assert with_it == {"recipe.lock.yaml"}


def test_another_store_another_place_the_same_bytes(alone: Path, tmp_path: Path) -> None:
    """What differs between two runs is named in the artifact."""
    folder = tmp_path / "é other"
    folder.mkdir()
    command = [sys.executable, "-c", EDGERES, "run", _recipe(folder)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = (_described(place) for place in (alone, folder))
    assert first.keys() == second.keys()
    for name in first:
        assert _settled(first[name]) == _settled(second[name]), name
        if name not in ("benchmark", "report"):  # measured here and now
            assert set(first[name]["varies"]) == {"seconds", "made_with", "checksum"}


def _described(folder: Path) -> dict[str, Any]:
    """Step -> its artifact.json."""
    (run,) = folder.glob("runs/alone-*")
    return {path.parent.name: json.loads(path.read_text())
            for path in sorted(run.glob("artifacts/*/artifact.json"))}  # fmt: skip


def _settled(description: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in description.items() if k not in description["varies"]}

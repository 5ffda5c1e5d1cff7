"""A profile is data: somebody else's starts no program, whatever its kind."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from in_process import edgeres

from edgeres import devices, pipeline, recipe
from edgeres.commands import chain, complete
from edgeres.errors import BadInput, EdgeresError

VALUES = {str: "x", int: 1, bool: True}


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The user's own folder of profiles, and no permission from an earlier test."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    folder = devices.own_folder()
    assert folder is not None
    folder.mkdir(parents=True)
    yield folder
    devices.allow_programs(False)


def written(folder: Path, kind: str, **keys: Any) -> Path:
    """A profile `x.yaml` in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "x.yaml"
    path.write_text(yaml.safe_dump({"name": "x", "kind": kind, "description": "x", **keys}))
    return path


def settings_of(kind: str) -> dict[str, devices.Setting]:
    """What a kind declares."""
    return dict(importlib.import_module(f"edgeres.devices.{kind}").SETTINGS)


@pytest.mark.parametrize("kind", devices.kinds())
def test_what_starts_programs_counts_only_in_ones_own_profiles(
    kind: str, own: Path, tmp_path: Path
) -> None:
    parts = [({"settings": {key: VALUES[s.type]}}, f"settings.{key}", s.starts_programs)
             for key, s in settings_of(kind).items()]  # fmt: skip
    for keys, name, starts in [*parts, ({"tools": {"trtexec": "./x"}}, "tools", True)]:
        foreign = written(tmp_path / "theirs", kind, **keys)
        if not starts:
            assert devices.load(foreign).kind == kind
            continue
        with pytest.raises(BadInput, match=rf"x\.yaml: {name} can start programs") as refused:
            devices.load(foreign)
        assert "--allow-device-programs" in str(refused.value)
        mine = written(own, kind, **keys)
        assert devices.load(mine) == devices.load("x")
        devices.allow_programs(True)
        assert devices.load(foreign) == devices.load(mine)
        devices.allow_programs(False)


@pytest.mark.parametrize("kind", devices.kinds())
def test_no_other_setting_starts_one(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each text setting that isn't declared is a program, a command and an option of ssh's."""
    mark = tmp_path / "started"
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {mark}\n")
    program.chmod(0o755)
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", "1")
    free = {"server_port": 1} if kind == "adb" else {"port": 1} if kind in ("ssh", "jetson") else {}
    plain = [key for key, s in settings_of(kind).items() if s.type is str and not s.starts_programs]
    for key in plain:
        for value in (str(program), f"$({program})", f"`{program}`", f"x;{program}",
                      f"-oProxyCommand={program}", f"x -oProxyCommand={program}"):  # fmt: skip
            keys = {"host": "127.0.0.1", **free} if "port" in free else free
            path = written(tmp_path / "theirs", kind, settings={**keys, key: value})
            with pytest.raises(EdgeresError):
                devices.open_device(devices.load(path))
            assert not mark.exists(), (key, value)


def test_a_link_to_ones_own_folder_is_not_in_it(own: Path, tmp_path: Path) -> None:
    written(own, "local", settings={"python": "p"})
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "y.yaml").symlink_to(own / "x.yaml")
    with pytest.raises(BadInput, match="not one of your own"):
        devices.load(tmp_path / "theirs" / "y.yaml")


def test_without_a_home_there_are_the_shipped_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setattr("os.path.expanduser", str)
    monkeypatch.chdir(tmp_path)
    hidden = written(tmp_path / "~" / ".config/edgeres/devices", "local", settings={"python": "p"})
    assert devices.load("host").name == "host" and "x" not in devices.names()
    with pytest.raises(BadInput, match="not one of your own"):
        devices.load(hidden)


def test_ones_own_profile_goes_before_a_shipped_one(own: Path) -> None:
    path = written(own, "ssh", settings={"host": "shed", "python": "~/edgeres/bin/python"})
    path.rename(own / "raspberry-pi-5.yaml")
    assert devices.load("raspberry-pi-5").settings["host"] == "shed"
    assert devices.load("raspberry-pi-5@attic").settings["host"] == "attic"
    assert devices.names().count("raspberry-pi-5") == 1


RECIPE = """\
extends: quickstart
name: theirs
benchmark: {devices: [host, x.yaml]}
"""


def started_by(tmp_path: Path) -> tuple[Path, Path]:
    """A recipe with a profile that names a program, and the file that its start would leave."""
    mark, program = tmp_path / "started", tmp_path / "program"
    program.write_text(f'#!/bin/sh\ntouch {mark}\nexec {sys.executable} "$@"\n')
    program.chmod(0o755)
    written(tmp_path, "local", settings={"python": str(program)})
    (tmp_path / "theirs.yaml").write_text(RECIPE)
    return tmp_path / "theirs.yaml", mark


@pytest.mark.parametrize(
    "command",
    [("devices", "probe", "x.yaml"), ("run", "theirs.yaml", "--dry-run"), ("run", "theirs.yaml"),
     ("benchmark", "m.onnx", "--device", "x.yaml"),
     ("prune", "--budget", "latency=1ms", "--device", "x.yaml"),
     ("search", "--latency", "1ms", "--device", "x.yaml"), ("init", "--device", "x.yaml")],
)  # fmt: skip
def test_no_command_starts_a_foreign_profiles_program(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    _, mark = started_by(tmp_path)
    done = edgeres(*command, cwd=tmp_path)
    assert done.returncode == 2
    if command[0] not in ("benchmark", "prune"):  # which have no model here
        assert "x.yaml: settings.python can start programs" in done.stderr
    assert not mark.exists() and "Traceback" not in done.stderr


def test_with_permission_it_is_probed_and_a_plan_still_starts_nothing(tmp_path: Path) -> None:
    _, mark = started_by(tmp_path)
    plan = edgeres("run", "theirs.yaml", "--dry-run", "--allow-device-programs", cwd=tmp_path)
    assert plan.returncode == 0 and not mark.exists()
    probed = edgeres("devices", "probe", "x.yaml", "--allow-device-programs", cwd=tmp_path)
    assert probed.returncode == 0 and mark.exists()
    assert edgeres("devices", "probe", "x.yaml", cwd=tmp_path).returncode == 2  # it isn't kept


def test_a_plan_asks_no_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "open_device", lambda profile: pytest.fail("a device was opened"))
    monkeypatch.setattr("subprocess.Popen", lambda *a, **k: pytest.fail("a program was started"))
    loaded = recipe.load("quickstart", ["prune.macs=null", "prune.latency=5ms"])
    steps = chain.planned(loaded, tmp_path / "runs", None)["steps"]
    assert {row["state"] for row in steps} == {"to do", "waits"}
    for step in pipeline.steps(loaded):
        if step.stage in ("prune", "benchmark"):
            from edgeres import stages

            assert stages.asked_devices(stages.load(step.stage), step.section)
    assert not (tmp_path / "runs").exists()


def test_every_command_that_reads_a_profile_can_be_given_permission() -> None:
    from edgeres import cli

    reading = {"run", "step", "distill", "prune", "search", "quantize", "export", "diagnose",
               "recalibrate", "benchmark", "compare", "init", "probe"}  # fmt: skip
    commands = {c.callback.__name__: c.callback  # type: ignore[union-attr]
                for app in (cli.app, cli._devices) for c in app.registered_commands}  # fmt: skip
    allowing = {n for n, function in commands.items() if "_programs" in function.__annotations__}
    assert allowing == reading
    naming = {n for n, function in commands.items() if "device" in function.__annotations__}
    assert naming <= reading


def test_a_broken_profile_of_ones_own_hides_no_other(own: Path, tmp_path: Path) -> None:
    (own / "bad.yaml").write_text("name: [")
    done = edgeres("list", "devices", cwd=tmp_path)
    assert done.returncode == 0 and "local" in done.stdout
    assert any("bad" in line and "can't be used" in line for line in done.stdout.splitlines())
    assert complete.devices("ba") == ["bad"]

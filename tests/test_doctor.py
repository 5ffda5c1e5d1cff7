"""doctor asks the programs that are there, and says how to get those that aren't."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edgeres.commands import doctor


def program(folder: Path, name: str, lines: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{lines}\n")
    (folder / name).chmod(0o755)


def test_programs_that_are_there_missing_broken_and_hanging(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path / "bin", "adb", "echo 'Android Debug Bridge version 1.0.41'")
    program(tmp_path / "bin", "ssh", "echo 'OpenSSH_9.2p1 Debian-2, OpenSSL 3.0.11' >&2; exit 255")
    program(tmp_path / "bin", "clang++", "while :; do :; done")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(doctor, "_LIMIT_S", 1)
    found = {row["component"]: row for row in doctor.rows(tmp_path / "none" / "runs")}
    assert (found["adb"]["version"], found["adb"]["note"]) == ("1.0.41", "ok")
    assert found["ssh"]["version"] == "9.2p1"
    assert found["g++"]["version"] == "?"
    assert found["trtexec"]["note"] == ("missing: for TensorRT here; it comes with TensorRT")
    assert not (tmp_path / "none").exists()


def test_the_machine_and_its_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {row["component"]: row for row in doctor.rows(tmp_path)}
    assert found["torch"]["note"] == "ok" and "GPU" in " ".join(found)
    assert found["free disk"]["version"].endswith(" GB")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10**9))
    monkeypatch.setattr(doctor, "_PACKAGES", {"no-such-package": "coreml"})
    found = {row["component"]: row for row in doctor.rows(tmp_path)}
    assert found["free disk"]["note"].startswith("little: `edgeres clean`")
    assert found["no-such-package"]["note"] == "missing: pip install 'edgeres[coreml]'"
    assert all(len(line) <= 80 for line in doctor.text(list(found.values())).splitlines())

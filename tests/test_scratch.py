"""Scratch folders: gone at the end, or when the next one is made after a kill."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgeres import scratch

ROOT = Path(__file__).parents[1]
HOLD = """
import sys, time
from edgeres import scratch
folder = scratch.Folder("test")
(folder.path / "big").write_text("x")
print(folder.path, flush=True)
time.sleep(300)
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary folder of a test, of its children too."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def holder() -> tuple[subprocess.Popen[str], Path]:
    """A process that has a folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    return process, Path(process.stdout.readline().strip())


def test_a_folder_is_private_and_goes_with_its_block(place: Path) -> None:
    with scratch.folder("test") as path:
        (path / "deep").mkdir()
        assert path.parent == place and path.stat().st_mode & 0o777 == 0o700
        with scratch.folder("test") as other:
            assert other != path and path.exists()
    with pytest.raises(KeyboardInterrupt), scratch.folder("test"):
        raise KeyboardInterrupt
    assert not list(place.iterdir())


def test_what_a_killed_process_left_is_swept_and_what_lives_is_not(place: Path) -> None:
    (dead, left), (alive, kept) = holder(), holder()
    try:
        dead.send_signal(signal.SIGKILL)
        dead.wait()
        assert left.exists()
        with scratch.folder("test"):
            assert not left.exists() and (kept / "big").exists()
    finally:
        alive.kill()
        alive.wait()
    with scratch.folder("test"):
        assert not kept.exists()


def test_a_killed_benchmark_leaves_nothing_for_ever(place: Path) -> None:
    script = (
        "import sys\nfrom edgeres import devices\n"
        "with devices.open_device(devices.load('host')) as device:\n"
        "    print(device._staging, flush=True)\n"
        "    device.run([sys.executable, '-c', 'import time; time.sleep(2)'], 60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    left = Path(process.stdout.readline().strip())
    process.kill()
    process.wait()
    assert left.is_relative_to(place) and left.exists()
    for _ in range(50):  # a program that it was just starting holds its lock for a moment
        with scratch.folder("test"):
            pass
        if not left.exists():
            break
        time.sleep(0.1)
    assert not left.exists()


def test_only_what_is_surely_abandoned_is_removed(place: Path) -> None:
    elsewhere = place / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / ".lock").touch()
    link = place / "edgeres-scratch-test-link"
    link.symlink_to(elsewhere)
    young, old, unlockable = (place / f"edgeres-scratch-test-{n}" for n in ("a", "b", "c"))
    for folder in (young, old, unlockable):
        folder.mkdir()
    (unlockable / ".lock.new").touch()
    long_ago = time.time() - 7 * 86_400
    for folder in (old, unlockable):
        os.utime(folder, (long_ago, long_ago))
    with scratch.folder("test"):
        assert link.exists() and elsewhere.exists()
        assert young.exists() and unlockable.exists() and not old.exists()


def test_nothing_else_makes_temporary_folders() -> None:
    found = []
    for file in sorted((ROOT / "edgeres").rglob("*.py")):
        name = file.relative_to(ROOT / "edgeres").as_posix()
        nodes = ast.walk(ast.parse(file.read_text("utf-8")))
        called = [ast.unparse(n.func) for n in nodes if isinstance(n, ast.Call)]
        if any(function.endswith(("mkdtemp", "TemporaryDirectory")) for function in called):
            found.append(name)
    assert [name for name in found if not name.startswith("bundle/")] == ["scratch.py"]

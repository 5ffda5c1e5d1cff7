"""Locks of a folder that machines share: the system's, or leases where it has none between them."""

from __future__ import annotations

import errno
import fcntl
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgeres import locks
from edgeres.errors import StorageError

# Another process, which has flock or not, takes a lock, says so, and holds it until it is killed.
HOLDER = """
import sys, time
from pathlib import Path
from edgeres import locks
folder, name, kind = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
with locks.shared(folder, name, False) if kind == "shared" else locks.exclusive(folder, name):
    print("has it", flush=True)
    time.sleep(600)
"""


def holding(folder: Path, kind: str) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLDER, folder, "a", kind],
                               stdout=subprocess.PIPE, text=True)  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "has it\n"
    return process


@pytest.fixture(params=[None, "1"], ids=["flock", "leases"])
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    if request.param is not None:
        (tmp_path / locks.MARKER).write_text(request.param)
    return tmp_path


def test_what_another_process_has_is_taken_until_it_dies(folder: Path) -> None:
    """A lease goes on as long as its owner lives, and no longer."""
    other = holding(folder, "exclusive")
    try:
        until = time.monotonic() + 2.5
        while time.monotonic() < until:
            with pytest.raises(locks.Taken), locks.exclusive(folder, "a"):
                pass
            time.sleep(0.2)
        with locks.exclusive(folder, "b"):  # of another name
            pass
    finally:
        other.kill()
        other.wait()
    with locks.exclusive(folder, "a", waiting=lambda: None):
        pass


def test_several_share_what_one_alone_does_not_get(folder: Path) -> None:
    other = holding(folder, "shared")
    try:
        with locks.shared(folder, "a", alone=False):
            pass
        with pytest.raises(locks.Taken), locks.shared(folder, "a", alone=True):
            pass
    finally:
        other.kill()
        other.wait()
    with locks.shared(folder, "a", alone=True):
        pass


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_gets_leases(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(number, "refused")

    monkeypatch.setattr(fcntl, "flock", refused)
    locks.prepare(tmp_path)
    assert (tmp_path / locks.MARKER).exists()
    with locks.exclusive(tmp_path, "a"), pytest.raises(locks.Taken), locks.exclusive(tmp_path, "a"):
        pass


def test_a_file_system_with_locks_keeps_to_them(tmp_path: Path) -> None:
    locks.prepare(tmp_path)
    assert not (tmp_path / locks.MARKER).exists()


@pytest.mark.parametrize("text", ["soon", "-1", "0", "1e3", "9" * 50])
def test_what_is_no_number_of_seconds_is_said(text: str, tmp_path: Path) -> None:
    (tmp_path / locks.MARKER).write_text(text)
    with pytest.raises(StorageError, match="holds no number of seconds"):
        locks.prepare(tmp_path)

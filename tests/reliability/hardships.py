"""A disk that is full or read-only, a clock that is wrong, a system that starts no more processes.

Each function takes the means to start the command and what an undisturbed run makes, and returns
`passed`, `skipped: <why>` or what went wrong. The kill harness calls them (`--hardships`).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kill_harness import Trials, differences, ended, last_words

_NOBODY = 65534
_NOT_HERE = 77
_IN_TEN_YEARS_S = 10 * 365 * 86_400
# linux/prctl.h and linux/capability.h
_PR_SET_KEEPCAPS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE = 8, 47, 2
_CAP_DAC_OVERRIDE, _CAPABILITIES_3 = 1, 0x20080522


def all_of(trials: Trials, root: Path, known: dict[str, str]) -> dict[str, str]:
    """Name -> what came of it."""
    found = {}
    for hardship in (a_full_disk, a_read_only_store, a_wrong_clock, no_more_processes):
        folder = root / hardship.__name__
        folder.mkdir()
        try:
            found[hardship.__name__] = hardship(trials, folder, known)
        except (AssertionError, OSError, subprocess.SubprocessError) as error:
            found[hardship.__name__] = f"{type(error).__name__}: {error}"
    return found


def a_full_disk(trials: Trials, folder: Path, known: dict[str, str]) -> str:
    """One sentence and code 2; with more room the same command completes."""
    with _tmpfs(folder, "size=700k") as why_not:
        if why_not:
            return why_not
        code = ended(trials.start(folder))
        said = last_words(folder)
        assert code == 2, f"code {code}: {said}"
        assert "no space left" in said and "Traceback" not in said, said
        _mount("-o", "remount,size=64m", str(folder))
        trials.finish(folder)
        return _same(folder, known)


def a_read_only_store(trials: Trials, folder: Path, known: dict[str, str]) -> str:
    """One sentence and code 2; writable again, the same command completes."""
    with _tmpfs(folder, "size=64m") as why_not:
        if why_not:
            return why_not
        (folder / "recipe.yaml").write_text(trials.recipe)
        (folder / "log").touch()
        (folder / "runs").mkdir()
        _mount("-t", "tmpfs", "-o", "ro", "tmpfs", str(folder / "runs"))
        try:
            code = ended(trials.start(folder))
        finally:
            subprocess.run(["umount", str(folder / "runs")], check=True)
        said = last_words(folder)
        assert code == 2, f"code {code}: {said}"
        assert "can't be written" in said and "Traceback" not in said, said
        return "passed"


def a_wrong_clock(trials: Trials, folder: Path, known: dict[str, str]) -> str:
    """Everything was made in ten years' time, and one artifact is lost: only that is made anew."""
    shutil.copytree(folder.parent / "reference", folder, symlinks=True, dirs_exist_ok=True)
    (lost,) = (folder / "runs/store/artifacts").glob("quantize-*")
    shutil.rmtree(lost)
    for path in (folder / "runs").rglob("*"):
        later = path.lstat().st_mtime + _IN_TEN_YEARS_S
        os.utime(path, (later, later), follow_symlinks=False)
    (folder / "log").write_text("")
    trials.finish(folder)
    said = (folder / "log").read_text()
    assert said.count("cached") == len(list(lost.parent.iterdir())) - 1, said
    return _same(folder, known)


def no_more_processes(trials: Trials, folder: Path, known: dict[str, str]) -> str:
    """A user who may not start another process gets a sentence; one who may again, completes."""
    if os.geteuid() != 0:
        return "skipped: only root can become a user with no processes of its own"
    os.chown(folder, _NOBODY, _NOBODY)

    def limited() -> None:
        os.environ["HOME"] = str(folder)
        if not _become(_NOBODY):
            os._exit(_NOT_HERE)
        resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))

    (folder / "log").touch()
    os.chown(folder / "log", _NOBODY, _NOBODY)
    code = ended(trials.start(folder, prepare=limited))
    if code == _NOT_HERE:
        return "skipped: root may not hand on its right to read here"
    said = last_words(folder)
    assert code in (1, 2), f"code {code}: {said}"
    assert "can't be started" in said and "Traceback" not in said, said
    trials.finish(folder)
    return _same(folder, known)


def _become(user: int) -> bool:
    """Another user, to whom limits apply, yet who may read the interpreter in root's home."""
    libc = ctypes.CDLL(None)
    override = 1 << _CAP_DAC_OVERRIDE
    libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgid(user)
    os.setuid(user)
    header = (ctypes.c_uint32 * 2)(_CAPABILITIES_3, 0)
    kept = (ctypes.c_uint32 * 6)(override, override, override)  # effective, permitted, inherited
    handed_on = libc.capset(header, kept) == 0
    return handed_on and not libc.prctl(
        _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_DAC_OVERRIDE, 0, 0
    )


def _same(folder: Path, known: dict[str, str]) -> str:
    return "; ".join(differences(folder, known)) or "passed"


@contextlib.contextmanager
def _tmpfs(folder: Path, options: str) -> Iterator[str]:
    """A small disk at a folder; yields why there is none, or nothing."""
    if os.geteuid() != 0:
        yield "skipped: only root can mount a small disk"
        return
    done: Any = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode != 0:
        yield f"skipped: {done.stderr.strip()}"
        return
    try:
        yield ""
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)

"""Where a runtime's packages are: an environment of its own, made from pinned hashes.

Below `$EDGERES_RUNTIMES`, or the user's cache folder. A module without a lock file is asked in
edgeres' own environment.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from filelock import FileLock

from edgeres.disk import cache_folder, storage_errors, write_whole
from edgeres.errors import MissingComponent

_PYTHON = "3.11"  # what the lock files were made for
_DONE = "installed"
UNSET = 0x5A
"""What glibc fills memory with that a runtime hasn't set. RKNN writes such memory into files."""
_OWN = ("ai-edge-litert", "onnxruntime")  # what modules without a lock file use


def lock(own: str) -> Path | None:
    """A module's lock file; None if edgeres' own environment has all that it needs."""
    from edgeres import runtimes

    module = runtimes.source(own)
    path = module.parent / "locks" / f"{module.stem}.txt"
    return path if path.is_file() else None


def digest(own: str) -> str:
    """A hash of a module's packages: other ones, another hash."""
    path = lock(own)
    if path is not None:
        said = path.read_bytes()
    else:
        said = " ".join(f"{p} {importlib.metadata.version(p)}" for p in _OWN).encode()
    return hashlib.sha256(said).hexdigest()[:12]


def place(own: str) -> Path:
    """The folder of a module's environment."""
    given = os.environ.get("EDGERES_RUNTIMES")
    below = Path(given) if given else cache_folder() / "runtimes"
    return below.absolute() / f"{own}-{digest(own)}"


def installed(own: str) -> bool:
    """Whether a module's environment is there, whole."""
    return (place(own) / _DONE).is_file() and python(own).exists()


def python(own: str) -> Path:
    """The interpreter that a module is asked with."""
    return Path(sys.executable) if lock(own) is None else place(own) / "bin" / "python"


def variables(work: Path) -> dict[str, str]:
    """What the runtime's process may know: no proxy, token or path of the user's own."""
    kept = ("PATH", "LANG", "LC_ALL", "VK_ICD_FILENAMES", "VK_DRIVER_FILES", "DISPLAY",
            "WAYLAND_DISPLAY", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES")  # fmt: skip
    found = {name: os.environ[name] for name in kept if name in os.environ}
    private = {"HOME": str(work), "TMPDIR": str(work), "XDG_RUNTIME_DIR": str(work)}
    settings = {"ORT_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1",
                "MALLOC_PERTURB_": str(UNSET ^ 0xFF)}  # fmt: skip
    return {**found, **private, **settings}


def make(name: str, own: str) -> None:
    """Make a module's environment; another process that is at it is waited for.

    Raises:
        MissingComponent: the packages can't be installed; says why.
    """
    folder, locked = place(own), lock(own)
    assert locked is not None
    with storage_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / f"{folder.name}.lock"):
            if installed(own):
                return
            shutil.rmtree(folder, ignore_errors=True)  # what an interrupted one left
            for command in _commands(name, folder, locked):
                said = subprocess.run(command, capture_output=True, text=True, check=False,
                                      stdin=subprocess.DEVNULL)  # fmt: skip
                if said.returncode:
                    shutil.rmtree(folder, ignore_errors=True)
                    raise MissingComponent(
                        f"runtime '{name}' can't be installed ({_reason(said.stderr)}); it needs "
                        "a package index, once: look at the network and at pip's settings"
                    )
            write_whole(folder / _DONE, f"{name}\n")


def remove(own: str) -> bool:
    """Delete a module's environments, those of other versions, too; whether there was one."""
    place_ = place(own)
    found = [p for p in place_.parent.glob(f"{own}-{'[0-9a-f]' * 12}")
             if p.is_dir() and not p.is_symlink()]  # fmt: skip
    for folder in found if lock(own) is not None else ():
        with storage_errors(folder), FileLock(folder.parent / f"{folder.name}.lock"):
            (folder / _DONE).unlink(missing_ok=True)
            shutil.rmtree(folder)
    return bool(found)


def _commands(name: str, folder: Path, locked: Path) -> tuple[list[str], list[str]]:
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.is_file() else shutil.which("uv")
    interpreter = str(folder / "bin" / "python")
    hashed = ["--require-hashes", "--no-deps", "-r", str(locked)]
    if uv:
        return ([uv, "venv", "--quiet", "--python", _PYTHON, str(folder)],
                [uv, "pip", "install", "--quiet", "--python", interpreter, *hashed])  # fmt: skip
    here = "{}.{}".format(*sys.version_info[:2])
    if here != _PYTHON:
        raise MissingComponent(
            f"runtime '{name}' has packages for Python {_PYTHON}, and this is {here}: "
            "`pip install uv` brings what finds one, then repeat"
        )
    return ([sys.executable, "-m", "venv", str(folder)],
            [interpreter, "-m", "pip", "install", "--quiet", *hashed])  # fmt: skip


def _reason(said: str) -> str:
    lines = [line.strip(" ×│╰─▶├") for line in said.strip().splitlines()]
    lines = [line for line in lines if line and not line.startswith("hint:")]
    return lines[-1][:200] if lines else "no reason given"


def kill_group(process: Any) -> None:
    """End a process and those that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdin.close()

"""The command doctor: what this machine has of what edgeres can use, and how to get the rest."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from edgeres import __version__
from edgeres.text import table

_PACKAGES = {
    "torch": None, "torchao": None, "nncf": None, "litert-torch": None,
    "ai-edge-litert": None, "onnx": None, "onnxruntime": None, "numpy": None, "pillow": None,
    "coremltools": "coreml", "executorch": "executorch", "tensorflow": "tensorflow",
    "cryptography": "signing",
}  # fmt: skip
# program -> how it tells its version, what for
_PROGRAMS = {
    "ssh": (("-V",), "boards and Jetsons; install OpenSSH"),
    "adb": (("version",), "phones; install Android's platform-tools"),
    "trtexec": (("--help",), "TensorRT here; it comes with TensorRT"),
    "g++": (("--version",), "train.compile on the CPU (or clang++)"),
}
_LIMIT_S = 10
_VERSION = re.compile(r"\d+(\.\d+)+(p\d+)?")
_LITTLE_DISK, _LITTLE_MEMORY = 5e9, 4e9

Row = dict[str, object]


def rows(runs: Path) -> list[Row]:
    """Each component with its version, and what is to be said of it.

    Args:
        runs: the folder of runs, whose disk is looked at.
    """
    return [*_machine(runs), *_gpu(), *_packages(), *_programs()]


def text(found: list[Row]) -> str:
    """As a table."""
    return table(found, ("component", "version", "note"))


def _row(component: str, version: str, note: str) -> Row:
    return {"component": component, "version": version, "note": note}


def _machine(runs: Path) -> Iterator[Row]:
    yield _row("edgeres", __version__, "ok")
    yield _row("python", platform.python_version(), f"{sys.platform}, {platform.machine()}")
    yield _row("cores", str(os.cpu_count() or 1), "ok")
    if (memory := _memory_bytes()) is not None:
        note = "ok" if memory > _LITTLE_MEMORY else "little: exports may need 4 GB"
        yield _row("memory", f"{memory / 1e9:,.1f} GB", note)
    place = next(p for p in (runs.absolute(), *runs.absolute().parents) if p.is_dir())
    free = shutil.disk_usage(place).free
    note = "ok" if free > _LITTLE_DISK else "little: `edgeres clean` removes what no run uses"
    if not os.access(place, os.W_OK):
        note = f"{place} can't be written; choose another --runs DIR"
    yield _row("free disk", f"{free / 1e9:,.1f} GB", note)


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # not on Windows
        return None


def _gpu() -> Iterator[Row]:
    try:
        import torch
    except (ImportError, OSError):  # not there, or its libraries aren't
        return
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            found = torch.cuda.get_device_properties(index)
            yield _row(f"GPU {index}", f"CUDA {torch.version.cuda}",
                       f"{found.name}, {found.total_memory / 1e9:,.0f} GB")  # fmt: skip
    elif torch.backends.mps.is_available():
        yield _row("GPU", "MPS", "ok")
    else:
        built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "the CPU alone"
        yield _row("GPU", "-", f"none found; torch is built for {built}")


def _packages() -> Iterator[Row]:
    for name, extra in _PACKAGES.items():
        try:
            yield _row(name, metadata.version(name), "ok")
        except metadata.PackageNotFoundError:
            what = f"edgeres[{extra}]" if extra else "edgeres"
            yield _row(name, "-", f"missing: pip install '{what}'")


def _programs() -> Iterator[Row]:
    for name, (arguments, purpose) in _PROGRAMS.items():
        found = shutil.which(name) or (shutil.which("clang++") if name == "g++" else None)
        if found is None:
            yield _row(name, "-", f"missing: for {purpose}")
            continue
        yield _row(name, _version(found, arguments), "ok")


def _version(program: str, arguments: tuple[str, ...]) -> str:
    """The first number with a point in what a program says of itself; "?" if it says none."""
    try:
        done = subprocess.run(
            [program, *arguments], capture_output=True, text=True, check=False, errors="replace",
            timeout=_LIMIT_S, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return "?"
    match = _VERSION.search(done.stdout + done.stderr)
    return match[0] if match else "?"

"""What a file of any origin holds, JSON-ready: as stored, and what its runtime makes of it.

It is run once where this machine can. Where it can't, it is listed all the same, with the reason.
Call this in a process of its own (`_conversion.examine`): the readers are not made for hostile
files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeres import targets
from edgeres.disk import file_sha256
from edgeres.errors import BadInput
from edgeres.quiet import ConversionFailed, quiet
from edgeres.targets._graph import FileGraph, described
from edgeres.types import to_json

# What a graph optimizer changes, so that it is shown twice.
_TWICE = ("operators", "transposes", "residual_adds")
_STORED = (*_TWICE, "macs", "constant_bytes", "four_bits", "delegates")


def facts(path: Path) -> dict[str, object]:
    """The file as stored; shares, float operators and layers as they are computed.

    `runtime` says what the runtime makes of it, None where that is the same or isn't known;
    `not_run` why it wasn't run, None if it was.

    Raises:
        BadInput: no such file, or one that can't be read.
    """
    _, target = targets.of_file(path)
    try:
        return _facts(path, target)
    except (BadInput, ConversionFailed, MemoryError):
        raise
    except Exception as error:  # a reader raises whatever it likes
        raise BadInput(f"{path}: can't be read ({_first_line(error)})") from error


def beside(path: Path) -> list[Path]:
    """The files that it keeps weights in, beside itself; only names below its own folder."""
    _, target = targets.of_file(path)
    with quiet(f"reading {path.name}"):
        found: list[Path] = target.beside(path) if hasattr(target, "beside") else []
    return found


def _facts(path: Path, target: Any) -> dict[str, object]:
    stored: FileGraph | None = target.as_stored(path) if hasattr(target, "as_stored") else None
    graph, why = stored, None
    try:
        graph = target.read(path)
    except (BadInput, ConversionFailed) as error:
        if stored is None:
            raise
        why = str(error)
    assert graph is not None
    executed = described(graph)
    found = {**executed, "runtime": None}
    if stored is not None:
        as_stored = described(stored)
        found |= {key: as_stored[key] for key in _STORED}
        if why is None and as_stored["operators"] != executed["operators"]:
            found["runtime"] = {"name": target.RUNTIME, **{key: executed[key] for key in _TWICE}}
    return {
        **found, "precision": graph.precision(), "not_run": why or _not_run(path, target, graph),
        "input": to_json(graph.input), "output": to_json(graph.output),
        "scales": to_json(dict(graph.quantization)),
        "beside": {str(p.relative_to(path.parent)):
                   {"size_bytes": p.stat().st_size, "sha256": file_sha256(p)}
                   for p in beside(path)},
    }  # fmt: skip


def _not_run(path: Path, target: Any, graph: FileGraph) -> str | None:
    import numpy as np

    if graph.delegated:
        needed = "; ".join(f"{kind} needs {what}" for kind, what in graph.delegated.items())
        return f"{path}: can't be run here: {needed}"
    batch = graph.input.shape[0] if graph.input.shape else 1
    if batch > 1:
        return (f"{path}: its batch is fixed at {batch}, and edgeres runs one image at a time; "
                "export it with batch 1")  # fmt: skip
    try:
        session = target.session(path)
        if session is not None:
            session.run(np.zeros((1, *graph.input.shape[1:]), graph.input.dtype))
    except (BadInput, ConversionFailed) as error:
        return str(error)
    except MemoryError:
        raise
    except Exception as error:
        return f"{path}: can't be run ({_first_line(error)})"
    return None


def _first_line(error: Exception) -> str:
    first = (str(error).strip().splitlines() or [""])[0][:200]
    return f"{type(error).__name__}: {first}"

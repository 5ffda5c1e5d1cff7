"""Converting, and reading what others wrote, in a process of its own.

A converter's or reader's crash, print-outs and globals stay there. `convert` and `examine` start
`python -m edgeres.targets._conversion` with a job on its standard input, which stays open: when
this process dies, the child reads its end and dies too.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeres import children, errors, quiet, scratch, targets
from edgeres.disk import folder_size, read_bounded
from edgeres.errors import BadInput
from edgeres.quiet import ConversionFailed
from edgeres.targets._graph import described
from edgeres.types import ScaleTable, quant_params, to_json

_LIMIT_S = 3600.0
_READ_LIMIT_S = 120.0
_READ_MEMORY, _READ_MEMORY_PER_BYTE = 2 << 30, 8
_REPLY_BYTES, _LAST_BYTES = 256 << 20, 64 << 10
_POLL_S = 0.05


def convert(
    model: Path,
    scales: ScaleTable | None,
    target: str,
    path: Path,
    metadata: Mapping[str, str],
    waiting: Callable[[], None],
    gpu: bool = False,
    npus: Sequence[str] = (),
) -> dict[str, Any]:
    """Write `path` from a checkpoint folder; return what the file holds, JSON-ready.

    Args:
        model: folder of a saved model; folded on the way if it isn't.
        scales: as the target needs them; None for a float file.
        waiting: called every now and then; may raise to give up.
        gpu, npus: as `Source` has them.

    Raises:
        EdgeresError: what the converter raised; ConversionFailed if it crashed or hangs.
    """
    job = {"model": str(model), "scales": to_json(scales), "target": target, "path": str(path),
           "metadata": dict(metadata), "gpu": gpu, "npus": list(npus)}  # fmt: skip
    return _in_a_child(job, f"writing {path.name}", "converter", _LIMIT_S, waiting)


def examine(path: Path) -> dict[str, Any]:
    """As `listed`, of a file that was run.

    The readers are C++ and not made for hostile files: after this, they have met this one.

    Raises:
        BadInput: as `listed`, or it can't be run, one image at a time.
    """
    found = listed(path)
    if found["not_run"]:
        raise BadInput(found["not_run"])
    return found


def listed(path: Path) -> dict[str, object]:
    """What a file of any origin holds, JSON-ready (`_examined.facts`).

    Raises:
        BadInput: no such file, no model, or one that its reader crashes or hangs on.
    """
    targets.of_file(path)
    job = {"read": str(path), "bytes": folder_size(path)}
    try:
        return _in_a_child(job, f"{path}: reading it", "reader", _READ_LIMIT_S, lambda: None)
    except ConversionFailed as error:
        raise BadInput(f"{error}; the file is damaged, or worse") from error


def _in_a_child(
    job: Mapping[str, object], doing: str, who: str, limit_s: float, waiting: Callable[[], None]
) -> dict[str, object]:
    with tempfile.TemporaryFile() as said, scratch.folder("convert") as folder:
        reply, own = folder / "reply.json", folder / "tmp"
        command = children.command("edgeres.targets._conversion", str(reply))
        own.mkdir()  # converters leave files in it: Core ML's a package each time
        try:
            child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=said,
                                     stderr=subprocess.STDOUT,
                                     env={**os.environ, "TMPDIR": str(own)})  # fmt: skip
        except OSError as error:  # no more processes or memory
            raise ConversionFailed(
                f"{doing} failed: the {who} can't be started ({error.strerror}); end other programs"
            ) from error
        try:
            in_time = _wait(child, json.dumps(job).encode(), waiting, limit_s)
        finally:
            child.kill()
            child.wait()
            assert child.stdin
            child.stdin.close()
        if reply.exists():
            return _answer(json.loads(read_bounded(reply, _REPLY_BYTES, "answer")))
        said.seek(max(0, said.seek(0, os.SEEK_END) - _LAST_BYTES))
        end = _end(child.returncode) if in_time else f"hung, and was stopped after {limit_s:g} s"
        raise ConversionFailed(
            f"{doing} failed: the {who} {end}; its last words: {_last_words(said.read())}"
        )


def _wait(
    child: subprocess.Popen[bytes], job: bytes, waiting: Callable[[], None], limit_s: float
) -> bool:
    """Whether the child ended in time."""
    assert child.stdin is not None
    try:
        child.stdin.write(job + b"\n")
        child.stdin.flush()
    except BrokenPipeError:
        child.wait()
        return True
    begin = time.monotonic()
    while child.poll() is None:
        waiting()
        if time.monotonic() - begin > limit_s:
            return False
        time.sleep(_POLL_S)
    return True


def _answer(reply: dict[str, Any]) -> dict[str, object]:
    if "error" not in reply:
        return reply
    kind = getattr(errors, reply["error"], ConversionFailed)
    raise kind(reply["message"])


def _end(code: int) -> str:
    return f"crashed ({signal.Signals(-code).name})" if code < 0 else f"stopped with code {code}"


def _last_words(said: bytes) -> str:
    lines = said.decode("utf-8", "replace").strip().splitlines()
    return lines[-1][-300:] if lines else "none"


def _child(reply: Path) -> None:
    job = json.loads(sys.stdin.buffer.readline())
    quiet.contained = True
    threading.Thread(target=_die_with_parent, daemon=True).start()
    try:
        found = _read(Path(job["read"]), job["bytes"]) if "read" in job else _export(job)
    except errors.EdgeresError as error:
        found = {"error": type(error).__name__, "message": str(error)}
    partial = reply.with_suffix(".partial")
    partial.write_text(json.dumps(found), "utf-8")
    partial.rename(reply)
    sys.stdout.flush()
    os._exit(0)  # converters' atexit handlers and threads have nothing left to do


def _die_with_parent() -> None:
    os.read(0, 1)
    os._exit(1)


def _export(job: dict[str, Any]) -> dict[str, object]:
    from edgeres.models import weights
    from edgeres.models.modules import fold_batchnorm

    module, precision = targets.load(job["target"])
    model = weights.load(Path(job["model"]))
    model = model if model.spec.folded else fold_batchnorm(model)
    table = job["scales"]
    scales = {k: p for k, v in table.items() if (p := quant_params(v))} if table else None
    path = Path(job["path"])
    first, last = module.export(
        targets.Source(model, scales, job["metadata"], job["gpu"], tuple(job["npus"])),
        precision, path,
    )  # fmt: skip
    return {"input": to_json(first), "output": to_json(last),
            "graph": described(module.read(path))}  # fmt: skip


def _read(path: Path, size_bytes: int) -> dict[str, object]:
    import resource

    from edgeres.targets import _examined

    def limit(size: int, hard: bool) -> None:
        most = _READ_MEMORY + _READ_MEMORY_PER_BYTE * size
        with contextlib.suppress(OSError, ValueError):  # macOS doesn't know this limit
            kept = resource.getrlimit(resource.RLIMIT_DATA)[1]
            resource.setrlimit(resource.RLIMIT_DATA, (most, most if hard else kept))

    limit(size_bytes, hard=False)
    limit(size_bytes + sum(p.stat().st_size for p in _examined.beside(path)), hard=True)
    return _examined.facts(path)


if __name__ == "__main__":
    _child(Path(sys.argv[1]))

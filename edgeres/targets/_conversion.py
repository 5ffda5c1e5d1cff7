"""Conversion in a process of its own: a converter's crash, print-outs and globals stay there.

`convert` starts `python -m edgeres.targets._conversion` with a job on its standard input, which
stays open: when this process dies, the child reads its end and dies too.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgeres import errors, targets
from edgeres.quiet import ConversionFailed
from edgeres.targets._graph import described
from edgeres.types import ScaleTable, quant_params, to_json

_LIMIT_S = 3600.0
_POLL_S = 0.05


def convert(
    model: Path,
    scales: ScaleTable | None,
    target: str,
    path: Path,
    metadata: Mapping[str, str],
    waiting: Callable[[], None],
) -> dict[str, Any]:
    """Write `path` from a checkpoint folder; return what the file holds, JSON-ready.

    Args:
        model: folder of a saved model; folded on the way if it isn't.
        scales: as the target needs them; None for a float file.
        waiting: called every now and then; may raise to give up.

    Raises:
        EdgeresError: what the converter raised; ConversionFailed if it crashed or hangs.
    """
    job = {"model": str(model), "scales": to_json(scales), "target": target, "path": str(path),
           "metadata": dict(metadata)}  # fmt: skip
    command = [sys.executable, "-m", "edgeres.targets._conversion"]
    with tempfile.TemporaryFile() as said, tempfile.TemporaryDirectory() as folder:
        reply = Path(folder) / "reply.json"
        child = subprocess.Popen([*command, str(reply)], stdin=subprocess.PIPE, stdout=said,
                                 stderr=subprocess.STDOUT)  # fmt: skip
        try:
            _wait(child, json.dumps(job).encode(), waiting, path)
        finally:
            child.kill()
            child.wait()
            assert child.stdin
            child.stdin.close()
        if reply.exists():
            return _answer(json.loads(reply.read_text("utf-8")))
        said.seek(0)
        raise ConversionFailed(
            f"writing {path.name} failed: the converter {_end(child.returncode)}; "
            f"its last words: {_last_words(said.read())}"
        )


def _wait(child: Any, job: bytes, waiting: Callable[[], None], path: Path) -> None:
    try:
        child.stdin.write(job + b"\n")
        child.stdin.flush()
    except BrokenPipeError:
        return
    begin = time.monotonic()
    while child.poll() is None:
        waiting()
        if time.monotonic() - begin > _LIMIT_S:
            raise ConversionFailed(f"writing {path.name} took over {_LIMIT_S / 60:.0f} minutes")
        time.sleep(_POLL_S)


def _answer(reply: dict[str, Any]) -> dict[str, Any]:
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
    threading.Thread(target=_die_with_parent, daemon=True).start()
    try:
        found = _export(job)
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


def _export(job: dict[str, Any]) -> dict[str, Any]:
    from edgeres.models import weights
    from edgeres.models.resnet import fold_batchnorm

    module, precision = targets.load(job["target"])
    model = weights.load(Path(job["model"]))
    model = model if model.spec.folded else fold_batchnorm(model)
    table = job["scales"]
    scales = {k: p for k, v in table.items() if (p := quant_params(v))} if table else None
    path = Path(job["path"])
    first, last = module.export(targets.Source(model, scales, job["metadata"]), precision, path)
    return {"input": to_json(first), "output": to_json(last),
            "graph": described(module.read(path))}  # fmt: skip


if __name__ == "__main__":
    _child(Path(sys.argv[1]))

"""NVIDIA's trtexec: its log, or the queries of --exportTimes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeres.measurement import _trtexec
from edgeres.measurement.importers import _report
from edgeres.measurement.importers._report import Imported
from edgeres.measurement.runners import Session

SOURCE = "trtexec"


def read(path: Path) -> dict[str, Any]:
    """The report of a log or of exported times.

    Raises:
        BadInput: it is neither, or can't be read.
    """
    return _report.read(path, SOURCE, parse)


def parse(data: bytes) -> Imported | None:
    """What a log or exported times tell; None if it is neither."""
    text = data.decode("utf-8", "replace")
    if text.lstrip().startswith("["):
        times = _trtexec.times(text) if '"latencyMs"' in text else []
        if times:
            return Imported(Session(_runtime(None, None), [latency for latency, _ in times]))
    summary = _trtexec.summary(text)
    if summary is None:
        return None
    seconds = _trtexec.load_seconds(text)
    built = _trtexec.build_seconds(text)
    session = Session(
        _runtime(_trtexec.version(text), _trtexec.gpu(text))
        | {"gpu_compute_median_ns": summary.compute_median_ns},
        n=summary.n, median_ns=summary.median_ns, p90_ns=summary.p90_ns,
        min_ns=summary.min_ns, max_ns=summary.max_ns,
        notes=[f"trtexec: {said}" for said in _trtexec.warnings(text)],
        unsteady=[] if _trtexec.outcome(text) == "PASSED" else ["trtexec doesn't say PASSED"],
        build={} if built is None else {"seconds": built, "cached": False},
    )  # fmt: skip
    return Imported(session, [] if seconds is None else [round(seconds * 1e9)])


def _runtime(version: str | None, gpu: str | None) -> dict[str, Any]:
    return {"name": "TensorRT", "version": version, "tool": "trtexec", "accelerator": gpu or "gpu"}

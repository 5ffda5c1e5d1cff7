"""NVIDIA's trtexec, 7 to 11: its log, or the queries of --exportTimes."""

from __future__ import annotations

from collections.abc import Sequence

from edgeres.measurement import _trtexec
from edgeres.measurement.importers._report import Imported
from edgeres.measurement.runners import Session

SOURCE = "trtexec"


def parse(data: bytes) -> Sequence[Imported]:
    """What a log, of one run or several, or exported times tell; nothing if it is neither."""
    text = data.decode("utf-8", "replace")
    if text.lstrip().startswith("["):
        times = _trtexec.times(text) if '"latencyMs"' in text else []
        if times:
            return [Imported(Session(_runtime(None, None), [latency for latency, _ in times]))]
    return [found for run in _trtexec.runs(text) if (found := _run(run)) is not None]


def _run(text: str) -> Imported | None:
    summary = _trtexec.summary(text)
    if summary is None:
        return None
    seconds = _trtexec.load_seconds(text)
    built = _trtexec.build_seconds(text)
    session = Session(
        _runtime(_trtexec.version(text), _trtexec.gpu(text))
        | {"gpu_compute_median_ns": summary.compute_median_ns},
        n=summary.n, median_ns=summary.median_ns, p90_ns=summary.p90_ns, p95_ns=summary.p95_ns,
        p99_ns=summary.p99_ns, min_ns=summary.min_ns, max_ns=summary.max_ns,
        load_ns=None if seconds is None else round(seconds * 1e9),
        notes=[f"trtexec: {said}" for said in _trtexec.warnings(text)],
        unsteady=[] if _trtexec.outcome(text) == "PASSED" else ["trtexec doesn't say PASSED"],
        build={} if built is None else {"seconds": built, "cached": False},
    )  # fmt: skip
    return Imported(session, batch=_trtexec.batch(text), subject=_trtexec.command(text))


def _runtime(version: str | None, gpu: str | None) -> dict[str, object]:
    return {"name": "TensorRT", "version": version, "tool": "trtexec", "accelerator": gpu or "gpu"}

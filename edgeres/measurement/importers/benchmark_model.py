"""TFLite's and LiteRT's benchmark_model, 2019 to now: what it printed, or its result file.

What it printed may have come through Android's logcat, and may tell of several runs.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgeres.measurement.importers._report import Imported
from edgeres.measurement.runners import Session
from edgeres.measurement.runners import _benchmark_model_output as output

SOURCE = "benchmark_model"
_PROTOBUF = (b"\x0a", b"\x12")  # how BenchmarkResult begins: with its name, or its latency


def parse(data: bytes) -> Sequence[Imported]:
    """What a result file or the printed text tells; nothing if it is neither."""
    if data.startswith(_PROTOBUF):
        one = _run("", data)
        return [one] if one else ()
    text = output.without_prefixes(data.decode("utf-8", "replace"))
    return [found for run in output.runs(text) if (found := _run(run, b"")) is not None]


def _run(text: str, proto: bytes) -> Imported | None:
    found = output.figures(text, proto)
    if not found.get("avg_ns"):
        return None
    median, notes = found.get("median_ns") or None, []
    if median is None:
        notes.append(f"its mean is {found['avg_ns'] / 1e6:.3f} ms; it tells no median")
    if grown := found.get("overall_bytes"):
        notes.append(f"its memory grew by {grown / 1e6:.1f} MB")
    session = Session(
        {"name": None, "version": None, "tool": SOURCE, "accelerator": None},
        n=found.get("n", 0), median_ns=median, p95_ns=found.get("p95_ns"),
        min_ns=found.get("min_ns"), max_ns=found.get("max_ns"),
        load_ns=found.get("load_ns"), first_ns=found.get("first_ns"), notes=notes,
    )  # fmt: skip
    return Imported(session, memory_bytes=found.get("peak_bytes"), batch=output.batch(text),
                    subject=output.settings(text))  # fmt: skip

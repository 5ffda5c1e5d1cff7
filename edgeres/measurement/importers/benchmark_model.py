"""TFLite's and LiteRT's benchmark_model: what it printed, or its result file (protobuf)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeres.measurement.importers import _report
from edgeres.measurement.importers._report import Imported
from edgeres.measurement.runners import Session
from edgeres.measurement.runners import _benchmark_model_output as output

SOURCE = "benchmark_model"
_PROTOBUF = (b"\x0a", b"\x12")  # how BenchmarkResult begins: with its name, or its latency


def read(path: Path) -> dict[str, Any]:
    """The report of a result file, or of what was printed.

    Raises:
        BadInput: it is neither, or can't be read.
    """
    return _report.read(path, SOURCE, parse)


def parse(data: bytes) -> Imported | None:
    """What a result file or the printed text tells; None if it is neither."""
    binary = data.startswith(_PROTOBUF)
    found = output.figures(
        "" if binary else data.decode("utf-8", "replace"), data if binary else b""
    )
    if not found.get("avg_ns"):
        return None
    median = found.get("median_ns") or None
    session = Session(
        {"name": None, "version": None, "tool": SOURCE, "accelerator": None},
        n=found.get("n", 0), median_ns=median,
        min_ns=found.get("min_ns"), max_ns=found.get("max_ns"),
        notes=[] if median else [f"its mean is {found['avg_ns'] / 1e6:.3f} ms; it tells no median"],
    )  # fmt: skip
    return Imported(
        session,
        loads_ns=[found["load_ns"]] if "load_ns" in found else [],
        firsts_ns=[found["first_ns"]] if "first_ns" in found else [],
        memory=_report.memory(found.get("overall_bytes"), "ru_maxrss, grown since its start"),
    )  # fmt: skip

"""Which plots a report has: the document in, each plot's name with its rows out.

The sections place what is named here and the page carries the figures of the same names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgeres.reporting import _plots

Report = Mapping[str, Any]
Row = Mapping[str, Any]
CURVES = {"validation_top1": ("top1", "validation top-1, %", 100.0),
          "loss": ("loss", "training loss", 1.0)}  # fmt: skip


def every(report: Report) -> dict[str, _plots.Figure]:
    """Name -> figure."""
    found: dict[str, _plots.Figure] = {}
    for name, _, rows in tradeoffs(report):
        found[name] = _plots.pareto(rows)
    for name, _, rows in distributions(report):
        if warm := [row for row in rows if row["warm_ns"]]:
            found[f"warm-{name}"] = _plots.warm(warm)
        if cold := [row for row in rows if row["first_ns"]]:
            found[f"cold-{name}"] = _plots.cold(cold)
    for key, (name, words, factor) in CURVES.items():
        if report["training"]:
            found[f"training-{name}"] = _plots.curves(report["training"], key, words, factor)
    return found


def tradeoffs(report: Report) -> Sequence[tuple[str, str, Sequence[Row]]]:
    """(name, device, the files that have both accuracy and latency there)."""
    devices = dict.fromkeys(row["device"] for row in report["files"] if row["device"])
    found = []
    for i, device in enumerate(devices):
        rows = [r for r in report["files"]
                if r["device"] == device and r["latency"] and r["accuracy"]]  # fmt: skip
        if rows:
            found.append((f"pareto-{i}", device, rows))
    return found


def distributions(report: Report) -> Sequence[tuple[str, str, Sequence[Row]]]:
    """(number, device, the latencies of its files)."""
    rows = report.get("distributions") or []
    devices = dict.fromkeys(row["device"] for row in rows)
    return [(str(i), device, [row for row in rows if row["device"] == device])
            for i, device in enumerate(devices)]  # fmt: skip

"""Which plots a report has: the document in, each plot's name with its rows out.

The sections place what is named here and the page carries the figures of the same names; the
drawings beside them, and in files of their own, are made of the same rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgeres.reporting import _plots
from edgeres.reporting._rungs import INTEGER

if TYPE_CHECKING:
    from typing import TypeGuard

    from edgeres.records import Layer
    from edgeres.reporting._document import FileRow, Point, Reliability, Report, Spread

Bar = tuple[str, int, str]
CURVES = {"validation_top1": ("top1", "validation top-1, %", 100.0),
          "loss": ("loss", "training loss", 1.0)}  # fmt: skip
_LAYERS = 24


def every(report: Report) -> dict[str, _plots.Figure]:
    """Name -> figure."""
    found: dict[str, _plots.Figure] = {}
    for name, _, rows in tradeoffs(report):
        found[name] = _plots.pareto(rows)
    for name, _, spread in distributions(report):
        if warm := [row for row in spread if row["warm_ns"]]:
            found[f"warm-{name}"] = _plots.warm(warm)
        if cold := [row for row in spread if row["first_ns"]]:
            found[f"cold-{name}"] = _plots.cold(cold)
    for key, (name, words, factor) in CURVES.items():
        if report["training"]:
            found[f"training-{name}"] = _plots.curves(report["training"], key, words, factor)
    return found


def tradeoffs(report: Report) -> Sequence[tuple[str, str, Sequence[Point]]]:
    """(name, device, the files that have both accuracy and latency there)."""
    devices = dict.fromkeys(row["device"] for row in report["files"] if row["device"])
    found = []
    for i, device in enumerate(devices):
        rows = [r for r in report["files"] if r["device"] == device and _has_both(r)]
        if rows:
            found.append((f"pareto-{i}", device, rows))
    return found


def _has_both(row: FileRow) -> TypeGuard[Point]:
    return bool(row["latency"] and row["accuracy"])


def distributions(report: Report) -> Sequence[tuple[str, str, Sequence[Spread]]]:
    """(number, device, the latencies of its files)."""
    rows = report.get("distributions") or []
    devices = dict.fromkeys(row["device"] for row in rows)
    return [(str(i), device, [row for row in rows if row["device"] == device])
            for i, device in enumerate(devices)]  # fmt: skip


def sizes(report: Report) -> list[Bar]:
    """(name, bytes, tone) of every file, after the first network's ("plain") if it is known."""
    files = {row["target"]: row for row in report["files"]}
    rows = [(target, row["size_bytes"], "int8" if row["precision"] in INTEGER else "float")
            for target, row in files.items() if row["size_bytes"]]  # fmt: skip
    first = report["ladder"][0] if report["ladder"] else None
    if rows and first and first["kind"] == "network" and first["size_bytes"]:
        rows.insert(0, (f"{first['label']} {first['detail']}", first["size_bytes"], "plain"))
    return rows


def layer_sizes(layers: Sequence[Layer]) -> tuple[list[Bar], int]:
    """The largest layers' (name, bytes, tone) in the order of execution, and how many have any."""
    held = [layer for layer in layers if layer["constant_bytes"]]
    largest = sorted(held, key=lambda layer: -layer["constant_bytes"])[:_LAYERS]
    return [(layer["name"], layer["constant_bytes"], "float" if layer["floating"] else "int8")
            for layer in held if layer in largest], len(held)  # fmt: skip


def chosen(report: Report, known: Sequence[str]) -> list[str]:
    """The steps of the first network, the last one, and the product, as far as they are known."""
    networks = [row["step"] for row in report["ladder"]
                if row["kind"] == "network" and row["step"] in known]  # fmt: skip
    product = report["summary"]["product"]
    last = [step for step in known if product and step == product["step"]]
    return list(dict.fromkeys([*networks[:1], *networks[-1:], *last]))


def reliability(report: Report) -> list[Reliability]:
    """How sure against how right: the chosen rungs' rows, and whether they compute in integers."""
    found = {row["step"]: row for row in report.get("reliability") or []}
    integer = {row["step"] for row in report["ladder"] if row["precision"] in INTEGER}
    return [{**found[step], "integer": step in integer} for step in chosen(report, list(found))]

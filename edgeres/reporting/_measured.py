"""What devices measured, for the report: their reports flow in, rows of files and devices out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING

from edgeres.reporting import _rungs
from edgeres.reporting._rungs import Rung

if TYPE_CHECKING:
    from edgeres.records import Measured
    from edgeres.reporting._document import Device, Entry, File, FileRow, Spread


def files(rungs: Sequence[Rung], by_step: Mapping[str, Entry]) -> list[FileRow]:
    """A row per file and device; files that weren't exported here (only measured) come last."""
    exported = {rung.label: rung for rung in rungs if rung.kind == "file"}
    reports = _rungs.device_reports(by_step)
    targets = dict.fromkeys([*exported, *(report["target"] for report in reports)])
    rows: list[FileRow] = []
    for target in targets:
        rung, row = exported.get(target), _rungs.verified(by_step, target)
        integer = _rungs.precision_of(target) in _rungs.INTEGER
        base: File = {
            "target": target, "precision": _rungs.precision_of(target),
            "file": rung.detail if rung else None,
            "size_bytes": rung.size_bytes if rung else None,
            "verified": row.get("passed") if row else None,
            "agreement": row.get("agreement") if row else None,
            "worst": row.get("worst_codes") if row else None,
            "worst_unit": "codes" if integer else "logits",
            "accuracy": _rungs.accuracy(rung.correct, rung.n) if rung else None,
            "accuracy_on": rung.accuracy_on if rung else None,
        }  # fmt: skip
        measured = [report for report in reports if report["target"] == target]
        rows += [_measurement(report, base) for report in measured] or [
            {**base, "device": None, "status": "not measured", "reasons": [], "latency": None,
             "peak_rss_bytes": None, "load_ns": None, "first_ns": None}
        ]  # fmt: skip
    return rows


def _measurement(report: Measured, base: File) -> FileRow:
    """One device report. The times of an emulated processor mean nothing and are left out."""
    emulated = bool(report.get("emulated"))
    memory, cold = report.get("memory") or {}, report.get("cold") or {}
    on_device = report.get("accuracy")
    return {
        **base,
        "device": report["device"], "threads": report.get("threads"),
        "preset": report.get("preset"), "runtime": report.get("runtime"),
        "status": "emulated" if emulated else "valid" if report.get("valid") else "invalid",
        "reasons": list(report.get("reasons") or ()), "measured_at": report.get("measured_at"),
        "latency": None if emulated else report.get("latency"),
        "load_ns": None if emulated else _middle(cold.get("load_ns")),
        "first_ns": None if emulated else _middle(cold.get("first_ns")),
        "peak_rss_bytes": None if emulated else memory.get("peak_rss_bytes"),
        "memory_definition": memory.get("definition"),
        "size_bytes": base["size_bytes"] or report.get("size_bytes"),
        "accuracy": _rungs.accuracy(on_device["correct"], on_device["n"])
        if on_device else base["accuracy"],
        "accuracy_on": report["device"] if on_device else base["accuracy_on"],
    }  # fmt: skip


def _middle(values: Sequence[float] | None) -> float | None:
    return median(values) if values else None


def devices(by_step: Mapping[str, Entry]) -> list[Device]:
    """Each device once, with its runtimes and its state at the first measurement."""
    devices: dict[str, Device] = {}
    for report in _rungs.device_reports(by_step):
        device = devices.setdefault(report["device"], {
            "device": report["device"], "emulated": bool(report.get("emulated")),
            "threads": report.get("threads"), "preset": report.get("preset"),
            "runtimes": [], "state": report.get("state_before") or {},
        })  # fmt: skip
        runtime = report.get("runtime") or {}
        name = f"{runtime.get('name', 'unknown')} {runtime.get('version', '')}".strip()
        if name not in device["runtimes"]:
            device["runtimes"].append(name)
    return list(devices.values())


def distributions(by_step: Mapping[str, Entry]) -> list[Spread]:
    """Latencies of each file and device: percentiles when warm, every start when cold."""
    benchmark = by_step.get("benchmark")
    samples = (benchmark.get("samples") if benchmark else None) or {}
    found: list[Spread] = []
    for report in _rungs.device_reports(by_step):
        warm = (samples.get(report["device"]) or {}).get(report["target"])
        cold = report.get("cold") or {}
        if report.get("emulated") or not (warm or cold.get("first_ns")):
            continue
        found.append({
            "device": report["device"], "target": report["target"],
            "precision": _rungs.precision_of(report["target"]),
            "status": "valid" if report.get("valid") else "invalid",
            "warm_ns": list(warm or ()), "load_ns": list(cold.get("load_ns") or ()),
            "first_ns": list(cold.get("first_ns") or ()),
        })  # fmt: skip
    return found

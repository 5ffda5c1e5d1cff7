"""Whether a measurement can be judged: a device report in, the reason against it out.

Limits (`budgets`) and comparisons (`compare`) ask here, so that both answer alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeres.records import Report


def against_times(report: Report, allow_invalid: bool) -> str:
    """Why a report's times and energy can't be judged; "" if they can.

    Args:
        allow_invalid: judge what is marked invalid all the same.
    """
    if report.get("emulated"):
        return "the processor is emulated"
    if report.get("valid") is False and not allow_invalid:
        reasons = report.get("reasons") or ["marked invalid"]
        return f"not valid ({reasons[0]})"
    return ""


def against_latency(report: Report, allow_invalid: bool) -> str:
    """Why a report's latency can't be judged; "" if it can."""
    if reason := against_times(report, allow_invalid):
        return reason
    if report.get("latency") is None:
        told = [note for note in report.get("notes") or () if "median" in note]
        return told[0] if told else "no latency was measured"
    return ""


def batch(report: Report) -> int:
    """Images in a query; 1 where nobody knows, as the report's notes say."""
    latency = report.get("latency")
    return int((latency.get("batch") if latency else None) or 1)


def device(report: Report) -> str:
    """The device's name; of an imported report, what its tool says that it ran on."""
    ran_on = (report.get("runtime") or {}).get("accelerator")
    return str(report.get("device") or ran_on or "unknown device")


def peak_rss(report: Report) -> float | None:
    """Peak resident memory in bytes; None of an emulated device, or if it wasn't measured."""
    peak = (report.get("memory") or {}).get("peak_rss_bytes")
    return None if peak is None or report.get("emulated") else float(peak)

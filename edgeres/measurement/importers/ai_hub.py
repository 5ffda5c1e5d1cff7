"""Qualcomm AI Hub: the profile that `ProfileJob.download_profile()` gives, saved as JSON.

Its times are in µs, its memory in bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from edgeres.measurement.importers import _report
from edgeres.measurement.importers._report import Imported
from edgeres.measurement.runners import Session

SOURCE = "Qualcomm AI Hub"
_US = 1e3


def parse(data: bytes) -> Sequence[Imported]:
    """What a profile tells; nothing if it is none."""
    content = _report.loads(data) if b"execution_summary" in data else None
    if not isinstance(content, dict) or not isinstance(content.get("execution_summary"), dict):
        return ()
    summary = content["execution_summary"]
    detail = content.get("execution_detail")
    units = Counter(
        str(layer.get("compute_unit"))[:40]
        for layer in (detail if isinstance(detail, list) else ())
        if isinstance(layer, dict)
    )
    samples = _report.all_scaled(summary.get("all_inference_times"), _US)
    loads = _report.all_scaled(summary.get("all_first_load_times"), _US)
    first = _report.scaled(summary.get("first_load_time"), _US)
    return [Imported(
        Session(
            {"name": SOURCE, "version": None, "tool": SOURCE,
             "accelerator": "+".join(sorted(units)).lower() or None},
            samples,
        ),
        loads_ns=loads or ([] if first is None else [first]),
        notes=[*(f"{n} of {units.total()} layers on {unit}" for unit, n in sorted(units.items())),
               *_told(summary, not samples)],
    )]  # fmt: skip


def _told(summary: Mapping[str, object], alone: bool) -> list[str]:
    """Figures that our reports have no field for."""
    wanted = {"compile_time": "it compiled the file in", "warm_load_time": "a warm load takes"}
    if alone:  # no samples, so that this isn't a median
        wanted["estimated_inference_time"] = "it estimates an inference at"
    found = {key: _report.scaled(summary.get(key), _US) for key in wanted}
    said = [f"{wanted[key]} {ns / 1e6:.3f} ms" for key, ns in found.items() if ns is not None]
    peak = _report.scaled(summary.get("estimated_inference_peak_memory"), 1)
    # An estimate of the network's own memory, not the resident memory of a process.
    return said + ([] if peak is None else [f"it estimates a peak of {peak / 1e6:.1f} MB"])

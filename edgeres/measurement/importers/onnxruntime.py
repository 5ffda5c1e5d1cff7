"""onnxruntime's profile (`SessionOptions.enable_profiling`): a Chrome trace, its times in µs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from edgeres.measurement.importers import _report
from edgeres.measurement.importers._report import Imported
from edgeres.measurement.runners import Session

SOURCE = "onnxruntime profile"
_US = 1e3
_LOADING = ("model_loading_uri", "model_loading_array", "model_loading_from_saved_model",
            "session_initialization")  # fmt: skip


def parse(data: bytes) -> Sequence[Imported]:
    """What a profile tells; nothing if it is none."""
    if b"model_run" not in data:
        return ()
    content = _report.loads(data)
    if content is None:  # a process that was killed leaves the list open
        content = _report.loads(data.rstrip().rstrip(b",") + b"]")
    events = [e for e in content if isinstance(e, dict)] if isinstance(content, list) else []
    times: dict[str, list[int]] = {}
    for event in events:
        duration = _report.scaled(event.get("dur"), _US)
        if event.get("cat") == "Session" and duration is not None:
            times.setdefault(str(event.get("name")), []).append(duration)
    queries = times.get("model_run")
    if not queries:
        return ()
    loading = [sum(times[name]) for name in _LOADING if name in times]
    nodes = Counter(filter(None, map(_provider, events)))
    return [Imported(
        Session(
            {"name": "onnxruntime", "version": None, "tool": SOURCE,
             "provider": "+".join(sorted(nodes)) or None},
            queries[1:],
            unsteady=["imported: profiling was on, which slows every operator down"],
        ),
        loads_ns=[sum(loading)] if loading else [],
        firsts_ns=queries[:1],
        notes=[f"{n} of {nodes.total()} node runs on {name}" for name, n in sorted(nodes.items())],
    )]  # fmt: skip


def _provider(event: Mapping[str, object]) -> str | None:
    arguments = event.get("args")
    found = arguments.get("provider") if isinstance(arguments, dict) else None
    return found[:60] if isinstance(found, str) else None

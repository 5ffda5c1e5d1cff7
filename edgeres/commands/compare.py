"""The command compare: two runs, results or model files in, rows and a verdict out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgeres.commands import files
from edgeres.errors import BadInput
from edgeres.measurement import compare
from edgeres.runs import find_run
from edgeres.targets import of_file

_MAX_BYTES = 256 * 1024 * 1024


def compared(
    a: str, b: str, tolerance: compare.Tolerance, devices: Sequence[str], preset: str,
    runs: Path, quiet: bool,
) -> dict[str, Any]:  # fmt: skip
    """Rows, and the worst verdict among them.

    Two model files are measured now, in turn; runs and result files say what was measured.

    Raises:
        BadInput: one of them isn't a run, a result or a model file, or they have nothing in common.
    """
    first: Sequence[Mapping[str, Any]]
    second: Sequence[Mapping[str, Any]]
    if _is_model(a) and _is_model(b):
        first, second = files.measured_in_turn(Path(a), Path(b), devices, preset, runs, quiet)
    else:
        first, second = (_reports(what, runs) for what in (a, b))
    rows = compare.compare(first, second, tolerance)
    verdicts = {row.verdict for row in rows}
    worst = next(v for v in ("worse", "better", "same") if v in verdicts)
    return {"a": a, "b": b, "verdict": worst, "tolerance": asdict(tolerance),
            "rows": [asdict(row) for row in rows]}  # fmt: skip


def _is_model(what: str) -> bool:
    path = Path(what)
    if not path.exists() or (path / "recipe.lock.yaml").exists():
        return False
    try:
        of_file(path)
    except BadInput:
        return False
    return True


def _reports(what: str, runs: Path) -> list[Mapping[str, Any]]:
    path = Path(what)
    if path.suffix == ".json" and path.is_file():
        return _of_json(path)
    if _is_model(what):
        raise BadInput(f"{what}: a model file is compared with another one; or measure it: "
                       f"edgeres benchmark {what} --json > result.json")  # fmt: skip
    run = find_run(what, runs)
    if "benchmark" not in run.artifacts:
        raise BadInput(f"{run.path}: nothing was measured in it; "
                       f"edgeres benchmark {run.path} --json > result.json")  # fmt: skip
    found: list[Mapping[str, Any]] = run.artifacts["benchmark"].facts["reports"]
    return found


def _of_json(path: Path) -> list[Mapping[str, Any]]:
    """What `edgeres benchmark --json` printed."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise BadInput(f"{path}: larger than {_MAX_BYTES >> 20} MiB; not a result of edgeres")
        document = json.loads(path.read_text("utf-8"))
        reports = document["reports"]
        for report in reports:
            assert isinstance(report["device"], str) and isinstance(report["target"], str)
            assert all(ns > 0 for ns in report["latency"]["session_medians_ns"])
            assert report["latency"]["median_ns"] > 0 and report["latency"]["sessions"] > 0
    except OSError as error:
        raise BadInput(f"{path}: can't be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AssertionError, RecursionError) as error:
        raise BadInput(f"{path}: not a result of `edgeres benchmark --json` "
                       f"({type(error).__name__})") from error  # fmt: skip
    return list(reports)

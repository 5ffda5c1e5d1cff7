"""The command compare: two runs, results or model files in, rows and a verdict out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgeres.commands import files
from edgeres.commands.results import is_model, reports
from edgeres.errors import BadInput
from edgeres.measurement import compare


def compared(
    a: str, b: str, tolerance: compare.Tolerance, devices: Sequence[str], preset: str,
    runs: Path, quiet: bool, allow_invalid: bool = False, against: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Rows, the worst verdict among them, and what isn't compared.

    Two model files are measured now, in turn; runs and result files say what was measured.

    Args:
        allow_invalid: judge the times of measurements that are marked invalid, too.
        against: the run whose test images two model files answer.

    Raises:
        BadInput: one of them isn't a run, a result or a model file, or they have nothing in common.
    """
    first: Sequence[Mapping[str, Any]]
    second: Sequence[Mapping[str, Any]]
    if is_model(a) and is_model(b):
        first, second = files.measured_in_turn(
            Path(a), Path(b), devices, preset, runs, quiet, against
        )
    elif against is not None:
        raise BadInput("--against says whose test images two model files answer; these aren't two")
    else:
        first, second = (reports(what, runs) for what in (a, b))
    rows = compare.compare(first, second, tolerance, allow_invalid)
    verdicts = {row.verdict for row in rows}
    worst = next(v for v in ("worse", "not measurable", "better", "same") if v in verdicts)
    return {"a": a, "b": b, "verdict": worst, "tolerance": asdict(tolerance),
            "rows": [asdict(row) for row in rows],
            "notes": compare.left_out(first, second)}  # fmt: skip

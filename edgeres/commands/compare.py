"""The command compare: runs, results or model files in, rows and a verdict out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from edgeres.commands import files
from edgeres.commands.results import is_model, reports
from edgeres.disk import storage_errors, write_whole
from edgeres.errors import BadInput
from edgeres.measurement import compare, standing
from edgeres.types import to_json

if TYPE_CHECKING:
    from edgeres.records import Report
    from edgeres.text.files import Pair, Pairs, Subject


def compared(
    names: Sequence[str], tolerance: compare.Tolerance, devices: Sequence[str], preset: str,
    runs: Path, quiet: bool, allow_invalid: bool = False, against: str | None = None,
) -> Pair | Pairs:  # fmt: skip
    """The first held against each of the others.

    Model files are measured now, all of them in turn; runs and result files say what was measured.

    Args:
        allow_invalid: judge the times of measurements that are marked invalid, too.
        against: the run whose test images model files answer.

    Returns:
        Of two: rows, the worst verdict among them, and what isn't compared. Of more: `pairs` of
        these, and the worst verdict.

    Raises:
        BadInput: one of them isn't a run, a result or a model file, or they have nothing in common.
    """
    found: Sequence[Sequence[Report]]
    if all(map(is_model, names)):
        found = files.measured_in_turn([*map(Path, names)], devices, preset, runs, quiet, against)
    elif against is not None:
        raise BadInput("--against says whose test images model files answer; these aren't all such")
    else:
        found = [reports(name, runs) for name in names]
    (a, first), *others = zip(names, found, strict=True)
    pairs = [_judged(a, b, first, second, tolerance, allow_invalid) for b, second in others]
    if len(pairs) == 1:
        return pairs[0]
    return {"verdict": _worst(pair["verdict"] for pair in pairs), "pairs": pairs}


def _judged(
    a: str, b: str, first: Sequence[Report], second: Sequence[Report], tolerance: compare.Tolerance,
    allow_invalid: bool,
) -> Pair:  # fmt: skip
    rows = compare.compare(first, second, tolerance, allow_invalid)
    return {"a": a, "b": b, "verdict": _worst(row.verdict for row in rows),
            "tolerance": asdict(tolerance), "rows": [to_json(row) for row in rows],
            "notes": compare.left_out(first, second),
            "subjects": {"a": [*map(_subject, first)], "b": [*map(_subject, second)]}}  # fmt: skip


def require_page(page: Path, subjects: Sequence[str | None]) -> None:
    """Before anything is measured: a page can be written there.

    Raises:
        BadInput: its folder isn't there, it is one, or one of what is compared.
    """
    if page.is_dir() or not page.parent.is_dir():
        raise BadInput(f"--html {page}: no file in a folder that exists; name one, e.g. page.html")
    if page.exists() and any(s and Path(s).exists() and page.samefile(s) for s in subjects):
        raise BadInput(f"--html {page}: that is what is compared; name another file")


def drawn(result: Pair | Pairs, page: Path) -> None:
    """Write a result of `compared` as an HTML page.

    Raises:
        StorageError: it can't be written there.
    """
    from edgeres.reporting import comparison
    from edgeres.text.files import pairs

    with storage_errors(page):
        write_whole(page, comparison.render(pairs(result)))


def _worst(verdicts: Iterable[str]) -> str:
    found = set(verdicts)
    return next(v for v in ("worse", "not measurable", "better", "same") if v in found)


def _subject(report: Report) -> Subject:
    """What was measured of one file on one device, as far as it may be told."""
    emulated, accuracy = bool(report.get("emulated")), report.get("accuracy")
    latency = None if emulated else report.get("latency")
    valid = "invalid" if report.get("valid") is False else "valid"
    return {
        "target": report["target"], "device": standing.device(report),
        "status": "emulated" if emulated else valid,
        "latency": {"median_ns": latency["median_ns"], "median_ci_ns": latency.get("median_ci_ns")}
        if latency else None,
        "accuracy": {"correct": accuracy["correct"], "n": accuracy["n"]} if accuracy else None,
        "peak_rss_bytes": standing.peak_rss(report), "size_bytes": report.get("size_bytes"),
    }  # fmt: skip

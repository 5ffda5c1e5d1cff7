"""The headline: what got smaller and faster, at what cost in accuracy, and how sure that is.

The rows of a report flow in; a summary of numbers, and sentences about them, flow out. A difference
is only called one when its test says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgeres.reporting import _rungs, _units
from edgeres.reporting._rungs import INTEGER, NETWORKS, Rung

if TYPE_CHECKING:
    from edgeres.records import SureLatency
    from edgeres.reporting._document import (
        Change,
        Evidence,
        FileRow,
        Named,
        Passed,
        Ratio,
        Speed,
        Summary,
        Verification,
    )

SIGNIFICANT = 0.05


def summary(report: Evidence, rungs: Sequence[Rung], labels: Sequence[int] | None) -> Summary:
    """The numbers of the headline. `product` is the file it is about, `first` where it started.

    Keys: first, product, size, macs, latency, doubt, accuracy, verification; each None where the
    run doesn't tell.
    """
    networks = [rung for rung in rungs if rung.step in NETWORKS]
    first = networks[0] if networks else None
    product = _product(rungs, report["files"])
    accuracy = _rungs.accuracy(product.correct, product.n) if product else None
    paired = product is not None and first is not None and product is not first
    return {
        "first": _named(first),
        "product": _named(product),
        "size": _ratio(first, product, "size_bytes"),
        "macs": _ratio(first, product, "macs"),
        "latency": _latency(product, report["files"]), "doubt": _doubt(product, report["files"]),
        "accuracy": {
            **accuracy,
            "change": _rungs.change(first, product, labels)
            if paired and first and product else None,
            "predicted_on": product.accuracy_on if product else None,
        } if accuracy else None,
        "verification": _verification(report["verification"]),
        "leak": (report["data"].get("calibration") or {}).get("overlap_with_test") or 0,
    }  # fmt: skip


def sentences(numbers: Summary) -> list[str]:
    """The headline, the most telling sentence first."""
    product = numbers["product"]
    if product is None:
        return ["This run has no network and no file yet."]
    parts = [_smaller(numbers, product), _faster(numbers["latency"]), numbers["doubt"],
             _accurate(numbers), _proven(numbers["verification"], product)]  # fmt: skip
    if numbers["leak"]:
        parts.append(f"Careful: {numbers['leak']} calibration images are also test images, so the "
                     f"accuracy here is not to be trusted.")  # fmt: skip
    return [part for part in parts if part]


def is_noise(change: Change) -> bool:
    """Whether a paired comparison shows no difference (exact McNemar at 5 %)."""
    return change["p"] is not None and change["p"] >= SIGNIFICANT


def _product(rungs: Sequence[Rung], files: Sequence[FileRow]) -> Rung | None:
    """The first int8 file that was verified and timed; else the best there is, in this order."""
    verdicts = {row["target"]: row["verified"] for row in files}
    timed = {row["target"] for row in files if row["status"] == "valid"}
    tried = {row["target"] for row in files if row["device"]}
    exported = [rung for rung in rungs if rung.kind == "file"]
    integer = [rung for rung in exported if rung.precision in INTEGER]
    ran = [rung for rung in integer if rung.n]
    orders = (
        [rung for rung in ran if verdicts[rung.label] and rung.label in timed],
        [rung for rung in ran if verdicts[rung.label] and rung.label in tried],
        [rung for rung in ran if verdicts[rung.label]],
        [rung for rung in integer if verdicts[rung.label]],
        [rung for rung in exported if verdicts[rung.label]],
        ran, integer, exported, list(rungs)[::-1],
    )  # fmt: skip
    return next((found[0] for found in orders if found), None)


def _named(rung: Rung | None) -> Named | None:
    if rung is None:
        return None
    return {"step": rung.step, "kind": rung.kind, "label": rung.label, "detail": rung.detail}


def _ratio(first: Rung | None, product: Rung | None, name: str) -> Ratio | None:
    if first is None or product is None or first is product:
        return None
    before, after = getattr(first, name), getattr(product, name)
    return {"before": before, "after": after, "ratio": before / after} if before and after else None


def _latency(product: Rung | None, files: Sequence[FileRow]) -> Speed | None:
    """The product's latency, and how it compares with the same format's float file there.

    The range of the ratio is from the ends of what each file's median may be: its 95 % interval,
    and the medians of all its sessions (a process can be slow as a whole).
    """
    valid = [(row, found) for row in files
             if row["status"] == "valid" and (found := row["latency"])]  # fmt: skip
    mine = [(row, found) for row, found in valid if product and row["target"] == product.label]
    for row, latency in mine:
        family = row["target"].rsplit("-", 1)[0]
        other, known = next((
            (r, times) for r, times in valid if r["device"] == row["device"]
            and r["threads"] == row["threads"] and r["precision"] in ("fp32", "fp16")
            and r["target"].rsplit("-", 1)[0] == family
        ), (row, latency))  # fmt: skip
        if other is row:
            continue
        (low, high), (other_low, other_high) = _bounds(latency), _bounds(known)
        after, before = latency["median_ns"], known["median_ns"]
        return {
            **_one_latency(row, latency, other["target"]),
            "before_ns": before, "ratio": before / after,
            "ratio_low": other_low / high, "ratio_high": other_high / low,
        }  # fmt: skip
    return _one_latency(*mine[0], None) if mine else None


def _doubt(product: Rung | None, files: Sequence[FileRow]) -> str:
    """That the product's latency was measured, but isn't valid; "" otherwise."""
    rows = [row for row in files if product and row["target"] == product.label]
    doubted = [row for row in rows if row["status"] == "invalid"]
    if not doubted or any(row["status"] == "valid" for row in rows):
        return ""
    reason = (doubted[0]["reasons"] or ["no reason is given"])[0]
    return f"The latency measured on {doubted[0]['device']} is not valid: {reason}."


def _one_latency(row: FileRow, latency: SureLatency, against: str | None) -> Speed:
    return {"target": row["target"], "device": row["device"], "median_ns": latency["median_ns"],
            "median_ci_ns": latency["median_ci_ns"], "p90_ns": latency.get("p90_ns"),
            "against": against}  # fmt: skip


def _bounds(latency: SureLatency) -> tuple[float, float]:
    values = [*latency["median_ci_ns"], *(latency.get("session_medians_ns") or ())]
    return min(values), max(values)


def _verification(verification: Verification | None) -> Passed | None:
    if verification is None:
        return None
    rows = verification["files"]
    failed = [row["target"] for row in rows if not row["passed"]]
    unrun = [row["target"] for row in rows if row["test"] is None]
    return {"passed": len(rows) - len(failed), "files": len(rows), "failed": failed,
            "unrun": unrun}  # fmt: skip


def _smaller(numbers: Summary, product: Named) -> str:
    first, size = numbers["first"], numbers["size"]
    if first is None or first == product:
        return f"{product['detail'] or product['label']} is the only model of this run."
    name = product["label"] if product["kind"] == "file" else product["detail"]
    if size is None:
        return f"{first['detail']} became {name}."
    by = f"{_units.ratio(size['ratio'])} smaller" if size["ratio"] > 1 else "not smaller"
    return (f"{first['detail']} ({_units.size(size['before'])} of float32 parameters) became "
            f"{name} ({_units.size(size['after'])}): {by}.")  # fmt: skip


def _faster(latency: Speed | None) -> str:
    if latency is None:
        return ""
    answer = f"One answer takes {_units.time(latency['median_ns'])} (median) on {latency['device']}"
    if latency["against"] is None:
        return f"{answer}."
    low, high = latency["ratio_low"], latency["ratio_high"]
    span, other = f"{low:.2f}–{high:.2f}×", latency["against"]
    if low > 1:
        return f"{answer}, {_units.ratio(latency['ratio'])} faster than {other} ({span})."
    if high < 1:
        return f"{answer}, slower than {other} ({span} of its speed)."
    return f"{answer}; a difference in speed to {other} could not be measured ({span})."


def _accurate(numbers: Summary) -> str:
    found, first = numbers["accuracy"], numbers["first"]
    if found is None:
        return "Its accuracy was not measured."
    n = f"{found['n']:,}"
    text = (f"It classifies {_units.percent(found['top1'])} of {n} test images correctly (95 % "
            f"interval {_units.percent_range(found['low'], found['high'])})")  # fmt: skip
    change = found["change"]
    if change is None or first is None:
        return f"{text}."
    amount = f"{_units.points(change['points'])} points against {first['detail']}"
    low, high = change["low"], change["high"]
    if change["p"] is None or low is None or high is None:
        return f"{text}, {amount} (not compared image by image)."
    span = f"95 % interval {_units.points_range(low, high)}"
    test = f"exact McNemar {_units.p_value(change['p'])}"
    if is_noise(change):
        noise = f"within the noise of n={change['n']:,} test images"
        return f"{text}; {amount}, {noise} ({span}, {test})."
    verdict = "a measurable loss" if change["points"] < 0 else "a measurable gain"
    return f"{text}; {amount}, {verdict} ({span}, {test})."


def _proven(verification: Passed | None, product: Named) -> str:
    if verification is None:
        return "The files were not verified." if product["kind"] == "file" else ""
    passed, files = verification["passed"], verification["files"]
    if not files:
        return ""
    if verification["failed"]:
        names = ", ".join(verification["failed"])
        return f"{passed} of {files} files passed verification; do not ship {names}."
    text = f"All {files} files" if files > 1 else "The file"
    text = f"{text} passed verification"
    if verification["unrun"]:
        text += f" ({', '.join(verification['unrun'])}: structure and scales only, not run)"
    return f"{text}."

"""The key numbers at the top of the page: the document's summary in, a row of tiles out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeres.reporting import _units
from edgeres.reporting._headline import is_noise
from edgeres.reporting._markup import Markup, tag

if TYPE_CHECKING:
    from edgeres.reporting._document import Passed, Speed, Summary


def tiles(numbers: Summary) -> Markup | None:
    """The key numbers; those the run doesn't have are left out."""
    if numbers["product"] is None:
        return None
    found = [_size(numbers), _compute(numbers), _latency(numbers["latency"]),
             _accuracy(numbers), _verified(numbers["verification"])]  # fmt: skip
    shown = [tile for tile in found if tile]
    return tag("div", *shown, class_="tiles") if shown else None


def _size(numbers: Summary) -> Markup | None:
    found = numbers["size"]
    if found is None:
        return None
    return _tile("Size", f"{_units.ratio(found['ratio'])} smaller"
                 if found["ratio"] > 1 else "not smaller",
                 f"{_units.size(found['before'])} → {_units.size(found['after'])}")  # fmt: skip


def _compute(numbers: Summary) -> Markup | None:
    found = numbers["macs"]
    if found is None:
        return None
    value = f"{_units.ratio(found['ratio'])} fewer MACs" if found["ratio"] > 1 else "no fewer MACs"
    return _tile("Computation", value, f"{_units.quantity(found['before'])} → "
                 f"{_units.quantity(found['after'])} multiply-adds")  # fmt: skip


def _latency(found: Speed | None) -> Markup | None:
    if found is None:
        return None
    unit = _units.time_unit([found["median_ns"]])
    span = _units.time_range(found["median_ci_ns"], unit)
    detail = f"median on {found['device']}, 95 % interval {span}"
    if found["against"] is not None:
        sure = found["ratio_low"] > 1 or found["ratio_high"] < 1
        speed = f"{_units.ratio(found['ratio'])} the speed of" if sure else "not told apart from"
        detail = f"{detail}; {speed} {found['against']}"
    return _tile("Latency", _units.time(found["median_ns"], unit), detail)


def _accuracy(numbers: Summary) -> Markup | None:
    found = numbers["accuracy"]
    if found is None:
        return None
    detail = f"95 % interval {_units.percent_range(found['low'], found['high'])}, n={found['n']:,}"
    change, kind = found["change"], ""
    if change:
        detail += f"; {_units.points(change['points'])} points"
        if change["p"] is not None:
            kind = "" if is_noise(change) else "bad" if change["points"] < 0 else "good"
            detail += ", within noise" if not kind else f", {_units.p_value(change['p'])}"
    return _tile("Top-1 accuracy", _units.percent(found["top1"]), detail, kind)


def _verified(found: Passed | None) -> Markup | None:
    if found is None or not found["files"]:
        return None
    detail = "files proven to be the trained network"
    if found["unrun"]:
        detail = f"files; {len(found['unrun'])} of them not run, by structure and scales only"
    if found["failed"]:
        detail = f"failed: {', '.join(found['failed'])}"
    return _tile("Verified", f"{found['passed']} of {found['files']}", detail,
                 "bad" if found["failed"] else "good")  # fmt: skip


def _tile(name: str, value: str, detail: str, kind: str = "") -> Markup:
    return tag("div", tag("h3", name), tag("p", value, class_="value"),
               tag("p", detail, class_="detail"), class_=f"tile {kind}".strip())  # fmt: skip

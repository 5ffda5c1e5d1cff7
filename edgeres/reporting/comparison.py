"""What `edgeres compare` found as one HTML page: its pairs in, a page as text out.

The page is built of the report's parts, without its scripts: drawings in SVG and tables.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Literal

from edgeres.reporting import _charts, _rungs, _tables, _units
from edgeres.reporting._markup import Markup, tag
from edgeres.reporting._parts import figure, note, section
from edgeres.reporting._sections import legend
from edgeres.reporting.html import document
from edgeres.text.files import unjudged

if TYPE_CHECKING:
    from typing import TypeGuard

    from edgeres.reporting._document import Compared, Point, Ratioed, Times
    from edgeres.text.files import ComparedRow, Pair, Timed

_BADGES = {"better": "good", "worse": "bad", "not measurable": "warn", "same": "plain"}
_TOLERANCES = {"load": "cold", "first inference": "cold", "peak RSS": "memory", "size": "size",
               "energy": "energy"}  # fmt: skip
_SIDES: tuple[Literal["a"], Literal["b"]] = ("a", "b")
_LABEL = 33  # characters of a chart's label
_SAYS = {"better": "{b} is better than {a}.", "worse": "{b} is worse than {a}.",
         "same": "{b} and {a} are the same.",
         "not measurable": "Not all of {b} can be judged against {a}."}  # fmt: skip
_METHOD = (
    "Shares have Wilson 95 % intervals. Changes of top-1 are paired, image by image, where both "
    "answered the same images: exact two-sided McNemar test, adjusted Wald interval. Ratios of "
    "times have 99 % bootstrap intervals over sessions; sizes and memory are exact. A difference "
    "counts only beyond chance and beyond what is tolerated."
)


def render(pairs: Sequence[Pair]) -> str:
    """The whole page.

    Args:
        pairs: of `commands.compare.compared`, all with the same `a`.
    """
    given = [pairs[0]["a"], *(pair["b"] for pair in pairs)]
    a, *others = names = _short(given)
    title = f"{' and '.join(others)} against {a}"
    lines = [_SAYS[pair["verdict"]].format(a=a, b=b) for pair, b in zip(pairs, others, strict=True)]
    roles = [("A", given[0]), *(("B", name) for name in given[1:]), ("Written", _now())]
    header = tag(
        "header", tag("p", "edgeres compare", class_="kicker"), tag("h1", title),
        tag("dl", *(tag("div", tag("dt", k), tag("dd", v)) for k, v in roles), class_="about"),
        *(tag("p", line, class_="headline") for line in lines),
    )  # fmt: skip
    rows = list(_subjects(pairs, names))
    judged = [_pair(i, pair, a, b) for i, (pair, b) in enumerate(zip(pairs, others, strict=True))]
    main = tag("main", _accuracy(rows), *_tradeoffs(rows, names), *judged, id="main")
    body = tag("body", tag("a", "Skip to the results", href="#main", class_="skip"), header, main,
               tag("footer", tag("p", _METHOD)))  # fmt: skip
    return document(f"{title} – edgeres compare", body)


def _now() -> str:
    return f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d %H:%M} UTC"


def _short(names: Sequence[str]) -> list[str]:
    """The last parts of paths, as many as tell them apart."""
    parts = [PurePath(name).parts or (name,) for name in names]
    for count in range(1, max(map(len, parts))):
        found = ["/".join(own[-count:]) for own in parts]
        if len(set(found)) == len(set(names)):
            return found
    return list(names)


def _label(name: str, target: str) -> str:
    """Both, and of a long name its end, where a run has its hash."""
    room = max(4, _LABEL - len(target) - 1 if target else _LABEL)
    return f"{name if len(name) <= room else f'…{name[1 - room :]}'} {target}".strip()


def _subjects(pairs: Sequence[Pair], names: Sequence[str]) -> Iterator[Compared]:
    """Each file on each device, as the report's charts take it."""
    sides = [pairs[0]["subjects"]["a"], *(pair["subjects"]["b"] for pair in pairs)]
    for number, (name, files) in enumerate(zip(names, sides, strict=True), 1):
        single = len({row["target"] for row in files}) == 1
        for row in files:
            found, latency = row["accuracy"], row["latency"]
            target = "" if single else row["target"]
            yield {
                "label": _label(name, target), "target": f"{number} {row['target']}",
                "kind": "file", "detail": "", "device": row["device"], "status": row["status"],
                "precision": _rungs.precision_of(row["target"]),
                "accuracy": _rungs.accuracy(found["correct"], found["n"]) if found else None,
                "latency": _with_interval(latency) if latency else None,
            }  # fmt: skip


def _with_interval(found: Timed) -> Times:
    """The median itself, of a single session."""
    median = found["median_ns"]
    return {"median_ns": median, "median_ci_ns": found["median_ci_ns"] or (median, median)}


def _accuracy(rows: Sequence[Compared]) -> Markup | None:
    """Top-1 of every file: once, where it answers alike on every device."""
    shown: dict[tuple[str, int, int], Compared] = {}
    for row in rows:
        if found := row["accuracy"]:
            counted = (row["label"], found["correct"], found["n"])
            shown.setdefault(counted, {**row, "status": "valid"})
    if not shown:
        return None
    drawn = list(shown.values())
    return section("accuracy", "Accuracy", figure(
        legend(drawn), _charts.ladder(drawn), caption=
        "Top-1 on the test images. Dot or diamond: what was counted; line: its 95 % Wilson "
        "interval; dashed: the first. The axis doesn't start at zero.",
    ))  # fmt: skip


def _tradeoffs(rows: Sequence[Compared], names: Sequence[str]) -> Iterator[Markup]:
    numbered = ", ".join(f"{number} {name}" for number, name in enumerate(names, 1))
    figures = []
    for i, device in enumerate(dict.fromkeys(row["device"] for row in rows)):
        drawn = [r for r in rows if r["device"] == device and _has_both(r)]
        if drawn:
            figures.append(figure(
                legend(drawn), _charts.scatter(f"tradeoff-{i}", device, drawn), caption=
                f"{numbered}. Measured on {device}. Lines: 95 % intervals of accuracy and of "
                "the median. Up and left is better. A hollow mark is an invalid measurement.",
            ))  # fmt: skip
    if figures:
        yield section("tradeoff", "Accuracy against latency",
                      tag("div", *figures, class_="figures"))  # fmt: skip


def _has_both(row: Compared) -> TypeGuard[Point]:
    return bool(row["latency"] and row["accuracy"])


def _pair(number: int, pair: Pair, a: str, b: str) -> Markup:
    columns = [("File", ""), ("Device", ""), ("Measure", ""), ("A", "n"), ("B", "n"),
               ("Change", "n"), ("Verdict", ""), ("What it rests on", "")]  # fmt: skip
    caption = f"A is {a}, B is {b}"
    said = [note(words) for words in (*unjudged(pair), *pair["notes"])]
    return section(f"pair-{number}", f"{b} against {a}", _ratios(number, pair),
                   _tables.table(caption, columns, map(_row, pair["rows"])), *said)  # fmt: skip


def _ratios(number: int, pair: Pair) -> Markup | None:
    """The measures of which less is better, as multiples of A's."""
    several = len({(row["device"], row["b_target"]) for row in pair["rows"]}) > 1
    rows: list[Ratioed] = [
        {"label": f"{row['measure']} {row['b_target']}" if several else row["measure"],
         "change": change, "interval": row["interval"], "tone": row["verdict"],
         "tolerance": pair["tolerance"][_TOLERANCES.get(row["measure"], "latency")]}
        for row in pair["rows"] if row["unit"] != "share" and (change := row["change"]) is not None
    ]  # fmt: skip
    if not rows:
        return None
    return figure(_charts.ratios(f"ratios-{number}", "B as a multiple of A", rows), caption=
                  "B as a multiple of A; left is better. Line: 99 % interval; grey: tolerated; "
                  "green: better, red: worse, beyond both.")  # fmt: skip


def _row(row: ComparedRow) -> Markup:
    same = row["a_target"] == row["b_target"]
    file = row["b_target"] if same else f"{row['a_target']} / {row['b_target']}"
    return tag(
        "tr", tag("th", file, scope="row"), tag("td", row["device"]), tag("td", row["measure"]),
        *(tag("td", _quantity(row[side], row["unit"]), class_="n") for side in _SIDES),
        tag("td", *_change(row), class_="n"),
        tag("td", _tables.badge(row["verdict"], _BADGES[row["verdict"]])),
        tag("td", row["evidence"], class_="long"),
    )  # fmt: skip


def _quantity(value: float | None, unit: str) -> str:
    if value is None:
        return _units.NONE
    if unit == "ns":
        return _units.time(value)
    if unit == "J":
        return f"{value * 1e3:.3g}\u202fmJ"
    return _units.size(round(value)) if unit == "bytes" else _units.percent(value, 2)


def _change(row: ComparedRow) -> tuple[object, ...]:
    change, span = row["change"], row["interval"]
    if change is None:
        return (_units.NONE,)
    if row["unit"] == "share":
        told = f"{_units.points_range(*span)}" if span else None
        return f"{_units.points(change)}\u00a0points", tag("small", told) if told else None
    return (f"{change:.2f}×",
            tag("small", f"{span[0]:.2f}–{span[1]:.2f}") if span else None)  # fmt: skip

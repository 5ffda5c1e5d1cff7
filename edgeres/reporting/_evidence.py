"""The report's sections on behaviour: latencies, budgets, answers, and where networks look."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeres.reporting import _figures, _plots, _spreads, _tables, _units
from edgeres.reporting._markup import Child, Markup, join, tag
from edgeres.reporting._parts import chart, figure, note, section

if TYPE_CHECKING:
    from edgeres.reporting._document import Report

_NAMES = {"teacher": "teacher", "distill": "student", "prune": "pruned network",
          "quantize": "int8 network"}  # fmt: skip
_LOOK = {"quantize": "The int8 network is explained through its quantized graph, the one its files "
                     "were written from, with straight-through gradients. "}  # fmt: skip


def distributions(report: Report) -> Markup | None:
    """How latencies spread, warm and cold."""
    figures: list[Markup] = []
    for name, device, rows in _figures.distributions(report):
        plots = []
        if any(row["warm_ns"] for row in rows):
            plots.append(_plots.place(f"warm-{name}", f"Warm latencies on {device}"))
        if any(row["first_ns"] for row in rows):
            plots.append(_plots.place(f"cold-{name}", f"Cold starts on {device}"))
        words = (f"On {device}. Warm: the share of inferences that took at most so long, all "
                 "sessions together, the slowest 1 % beyond the edge; on paper, the median, the "
                 "middle half and 5 % to 95 %. "
                 "Cold: each dot is one fresh process, open for loading the file and full for the "
                 "first inference.")  # fmt: skip
        figures.append(figure(
            tag("div", *plots, class_="pair"), chart(_spreads.boxes(f"boxes-{name}", device, rows)),
            caption=words,
        ))  # fmt: skip
    return section("distributions", "Warm and cold latency", *figures) if figures else None


def budgets(report: Report) -> Markup | None:
    """Each limit of the recipe."""
    rows = report.get("budgets")
    if not rows:
        return None
    columns = [("Limit on", ""), ("File", ""), ("Device", ""), ("Limit", "n"), ("Measured", "n"),
               ("Verdict", "")]  # fmt: skip
    kinds = {"pass": "good", "fail": "bad", "not measurable": "warn"}
    body = [
        tag("tr", tag("th", _units.measure(row["measure"]), scope="row"),
            tag("td", row["target"]),
            tag("td", _units.NONE if row["device"] == "-" else row["device"]),
            tag("td", _units.measured(row["measure"], row["limit"]), class_="n"),
            tag("td", _units.measured(row["measure"], row["value"]), class_="n"),
            tag("td", _tables.badge(row["verdict"], kinds[row["verdict"]]),
                tag("small", row["reason"]) if row.get("reason") else None))
        for row in rows
    ]  # fmt: skip
    return section("budgets", "Budgets", _tables.table("Limits of the recipe", columns, body))


def answers(report: Report) -> Markup | None:
    """Accuracy per class, confusion, and calibration error."""
    parts = [_per_class(report), _confusion(report), _reliability(report)]
    return section("answers", "What it answers", *parts) if any(parts) else None


def explained(report: Report) -> Markup | None:
    """Grad-CAM of the first and the last network side by side."""
    found = report.get("explained")
    if not found:
        return None
    first, second = (_NAMES.get(found[k], found[k]) for k in ("first", "second"))
    share = f"{found['differ']:,} of {found['n']:,}"
    if not found["samples"]:
        return section("explained", "Where they look", note(
            f"The {first} and the {second} give the same answer to all {found['n']:,} test images, "
            "so there is none to show."))  # fmt: skip
    classes = report["data"].get("classes") or []

    def name(index: int) -> str:
        return classes[index] if index < len(classes) else str(index)

    cards = []
    for sample in found["samples"]:
        cells: list[Child] = [_picture(sample["image"], "image", f"is {name(sample['label'])}")]
        for key, who in (("first", first), ("second", second)):
            said = sample[key]
            right = said["class"] == sample["label"]
            cells.append(_picture(
                said["map"], who, f"{name(said['class'])}, {_units.percent(said['confidence'], 0)}",
                "pass" if right else "fail",
            ))  # fmt: skip
        cards.append(tag("li", *cells, title=f"test image {sample['index']}"))
    words = (
        f"The {first} and the {second} answer differently to {share} test images; here are those "
        "on which both are surest. Bright: what speaks for the network's own answer (Grad-CAM, "
        f"Selvaraju et al. 2017). {_LOOK.get(found['second'], '')}✓\u00a0right, ✗\u00a0wrong."
    )
    return section("explained", "Where they look", tag("ul", *cards, class_="looks"), note(words))


def manifest(report: Report) -> Markup | None:
    """The calibration images."""
    found = (report["data"] or {}).get("manifest")
    if not found or not found["samples"]:
        return None
    counts = ", ".join(f"{name} {n}" for name, n in found["per_class"].items() if n)
    listed = " ".join(f"{s['index']}:{s['sha256'][:8]}" for s in found["samples"][:2000])
    total = len(found["samples"])
    return tag(
        "details", tag("summary", tag("b", "Calibration manifest"), f" {total} training images"),
        note(f"By class: {counts}."),
        note("Index in the training split, and the start of the sha256 of its pixels:"),
        tag("p", tag("code", listed), class_="hashes"),
    )  # fmt: skip


def _per_class(report: Report) -> Markup | None:
    found = report["per_class"]
    if found is None:
        return None
    chosen = _figures.chosen(report, [rung["step"] for rung in found["rungs"]])
    shown, cut = _tables.per_class(found, chosen)
    words = note("Only the classes with the lowest accuracy are shown; report.json has all.")
    return join(tag("h3", "Accuracy per class"), shown, words if cut else None)


def _confusion(report: Report) -> Markup | None:
    """The matrix of the product, or its commonest mistakes where classes are many."""
    found = report.get("confusion")
    if not found:
        return None
    chosen = _figures.chosen(report, [rung["step"] for rung in found["rungs"]])
    rung = next(r for r in found["rungs"] if r["step"] == chosen[-1])
    names = found["classes"]
    if rung["matrix"] is None:
        columns = [("Class", ""), ("Taken for", ""), ("Images", "n")]
        body = [tag("tr", tag("th", names[t], scope="row"), tag("td", names[a]),
                    tag("td", n, class_="n")) for t, a, n in rung["mistakes"]]  # fmt: skip
        shown = _tables.table(f"Commonest mistakes of {rung['label']}", columns, body)
        return join(tag("h3", "Confusion"), shown)
    columns = [("True class", ""), *((name, "n") for name in names)]
    body = [tag("tr", tag("th", names[t], scope="row"), *(
                tag("td", n or "·", class_=f"n {_shade(n, sum(row), t == a)}".strip())
                for a, n in enumerate(row))) for t, row in enumerate(rung["matrix"])]  # fmt: skip
    shown = _tables.table(f"Answers of {rung['label']} (columns) by true class (rows), in images",
                          columns, body)  # fmt: skip
    return join(tag("h3", "Confusion"), tag("div", shown, class_="matrix"))


def _shade(count: int, total: int, right: bool) -> str:
    """A tint by the share of the row: of mistakes from 0.5 % on, of right answers in quarters."""
    if not count:
        return "muted"
    share = count / total
    level = 1 + int(3 * share) if right else 1 + (share > 0.02) + (share > 0.05) + (share > 0.15)
    return f"{'hit' if right else 'miss'}{min(level, 4)}"


def _reliability(report: Report) -> Markup | None:
    rows = _figures.reliability(report)
    if not rows:
        return None
    figures = [
        figure(chart(_spreads.reliability(f"reliability-{i}", row)),
               above=join(tag("b", row["label"]), " ECE ", tag("b", _units.percent(row["ece"]))))
        for i, row in enumerate(rows)
    ]  # fmt: skip
    words = note(
        "ECE: expected calibration error. Each dot is a group of predictions by how sure the "
        "network was (15 bins, Guo et al. 2017), its size by their number; on the dashed line it "
        "would be right as often as it is sure, below it it is too sure."
    )
    return join(tag("h3", "Calibration of confidence"),
                tag("div", *figures, class_="figures small"), words)  # fmt: skip


def _picture(data: str, who: str | None, words: str, mark: str = "") -> Markup:
    sign = {"pass": "✓ ", "fail": "✗ "}.get(mark)
    shown = tag("span", sign, class_=f"mark {mark}") if sign else None
    image = tag("img", src=data, alt=f"{who}: {words}", width=112, height=112)
    return tag("figure", image, tag("figcaption", tag("b", who), tag("span", shown, words)))

"""The report's tables: rows of the document in, HTML tables out that scroll sideways on a phone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from edgeres.reporting import _units
from edgeres.reporting._headline import is_noise
from edgeres.reporting._markup import Child, Markup, join, tag

Row = Mapping[str, Any]
_CLASSES_SHOWN = 20


def table(caption: str, columns: Sequence[tuple[Child, str]], rows: Iterable[Markup]) -> Markup:
    """A captioned table; a column is its heading and "n" for numbers or ""."""
    head = [tag("th", heading, scope="col", class_=kind or None) for heading, kind in columns]
    inner = tag("table", tag("caption", caption), tag("thead", tag("tr", *head)),
                tag("tbody", *rows))  # fmt: skip
    return tag("div", inner, class_="scroll", role="region", aria_label=caption, tabindex="0")


def badge(words: str, kind: str) -> Markup:
    """A small marked word; kind is "good", "bad", "warn" or "plain"."""
    return tag("span", words, class_=f"badge {kind}")


def ladder(rows: Sequence[Row]) -> Markup:
    """A row per network and file."""
    columns = [("Rung", ""), ("Top-1", "n"), ("95 % interval", "n"), ("Correct / n", "n"),
               ("Against what it was made from", "n"), ("Against the first", "n"),
               ("Parameters", "n"), ("MACs", "n"), ("Size", "n")]  # fmt: skip
    return table("Accuracy, cost and size of every rung", columns, map(_rung, rows))


def files(rows: Sequence[Row], load_shown: bool) -> Markup:
    """A row per file and device."""
    unit = _units.time_unit([r["latency"]["median_ns"] for r in rows if r["latency"]])
    columns = [("File", ""), ("Size", "n"), ("Verified", ""), ("Agreement", "n"),
               ("Worst difference", "n"), ("Top-1", "n")]  # fmt: skip
    if load_shown:
        columns += [("Device", ""), (f"Median, {unit[0]} (95 % interval)", "n"),
                    (f"p90, {unit[0]}", "n"), ("Inferences", "n"), ("Memory", "n"),
                    ("Load", "n"), ("First", "n"), ("Measurement", "")]  # fmt: skip
    body = [tag("tr", *_file(row), *(_measured(row, unit) if load_shown else ())) for row in rows]
    return table("Every exported file", columns, body)


def verification(rows: Sequence[Row]) -> Markup:
    """Gates down, files across."""
    names = dict.fromkeys(gate["name"] for row in rows for gate in row["gates"])
    columns = [("Gate", ""), *((row["target"], "") for row in rows)]
    verdicts = [tag("td", badge("passed", "good") if row["passed"] else badge("failed", "bad"))
                for row in rows]  # fmt: skip
    body = [tag("tr", tag("th", "Verdict", scope="row"), *verdicts)]
    for name in names:
        found = [next((g for g in row["gates"] if g["name"] == name), None) for row in rows]
        body.append(tag("tr", tag("th", name, scope="row"), *map(_gate, found)))
    scales = [row.get("scales") for row in rows]
    if any(scales):
        cells = [tag("td", f"{s['equal']} of {s['compared']}" if s else _units.NONE)
                 for s in scales]  # fmt: skip
        body.append(tag("tr", tag("th", "Scales equal to the trained ones", scope="row"), *cells))
    return table("What was checked, and the limit it was held to", columns, body)


def per_class(found: Row, chosen: Sequence[str]) -> tuple[Markup, bool]:
    """Accuracy per class of the chosen rungs, and whether only the worst classes are shown."""
    rungs = [rung for rung in found["rungs"] if rung["step"] in chosen]
    order = list(range(len(found["classes"])))
    cut = len(order) > _CLASSES_SHOWN
    if cut:
        worst = rungs[-1]["recall"]
        order.sort(key=lambda i: worst[i]["top1"] if worst[i] else 2.0)
    columns = [("Class", ""), ("Test images", "n"), *((rung["label"], "n") for rung in rungs)]
    body = [
        tag("tr", tag("th", found["classes"][i], scope="row"),
            tag("td", f"{found['counts'][i]:,}", class_="n"),
            *(_share(rung["recall"][i]) for rung in rungs))
        for i in order[:_CLASSES_SHOWN]
    ]  # fmt: skip
    return table("Accuracy per class, with 95 % interval", columns, body), cut


def lineage(rows: Sequence[Row]) -> Markup:
    """A row per artifact."""
    columns = [("Step", ""), ("Key", ""), ("Digest of the contents", ""), ("Took", "n")]
    body = [
        tag("tr", tag("th", row["step"], scope="row"), tag("td", tag("code", row["key"])),
            tag("td", tag("code", row["digest"], class_="digest")),
            tag("td", _units.NONE if row["seconds"] is None else _units.seconds(row["seconds"]),
                class_="n"))
        for row in rows
    ]  # fmt: skip
    return table("Every artifact this report is made from", columns, body)


def facts(values: Row) -> Markup:
    """Nested plain values as a description list: `libraries.torch`, `2.13`."""
    flat = [(name, words) for name, words in _flatten("", values) if words]
    return tag("dl", *(tag("div", tag("dt", n), tag("dd", w)) for n, w in flat), class_="facts")


def _flatten(prefix: str, value: Any) -> Iterable[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flatten(f"{prefix}.{key}" if prefix else str(key), item)
    elif isinstance(value, (list, tuple)):
        yield prefix, ", ".join(map(str, value))
    elif value is not None:
        yield (
            prefix,
            {True: "yes", False: "no"}.get(value, str(value))
            if isinstance(value, bool)
            else str(value),
        )


def _rung(row: Row) -> Markup:
    found = row["accuracy"]
    numbers = (
        (_units.percent(found["top1"]), _units.percent_range(found["low"], found["high"]),
         f"{found['correct']:,} / {found['n']:,}")
        if found else ("not run", _units.NONE, _units.NONE)
    )  # fmt: skip
    detail = tag("small", row["detail"]) if row["detail"] else None
    return tag(
        "tr", tag("th", row["label"], detail, scope="row", class_=row["kind"]),
        *(tag("td", words, class_="n") for words in numbers),
        _change(row["against_previous"]), _change(row["against_first"]),
        *(tag("td", words, class_="n") for words in
          (_units.quantity(row["parameters"]), _units.quantity(row["macs"]),
           _units.size(row["size_bytes"]))),
    )  # fmt: skip


def _change(change: Row | None) -> Markup:
    if change is None:
        return tag("td", _units.NONE, class_="n")
    if change["p"] is None:
        note = "not compared image by image"
        return tag("td", _units.points(change["points"]), tag("small", note), class_="n")
    kind = "" if is_noise(change) else " loss" if change["points"] < 0 else " gain"
    same = change["lost"] == change["gained"] == 0
    note = "same answers" if same else f"{_units.p_value(change['p'])}"
    span = _units.points_range(change["low"], change["high"])
    return tag("td", _units.points(change["points"]), tag("small", note), class_=f"n{kind}",
               title=f"95 % interval {span} points, n={change['n']:,} pairs")  # fmt: skip


def _file(row: Row) -> list[Markup]:
    verdicts = {True: badge("passed", "good"), False: badge("failed", "bad"),
                None: badge("not verified", "plain")}  # fmt: skip
    agreement = _units.NONE if row["agreement"] is None else _units.percent(row["agreement"], 2)
    worst = _units.NONE
    if row["worst"] is not None:
        worst = f"{_units.number(row['worst'])} {row['worst_unit']}"
    detail = tag("small", row["file"]) if row["file"] else None
    return [
        tag("th", row["target"], detail, scope="row"),
        tag("td", _units.size(row["size_bytes"]), class_="n"),
        tag("td", verdicts[row["verified"]]),
        tag("td", agreement, class_="n"), tag("td", worst, class_="n"),
        _share(row["accuracy"], row["accuracy_on"]),
    ]  # fmt: skip


def _measured(row: Row, unit: tuple[str, float]) -> list[Markup]:
    status = row["status"]
    kinds = {"valid": "good", "invalid": "bad", "emulated": "warn", "not measured": "plain"}
    reasons = tag("ul", *(tag("li", r) for r in row["reasons"]), class_="reasons")
    verdict = tag("td", badge(status, kinds[status]), reasons if row["reasons"] else None)
    device = tag("td", row["device"] or _units.NONE, _runtime(row))
    memory, load, first = row["memory_bytes"], row["load_ns"], row["first_ns"]
    after = [tag("td", words, class_="n") for words in (
        _units.NONE if memory is None else _units.size(max(memory, 0)),
        _units.NONE if load is None else _units.time(load),
        _units.NONE if first is None else _units.time(first))]  # fmt: skip
    if row["latency"] is None:
        words = "emulated: no latency" if status == "emulated" else _units.NONE
        none = tag("td", _units.NONE, class_="n")
        return [device, tag("td", words, class_="n muted"), none, none, *after, verdict]
    found = row["latency"]
    doubtful = "" if status == "valid" else " doubtful"
    shown = [_units.time(found["median_ns"], unit),
             _units.time(found["p90_ns"], unit) if found.get("p90_ns") else _units.NONE]  # fmt: skip
    span = tag("small", _units.time_range(*found["median_ci_ns"], unit=unit))
    n = tag("small", f"{found['sessions']} sessions") if found.get("sessions") else None
    return [
        device, tag("td", shown[0], span, class_=f"n{doubtful}"),
        tag("td", shown[1], class_=f"n{doubtful}"), tag("td", f"{found['n']:,}", n, class_="n"),
        *after, verdict,
    ]  # fmt: skip


def _runtime(row: Row) -> Markup | None:
    runtime = row.get("runtime")
    if not runtime:
        return None
    threads = row.get("threads")
    words = f"{runtime.get('name', '')} {runtime.get('version', '')}".strip()
    if threads:
        words += f", {threads} thread{'' if threads == 1 else 's'}"
    return tag("small", words)


def _gate(gate: Row | None) -> Markup:
    if gate is None:
        return tag("td", _units.NONE, class_="muted")
    measured = "not a number" if gate["measured"] is None else _units.number(gate["measured"])
    sign = {">=": "≥", "<=": "≤", "==": "="}.get(gate["comparison"], gate["comparison"])
    limit = f"{sign} {_units.number(gate['limit'])} {gate.get('unit') or ''}".strip()
    mark = ("✓", "pass", "passed") if gate["passed"] else ("✗", "fail", "failed")
    icon = tag("span", mark[0], class_=f"mark {mark[1]}", role="img", aria_label=mark[2])
    return tag("td", join(icon, " ", measured), tag("small", limit))


def _share(found: Row | None, where: str | None = None) -> Markup:
    if not found:
        return tag("td", _units.NONE, class_="n")
    span = _units.percent_range(found["low"], found["high"])
    place = tag("small", f"on {where}") if where else None
    return tag("td", _units.percent(found["top1"]), tag("small", span), place, class_="n")

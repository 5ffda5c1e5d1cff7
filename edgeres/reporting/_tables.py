"""The report's tables: rows of the document in, HTML tables out that scroll sideways on a phone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from edgeres.reporting import _units
from edgeres.reporting._headline import is_noise
from edgeres.reporting._markup import Child, Markup, join, tag
from edgeres.statistics import mcnemar
from edgeres.text.runtimes import sentences

if TYPE_CHECKING:
    from edgeres.records import Gate, OnRuntime
    from edgeres.reporting._document import (
        Accuracy,
        Certificate,
        Change,
        FileRow,
        Made,
        PerClass,
        Step,
    )

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


def ladder(rows: Sequence[Step]) -> Markup:
    """A row per network and file."""
    first = f"the {rows[0]['label'].lower()}" if rows[0]["kind"] == "network" else "the first"
    columns = [("Rung", ""), ("Top-1", "n"), ("95 % interval", "n"), ("Correct / n", "n"),
               ("Against its origin", "n"), (f"Against {first}", "n"),
               ("Parameters", "n"), ("MACs", "n"), ("Size", "n")]  # fmt: skip
    return table("Accuracy, cost and size of every rung", columns, map(_rung, rows))


def files(rows: Sequence[FileRow]) -> Markup:
    """A row per file."""
    columns = [("File", ""), ("Size", "n"), ("Verified", ""), ("Same top-1 as its network", "n"),
               ("Worst difference", "n"), ("Top-1 (95 % interval)", "n")]  # fmt: skip
    once = {row["target"]: row for row in reversed(rows)}
    return table("Every exported file", columns, map(_file, reversed(once.values())))


def measurements(rows: Sequence[FileRow]) -> Markup:
    """A row per file and device."""
    unit = _units.time_unit([r["latency"]["median_ns"] for r in rows if r["latency"]])
    columns = [("File", ""), ("Device", ""), ("Measurement", ""),
               ("Median latency (95 % interval)", "n"), ("p90", "n"), ("Inferences", "n"),
               ("Peak RSS", "n"), ("Load", "n"), ("First inference", "n")]  # fmt: skip
    if any(row["accuracy_on"] == row["device"] for row in rows):
        columns.append(("Top-1 there (95 % interval)", "n"))
        body = [
            tag(
                "tr",
                _measured(row, unit),
                _share(row["accuracy"] if row["accuracy_on"] == row["device"] else None),
            )
            for row in rows
        ]
    else:
        body = [tag("tr", _measured(row, unit)) for row in rows]
    return table("Measured on devices", columns, body)


def verification(rows: Sequence[Certificate]) -> Markup:
    """Gates down, files across."""
    names = dict.fromkeys(gate["name"] for row in rows for gate in row["gates"])
    columns = [("Gate", ""), *((row["target"], "") for row in rows)]
    verdicts = [tag("td", _verdict(row)) for row in rows]
    body = [tag("tr", tag("th", "Verdict", scope="row"), *verdicts)]
    for name in names:
        found = [next((g for g in row["gates"] if g["name"] == name), None) for row in rows]
        body.append(tag("tr", tag("th", name, scope="row"), *map(_gate, found)))
    scales = [row.get("scales") for row in rows]
    if any(scales):
        cells = [tag("td", f"{s['equal']} of {s['compared']}" if s else _units.NONE)
                 for s in scales]  # fmt: skip
        body.append(tag("tr", tag("th", "Scales equal to the trained ones", scope="row"), *cells))
    for title, words in _FOUND.items():
        said = [words(row) for row in rows]
        if any(said):
            cells = [tag("td", word or _units.NONE) for word in said]
            body.append(tag("tr", tag("th", title, scope="row"), *cells))
    return table("What was checked, and the limit it was held to", columns, body)


def _same_as_float(row: Certificate) -> str | None:
    found = row.get("against_float")
    return _units.percent(found["agreement"]) if found else None


def _significance(row: Certificate) -> str | None:
    discordant = row.get("discordant")
    if not discordant:
        return None
    lost, won = discordant
    return f"−{lost} +{won}, {_units.p_value(mcnemar(lost, won))}"


_FOUND: dict[str, Callable[[Certificate], str | None]] = {
    "Same answer as the float network": _same_as_float,
    "Right answers lost and won by it": _significance,
    "Residual adds in their place": lambda row: str(len(row.get("residual_adds") or ())) or None
    if row.get("scales") else None,
    "Run by": lambda row: row.get("run_by") or None,
}  # fmt: skip


def _verdict(row: Certificate) -> Markup:
    """A file's own gates are listed below it; those of other runtimes aren't."""
    if row["passed"]:
        return badge("passed", "good")
    elsewhere = all(gate["passed"] for gate in row["gates"]) and row.get("runtimes")
    return badge("failed on another runtime" if elsewhere else "failed", "bad")


def runtimes(rows: Sequence[Certificate]) -> Markup | None:
    """A row per file and runtime; None if none was asked."""
    asked = [(row, found) for row in rows for found in row.get("runtimes") or ()]
    columns = [("File", ""), ("Runtime", ""), ("Verdict", ""), ("Same top-1 as its network", "n"),
               ("Images with the same codes", "n"), ("Worst difference", "n"), ("Top-1", "n"),
               ("Memory", ""), ("Cycles", "n"), ("What it is, and what it says", "")]  # fmt: skip
    body = [tag("tr", tag("th", row["target"], scope="row"), *_on_runtime(found))
            for row, found in asked]  # fmt: skip
    return table("On other runtimes", columns, body) if body else None


def _on_runtime(found: OnRuntime) -> list[Markup]:
    test, equal = found.get("test"), found.get("equal_images")
    unit = "codes" if equal is not None else "logits"
    worst = found.get("worst_codes")
    memory = [f"{kind} {_units.size(n)}" for kind, n in found["memory_bytes"].items()]
    cycles, numbers = found.get("cycles"), {"class_": "n"}
    return [
        tag("td", found["runtime"]),
        tag("td", badge("passed", "good") if found["passed"] else badge("failed", "bad")),
        tag("td", _units.percent(found.get("agreement"), 2), **numbers),
        tag("td", f"{equal:,} of {found['n']:,}" if equal is not None else _units.NONE, **numbers),
        tag(
            "td", f"{_units.number(worst)} {unit}" if worst is not None else _units.NONE, **numbers
        ),
        tag("td", _units.percent(test["correct"] / test["n"]) if test else _units.NONE, **numbers),
        tag("td", ", ".join(memory) or _units.NONE),
        tag("td", f"{cycles:,}" if cycles is not None else _units.NONE, **numbers),
        tag("td", "; ".join(sentences(found))),
    ]


def per_class(found: PerClass, chosen: Sequence[str]) -> tuple[Markup, bool]:
    """Accuracy per class of the chosen rungs, and whether only the worst classes are shown."""
    rungs = [rung for rung in found["rungs"] if rung["step"] in chosen]
    order = list(range(len(found["classes"])))
    cut = len(order) > _CLASSES_SHOWN
    if cut:
        worst = rungs[-1]["recall"]
        order.sort(key=lambda i: known["top1"] if (known := worst[i]) else 2.0)
    columns = [("Class", ""), ("Test images", "n"), *((rung["label"], "n") for rung in rungs)]
    body = [
        tag("tr", tag("th", found["classes"][i], scope="row"),
            tag("td", f"{found['counts'][i]:,}", class_="n"),
            *(_share(rung["recall"][i]) for rung in rungs))
        for i in order[:_CLASSES_SHOWN]
    ]  # fmt: skip
    return table("Accuracy per class, with 95 % interval", columns, body), cut


def lineage(rows: Sequence[Made]) -> Markup:
    """A row per artifact."""
    columns = [("Step", ""), ("Key", ""), ("Digest of the contents", ""), ("Took", "n")]
    body = [
        tag("tr", tag("th", row["step"], scope="row"), tag("td", tag("code", row["key"])),
            tag("td", tag("code", f"{row['digest'][:16]}…", title=row["digest"])),
            tag("td", _units.NONE if row["seconds"] is None else _units.seconds(row["seconds"]),
                class_="n"))
        for row in rows
    ]  # fmt: skip
    return table("Every artifact this report is made from", columns, body)


def facts(values: Mapping[str, object]) -> Markup:
    """Nested plain values as a description list: `libraries torch`, `2.13`."""
    flat = [(name, words) for name, words in _flatten("", values) if words]
    return tag("dl", *(tag("div", tag("dt", n), tag("dd", w)) for n, w in flat), class_="facts")


def _flatten(prefix: str, value: object) -> Iterable[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flatten(f"{prefix} {key}".replace("_", " ").strip(), item)
    elif isinstance(value, (list, tuple)):
        yield prefix, ", ".join(map(_plain, value))
    elif isinstance(value, bool):
        yield prefix, "yes" if value else "no"
    elif isinstance(value, int) and prefix.endswith(" bytes"):
        yield prefix.removesuffix(" bytes"), _units.size(value)
    elif value is not None:
        yield prefix, _plain(value)


def _plain(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _rung(row: Step) -> Markup:
    found = row["accuracy"]
    numbers = (
        (_units.percent(found["top1"]), _units.percent_range(found["low"], found["high"]),
         f"{found['correct']:,} / {found['n']:,}")
        if found else ("not run", _units.NONE, _units.NONE)
    )  # fmt: skip
    detail = tag("small", row["detail"]) if row["detail"] else None
    return tag(
        "tr", tag("th", row["label"], detail, scope="row", class_=row["kind"]),
        tag("td", numbers[0], _claimed(row), class_="n"),
        *(tag("td", words, class_="n") for words in numbers[1:]),
        _change(row["against_previous"]), _change(row["against_first"]),
        *(tag("td", words, class_="n") for words in
          (_units.quantity(row["parameters"]), _units.quantity(row["macs"]),
           _units.size(row["size_bytes"]))),
    )  # fmt: skip


def _claimed(row: Step) -> Markup | None:
    """What the publisher states, which may be of other images or another preparation of them."""
    claimed = row.get("claimed")
    return None if claimed is None else tag("small", f"claimed {_units.percent(claimed)}")


def _change(change: Change | None) -> Markup:
    if change is None:
        return tag("td", _units.NONE, class_="n")
    low, high = change["low"], change["high"]
    if change["p"] is None or low is None or high is None:
        note = "not compared image by image"
        return tag("td", _units.points(change["points"]), tag("small", note), class_="n")
    kind = "" if is_noise(change) else " loss" if change["points"] < 0 else " gain"
    same = change["lost"] == change["gained"] == 0
    note = "same answers" if same else f"{_units.p_value(change['p'])}"
    span = _units.points_range(low, high)
    return tag("td", _units.points(change["points"]), tag("small", note), class_=f"n{kind}",
               title=f"95 % interval {span} points, n={change['n']:,} pairs")  # fmt: skip


def _file(row: FileRow) -> Markup:
    verdicts = {True: badge("passed", "good"), False: badge("failed", "bad"),
                None: badge("not verified", "plain")}  # fmt: skip
    agreement, worst = _units.NONE, _units.NONE
    if row["agreement"] is not None:
        agreement = _units.percent(row["agreement"], 2)
    if row["worst"] is not None:
        unit = row["worst_unit"]
        worst = f"{_units.number(row['worst'])} {unit[:-1] if row['worst'] == 1 else unit}"
    unrun = row["verified"] is not None and row["agreement"] is None
    detail = tag("small", row["file"]) if row["file"] else None
    return tag(
        "tr", tag("th", row["target"], detail, scope="row"),
        tag("td", _units.size(row["size_bytes"]), class_="n"),
        tag("td", verdicts[row["verified"]],
            tag("small", "not run: structure and scales only") if unrun else None, class_="wide"),
        tag("td", agreement, class_="n"), tag("td", worst, class_="n"),
        _share(row["accuracy"]),
    )  # fmt: skip


def _measured(row: FileRow, unit: tuple[str, float]) -> Markup:
    status, found = row["status"], row["latency"]
    kinds = {"valid": "good", "invalid": "bad", "emulated": "warn"}
    reasons = tag("ul", *(tag("li", r) for r in row["reasons"]), class_="reasons")
    doubtful = "" if status == "valid" else " doubtful"
    latency = [tag("td", "no latency" if i == 0 else _units.NONE, class_="n muted")
               for i in range(3)]  # fmt: skip
    if found is not None:
        span = tag("small", _units.time_range(found["median_ci_ns"], unit))
        p90 = found.get("p90_ns")
        slowest = _units.time(p90, unit) if p90 else _units.NONE
        sessions = tag("small", f"{found['sessions']} sessions") if found.get("sessions") else None
        latency = [
            tag("td", _units.time(found["median_ns"], unit), span, class_=f"n{doubtful}"),
            tag("td", slowest, class_=f"n{doubtful}"),
            tag("td", f"{found['n']:,}", sessions, class_="n"),
        ]
    memory, load, first = row["peak_rss_bytes"], row["load_ns"], row["first_ns"]
    return join(
        tag("th", row["target"], scope="row"),
        tag("td", row["device"], _runtime(row), class_="wide"),
        tag("td", badge(status, kinds[status]), reasons if row["reasons"] else None), *latency,
        tag("td", _units.NONE if memory is None else _units.size(memory), class_="n"),
        *(tag("td", _units.NONE, class_="n") if cold is None
          else tag("td", _units.time(cold), class_=f"n{doubtful}") for cold in (load, first)),
    )  # fmt: skip


def _runtime(row: FileRow) -> Markup | None:
    runtime = row.get("runtime")
    if not runtime:
        return None
    threads = row.get("threads")
    words = f"{runtime.get('name', '')} {runtime.get('version', '')}".strip()
    if threads:
        words += f", {threads} thread{'' if threads == 1 else 's'}"
    return tag("small", words)


_YES_NO = ("file unchanged since export", "integer input and output")


def _gate_words(name: str) -> Callable[[float], str]:
    """How a gate's values are told: most are plain numbers."""
    if name.startswith(_YES_NO):
        return lambda value: "yes" if value else "no"
    if name == "top-1 agreement":
        return lambda value: _units.percent(value, 2)
    return _units.number


def _gate(gate: Gate | None) -> Markup:
    if gate is None:
        return tag("td", _units.NONE, class_="muted")
    said = _gate_words(gate["name"])
    measured = "not a number" if gate["measured"] is None else said(gate["measured"])
    sign = {">=": "≥", "<=": "≤", "==": "="}.get(gate["comparison"], gate["comparison"])
    limit = f"{sign} {said(gate['limit'])} {gate.get('unit') or ''}".strip()
    mark = ("✓", "pass", "passed") if gate["passed"] else ("✗", "fail", "failed")
    icon = tag("span", mark[0], class_=f"mark {mark[1]}", role="img", aria_label=mark[2])
    return tag("td", join(icon, " ", measured), tag("small", limit), class_="gate")


def _share(found: Accuracy | None) -> Markup:
    if not found:
        return tag("td", _units.NONE, class_="n")
    span = _units.percent_range(found["low"], found["high"])
    return tag("td", _units.percent(found["top1"]), tag("small", span), class_="n")

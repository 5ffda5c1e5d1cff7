"""The report's sections in reading order: the document in, one `Markup` per section out.

A section whose material the run doesn't have is a sentence, or None and left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgeres.reporting import _charts, _evidence, _figures, _network, _plots, _tables
from edgeres.reporting._figures import CURVES
from edgeres.reporting._markup import Child, Markup, join, tag
from edgeres.reporting._parts import chart, figure, note, section
from edgeres.reporting._rungs import INTEGER
from edgeres.text import every_input

if TYPE_CHECKING:
    from edgeres.records import Facts, Layer
    from edgeres.reporting._document import FileRow, Report, Toned


def ladder(report: Report) -> Markup | None:
    """Accuracy from rung to rung."""
    rows = report["ladder"]
    if not rows:
        return None
    drawn = None
    missing = [row["label"] for row in rows if not row["accuracy"]]
    if len(missing) < len(rows):
        absent = f" Not run, so without a dot: {', '.join(missing)}." if missing else ""
        drawn = figure(
            legend(rows), _charts.ladder(rows), caption=
            "Top-1 on the test images. Dot or diamond: what was counted; line: its 95 % interval; "
            f"dashed: the first network. The axis doesn't start at zero.{absent}",
        )  # fmt: skip
    words = (
        "Changes are in percentage points, negative is worse; p is the exact McNemar test over "
        "the same images, and coloured changes have p < 0.05. A network's size is its "
        "parameters as float32, a file's its bytes on disk."
    )
    return section("ladder", "From rung to rung", drawn, _tables.ladder(rows), note(words))


def tradeoff(report: Report) -> Markup | None:
    """Accuracy against latency per device, and sizes."""
    rows = report["files"]
    if not rows:
        return None
    figures = []
    for name, device, drawn in _figures.tradeoffs(report):
        figures.append(figure(
            _plots.place(name, f"Accuracy against latency on {device}"),
            chart(join(legend(drawn), _charts.scatter(f"drawn-{name}", device, drawn))), caption=
            f"Measured on {device}. Lines: 95 % intervals of accuracy and of the median. "
            "Up and left is better. A hollow mark is an invalid measurement.",
        ))  # fmt: skip
    if sizes := _sizes(report):
        figures.append(sizes)
    sentence = None if any(row["latency"] for row in rows) else note(_no_latency(rows))
    return section("tradeoff", "Accuracy against latency and size", sentence,
                   tag("div", *figures, class_="figures"))  # fmt: skip


def files(report: Report) -> Markup | None:
    """What was exported and how it did."""
    rows = report["files"]
    if not rows:
        return None
    measured = [row for row in rows if row["device"]]
    if not measured:
        return section("files", "Files", _tables.files(rows))
    memory = next((r["memory_definition"] for r in rows if r.get("memory_definition")), None)
    of = f" ({memory})" if memory else ""
    words = (
        "Batch 1, one inference after the other; median over all sessions. "
        f"Peak RSS: the most resident memory of a process of its own{of}, the runtime included. "
        "Load and first inference: in a fresh process, median over sessions. An invalid "
        "measurement is struck through, with its reason; an emulated processor has no latency."
    )
    return section("files", "Files and measurements", _tables.files(rows),
                   _tables.measurements(measured), note(words))  # fmt: skip


def verification(report: Report) -> Markup | None:
    """Each file's gates."""
    found = report["verification"]
    if found is None:
        if not report["files"]:
            return None
        return section("verification", "Verification", note("This run did not verify its files."))
    if not found["files"]:
        return section("verification", "Verification", note("There was no file to verify."))
    known = [(row["target"], row.get("proof")) for row in found["files"]]
    notes = [tag("li", tag("b", row["target"]), ": ", words)
             for row in found["files"] for words in row.get("notes") or ()]  # fmt: skip
    return section(
        "verification", "Verification",
        _tables.verification(found["files"]),
        _tables.runtimes(found["files"]),
        tag("ul", *notes, class_="notes") if notes else None,
        *(note(words) for words in every_input.proofs(known) if words),
        note("Every file is compared with the network it was written from, on the test images: "
              "the same scales, the same answers, and integer arithmetic where it says int8. Each "
              "layer of an int8 file is also recomputed from the codes that the file really fed "
              "it. p: exact McNemar test against the network before quantization."),
    )  # fmt: skip


def inside(report: Report) -> Markup | None:
    """A picture of each quantized file, and its sizes by layer."""
    drawn = [
        tag("details",
            tag("summary", tag("b", found["target"]), " ", found["summary"]),
            _network.draw(f"network-{i}", found["target"], found["layers"]),
            _layer_sizes(f"layers-{i}", found["layers"]))
        for i, found in enumerate(report["networks"])
    ]  # fmt: skip
    if not drawn:
        return None
    words = note("One row per operation as the runtime executes it, with its output and the size "
                 "of its weights; lines on the left skip rows.")  # fmt: skip
    return section("inside", "Inside the int8 files", *drawn, words)


def training(report: Report) -> Markup | None:
    """Curves of every trained network."""
    if not report["training"]:
        return None
    figures = []
    for found in report["training"]:
        heading = join(tag("b", found["label"]), " ", found["detail"])
        drawing = _charts.curves(f"curve-{found['step']}", found["label"], found["rows"])
        figures.append(figure(drawing, above=heading))
    plots = [_plots.place(f"training-{name}", words) for name, words, _ in CURVES.values()]
    shown = figure(tag("div", *plots, class_="pair"),
                   chart(tag("div", *figures, class_="figures small")))  # fmt: skip
    words = note("Validation top-1 after each epoch, and the mean loss of its batches. Losses of "
                 "different stages have different terms and can't be compared.")  # fmt: skip
    return section("training", "Training", shown, words)


def data(report: Report) -> Markup | None:
    """Data set, calibration and accuracy per class."""
    found = report["data"]
    if not found:
        return None
    counts, calibration = found.get("counts") or {}, found.get("calibration") or {}
    values = {
        "data set": found.get("name"), "image size": _pixels(found.get("size_px")),
        "pictures": _resized(found.get("resize")),
        "classes": len(found["classes"]) if found.get("classes") else None,
        **{f"{name} images": f"{n:,}" for name, n in counts.items()},
        "calibration images": calibration.get("count"), "drawn from": calibration.get("split"),
        "of them also test images": calibration.get("overlap_with_test"),
        "calibration manifest, sha256": _start(calibration.get("sha256")),
        **{f"{name} images, sha256": _start(value)
           for name, value in (found.get("fingerprints") or {}).items()},
    }  # fmt: skip
    leak = report["summary"]["leak"]
    warning = tag("p", tag("strong", "Calibration used test images: "),
                  f"{leak} of them. Accuracy above can't be trusted.",
                  class_="warning") if leak else None  # fmt: skip
    said = [
        tag("li", tag("b", row["step"]), ": ", row["note"]) for row in report.get("notes") or ()
    ]
    return section(
        "data", "Data and calibration", warning, _tables.facts(values),
        join(tag("h3", "Assumed, left out, replaced"), tag("ul", *said, class_="notes"))
        if said else None,
        _evidence.manifest(report),
    )  # fmt: skip


def _resized(rule: Facts | None) -> str | None:
    """How pictures of any size came to theirs."""
    if not rule:
        return None
    if rule["crop"] == "none":
        return f"whole, squeezed into the square, {rule['interpolation']}"
    return (f"short side to {rule['short_side_px']} px at most, the centre of it, "
            f"{rule['interpolation']}")  # fmt: skip


def environment(report: Report) -> Markup | None:
    """What the run was made with, the devices, and every artifact."""
    parts: list[Child] = []
    if report["environment"]:
        parts += [tag("h3", "Environment"), _tables.facts(report["environment"])]
    for device in report["devices"]:
        mark = _tables.badge("emulated", "warn") if device["emulated"] else None
        state = {k: v for k, v in {**device, **device["state"]}.items()
                 if k not in ("device", "emulated", "state")}  # fmt: skip
        parts += [tag("h3", "Device: ", device["device"], " ", mark),
                  _tables.facts(state)]  # fmt: skip
    if report["lineage"]:
        parts += [tag("h3", "Lineage"), _tables.lineage(report["lineage"])]
    return section("environment", "Environment and lineage", *parts) if parts else None


def recipe(report: Report) -> Markup | None:
    """The recipe as it was resolved."""
    if not report["recipe"].strip():
        return None
    code = tag("pre", tag("code", report["recipe"]), tabindex="0")
    return section("recipe", "Recipe", code)


def _sizes(report: Report) -> Markup | None:
    rows = _figures.sizes(report)
    if not rows:
        return None
    words = "Bytes on disk, from zero; 1 kB = 1000 B."
    if rows[0][2] == "plain":
        words += f" {rows[0][0]}: its parameters as float32."
    return figure(_charts.bars("size-chart", "Sizes", rows), caption=words)


def _layer_sizes(name: str, layers: Sequence[Layer]) -> Markup | None:
    """Weights by layer, in the order of execution; the largest of many."""
    rows, held = _figures.layer_sizes(layers)
    if not rows:
        return None
    few = f" (the largest {len(rows)} of {held})" if len(rows) < held else ""
    return join(tag("h3", f"Size by layer{few}"), _charts.bars(name, "Size by layer", rows))


def _no_latency(rows: Sequence[FileRow]) -> str:
    if any(row["status"] == "emulated" for row in rows):
        return "No latency: the files only ran on an emulated processor, whose times mean nothing."
    return "No latency was measured in this run."


def _start(digest: str | None) -> str | None:
    return f"{digest[:16]}…" if digest else None


def _pixels(size: int | None) -> str | None:
    return f"{size} × {size} px" if size else None


def legend(rows: Sequence[Toned]) -> Markup:
    kinds = [("int8", "int8", any(r["precision"] in INTEGER for r in rows)),
             ("float", "float", any(r["precision"] not in INTEGER for r in rows)),
             ("invalid", "invalid measurement",
              any(r.get("status", "valid") != "valid" for r in rows))]  # fmt: skip
    entries = [tag("li", _charts.swatch(kind), " ", words) for kind, words, used in kinds if used]
    return tag("ul", *entries, class_="legend")

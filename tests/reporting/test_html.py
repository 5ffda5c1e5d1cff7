"""report.html: valid, escaped, self-contained, and honest about what wasn't measured."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from typing import Any
from xml.etree.ElementTree import Element

import html5lib
import pytest

from edgeres.recipe import load
from edgeres.reporting import _figures, html
from edgeres.reporting._markup import Markup, escape, join, tag
from edgeres.reporting.ladder import build

Report = dict[str, Any]
PIXEL = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="  # noqa: E501
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;\u202e\x00\x1b[31m\ud800"
H = "{http://www.w3.org/1999/xhtml}"
S = "{http://www.w3.org/2000/svg}"


LIBRARY = html._scripts()[0]


def render(report: Report) -> str:
    """The page without the text of plotly.js, which takes a Python parser seconds."""
    return html.render(report).replace(LIBRARY, "")


def parsed(page: str) -> Element:
    """The page, which must be valid HTML to a strict parser and encodable."""
    page.encode("utf-8")
    tree: Element = html5lib.HTMLParser(strict=True).parse(page)
    return tree


def text(page: str) -> str:
    words = "".join(parsed(page).find(f"{H}body").itertext())  # type: ignore[union-attr]
    return words.replace("\u202f", " ").replace("\u00a0", " ")


def elements(page: str, name: str) -> Iterator[Element]:
    return parsed(page).iter(name)


def sections(page: str) -> list[str | None]:
    return [s.get("id") for s in elements(page, f"{H}section")]


def hostile(value: Any, key: str = "") -> Any:
    """The same run with every free text replaced: names, classes, reasons, environment."""
    free = {"title", "recipe_yaml", "device", "model", "file", "name", "version", "classes",
            "notes", "reasons", "cpu_model", "python", "key", "definition", "preset", "split",
            "unit", "target"}  # fmt: skip
    if isinstance(value, dict):
        return {k: hostile(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [hostile(v, key) for v in value]
    return f"{HOSTILE}{value}" if isinstance(value, str) and key in free else value


def test_a_complete_report_is_valid_and_has_every_section(report: Report) -> None:
    page = render(report)
    assert sections(page) == ["ladder", "tradeoff", "distributions", "budgets", "files",
                              "verification", "training", "answers", "explained", "data",
                              "environment", "recipe"]  # fmt: skip
    assert parsed(page).get("lang") == "en"
    assert report["headline"].replace("\u202f", " ").replace("\u00a0", " ")[:60] in text(page)


def test_a_report_read_back_from_json_looks_the_same(report: Report) -> None:
    assert render(json.loads(json.dumps(report))) == render(report)


def test_what_was_assumed_or_left_out_is_told(run: Report) -> None:
    run["dataset"]["resize"] = {"size_px": 96, "short_side_px": 110, "crop": "center",
                                "interpolation": "bicubic"}  # fmt: skip
    run["artifacts"][0]["facts"]["notes"] = ["3 files passed over: 3 <b>.heic</b>"]
    page = render(build(**run))
    assert "short side to 110 px at most, the centre of it, bicubic" in page
    assert "Assumed, left out, replaced" in page
    assert "3 files passed over: 3 &lt;b&gt;.heic&lt;/b&gt;" in page
    del run["artifacts"][0]["facts"]["notes"]
    assert "Assumed, left out, replaced" not in render(build(**run))


def test_the_top_says_which_run_it_is(run: Report) -> None:
    run |= {"run": "quickstart-1", "written_at": "2026-11-27T04:08:45+00:00"}
    run["environment"]["system"] = "Linux x86_64"
    words = text(render(build(**run)))
    for said in ("quickstart-1", "2026-11-27 04:08:45 UTC", "Linux x86_64", "host (Cortex-A76)"):
        assert said in words
    (about,) = (e for e in elements(render(build(**run)), f"{H}dl") if e.get("class") == "about")
    assert [a.get("href") for a in about.iter(f"{H}a")] == ["#recipe"]


def test_values_have_the_units_of_people(run: Report) -> None:
    limits = [("size_kb", 100.0, 51.369), ("latency_p95_ms", 5.0, 0.047), ("memory_mb", 60.0, 41.4),
              ("agreement", 0.99, None), ("accuracy_drop_points", 1.0, 0.5)]  # fmt: skip
    run["budgets"] = [
        {"measure": name, "target": "tflite-int8", "device": "-", "limit": limit, "value": value,
         "verdict": "pass", "reason": ""} for name, limit, value in limits
    ]  # fmt: skip
    gates = run["artifacts"][8]["facts"]["files"][0]["gates"]
    gates += [{"name": "integer input and output", "measured": 1.0, "comparison": "==",
               "limit": 1, "unit": "", "passed": True}]  # fmt: skip
    state = {"memory_available_bytes": 22_240_186_368, "virtualized": True, "loadavg": [6.4897461]}
    for report in run["artifacts"][9]["facts"]["reports"]:
        report["state_before"] = state
    rows = [[w for e in row for w in [" ".join("".join(e.itertext()).split())] if w]
            for row in elements(render(build(**run)), f"{H}tr")]  # fmt: skip
    assert ["size", "tflite-int8", "–", "100.0 kB", "51.4 kB", "pass"] in rows
    assert ["latency p95", "tflite-int8", "–", "5.00 ms", "47.0 µs", "pass"] in rows
    assert ["memory", "tflite-int8", "–", "60.00 MB", "41.40 MB", "pass"] in rows
    assert ["agreement", "tflite-int8", "–", "99 %", "–", "pass"] in rows
    assert ["accuracy drop", "tflite-int8", "–", "1 points", "0.5 points", "pass"] in rows
    gates_row = next(row for row in rows if row[0] == "integer input and output")
    assert gates_row[1] == "✓ yes= yes"
    words = text(render(build(**run)))
    assert "memory available22.24 GB" in words and "virtualizedyes" in words
    assert "loadavg6.49" in words


def test_no_two_files_have_the_same_mark(run: Report) -> None:
    marks = [trace["marker"]["symbol"] for trace in _figures.every(build(**run))["pareto-0"]["data"]
             if trace["mode"] == "markers"]  # fmt: skip
    assert len(marks) == len(set(marks)) == 2


def next_rows(run: Report, **sections: Any) -> dict[str, tuple[str, str]]:
    run["run"] = "quickstart-1"
    for artifact in run["artifacts"]:
        artifact["section"] = sections.get(artifact["step"], {})
    return {
        row["limit"]: (row["says"].replace("\u202f", " "), row["command"])
        for row in build(**run)["next"]
    }


def test_what_to_do_next_is_computed(run: Report) -> None:
    recipe = load("quickstart")
    sections = {s: recipe.model_dump(mode="json")[s] for s in ("teacher", "distill", "prune",
                                                                "quantize")}  # fmt: skip
    found = next_rows(run, **sections)
    assert list(found) == ["accuracy", "latency", "size"]
    assert found["accuracy"][0].startswith("No step lost more than 200 test images can show")
    assert found["accuracy"][1] == (
        "edgeres run runs/quickstart-1/recipe.lock.yaml --set teacher.train.epochs=24"
    )
    assert found["latency"][0].startswith("47.3 µs on host")
    assert found["size"][0].startswith("57.9 kB")
    for _, command in found.values():  # each is one that the recipe takes
        words = shlex.split(command)
        changes = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
        assert load("quickstart", changes) != recipe
    labels = run["dataset"]["labels"]
    run["artifacts"][3]["predictions"] = [(y + (i < 40)) % 4 for i, y in enumerate(labels)]
    run["artifacts"][3]["facts"]["test"]["correct"] = len(labels) - 40
    found = next_rows(run, **sections)
    assert found["accuracy"][0].startswith("Pruned lost most: −16.0 points")
    assert "--set prune.train.epochs=6" in found["accuracy"][1]
    for report in run["artifacts"][9]["facts"]["reports"]:
        report |= {"valid": False, "reasons": ["it was busy"]}
    found = next_rows(run, **sections)
    assert "No valid figure on host: it was busy." in found["latency"][0]
    assert found["latency"][1] == "edgeres benchmark runs/quickstart-1 --device host"
    run["artifacts"] = [a for a in run["artifacts"] if a["step"] != "benchmark"]
    assert next_rows(run, **sections)["latency"][0] == "It was not measured."
    assert "What to do next" in text(render(build(**run)))
    run["artifacts"] = run["artifacts"][:3]
    assert next_rows(run, **sections) == {}


def test_hostile_texts_stay_text(run: Report) -> None:
    run = hostile(run)
    page = render(build(**run))
    tree = parsed(page)
    assert not list(tree.iter(f"{S}script")) and not list(tree.iter(f"{S}img"))
    assert len(list(tree.iter(f"{H}script"))) == 3  # the figures' data, plotly.js, our own
    assert {e.get("src") for e in tree.iter() if e.get("src")} == {PIXEL}
    for element in tree.iter():
        assert not [a for a in element.attrib if str(a).startswith("on") or a == "style"]
    data = next(e.text for e in tree.iter(f"{H}script") if e.get("id") == "plots")
    assert data is not None and "<" not in data
    for figure in json.loads(data).values():  # Plotly would read tags and %{…} in names
        assert "<script>" not in json.dumps(figure)
    assert text(page).count("<script>alert(1)</script>") > 20
    for character in "\u202e\x00\x1b\ud800":
        assert character not in page


def test_nothing_is_loaded_and_the_policy_says_so(report: Report) -> None:
    page = render(report)
    ours = re.sub(r"sha256-[\w+/=]+", "", page.replace(html._scripts()[1], "").replace(PIXEL, ""))
    assert not re.search(r"https?:|//|@import|url\(", ours)
    assert len(html.render(report)) < 2_000_000
    hrefs = [a.get("href") for a in elements(page, f"{H}a")]
    assert all(href and href.startswith("#") for href in hrefs)
    policy = next(m.get("content") for m in elements(page, f"{H}meta") if m.get("http-equiv"))
    assert policy is not None
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'" and rules["img-src"] == "data:"
    assert re.fullmatch(r"'sha256-\S+' 'sha256-\S+'", rules["script-src"])  # no eval, none inline
    assert "connect-src" not in rules


def test_every_chart_has_a_name_and_every_id_is_unique(report: Report) -> None:
    page = render(report)
    charts = [s for s in elements(page, f"{S}svg") if s.get("role") == "img"]
    # ladder, scatter, sizes, boxes; a curve per network; reliability of the first and the last
    assert len(charts) == 4 + 4 + 2
    ids = [e.get("id") for e in parsed(page).iter() if e.get("id")]
    assert len(ids) == len(set(ids))
    for chart in charts:
        labels = (chart.get("aria-labelledby") or "").split()
        assert set(labels) <= set(ids)
        assert all((chart.find(f"{S}{n}").text or "").strip()  # type: ignore[union-attr]
                   for n in ("title", "desc"))  # fmt: skip


def test_tables_have_captions_and_scopes(report: Report) -> None:
    page = render(report)
    tables = list(elements(page, f"{H}table"))
    assert len(tables) == 8
    for found in tables:
        assert found.find(f"{H}caption") is not None
        assert all(th.get("scope") in ("col", "row") for th in found.iter(f"{H}th"))
        widths = {len(list(row)) for row in found.iter(f"{H}tr")}
        assert len(widths) == 1


def test_headings_go_down_one_level_at_a_time(report: Report) -> None:
    order = [int(e.tag[-1]) for e in parsed(render(report)).iter()
             if re.fullmatch(r"\{.*\}h[1-6]", str(e.tag))]  # fmt: skip
    assert order[0] == order.count(1) == 1
    tiles = order.index(2)
    assert all(b - a <= 1 for a, b in zip(order[tiles:], order[tiles + 1 :], strict=False))


def test_an_emulated_measurement_shows_no_time(run: Report) -> None:
    benchmark = next(a for a in run["artifacts"] if a["step"] == "benchmark")
    for found in benchmark["facts"]["reports"]:
        found |= {"emulated": True, "reasons": ["qemu"]}
    words = text(render(build(**run)))
    assert "emulated" in words
    assert "no latency" in words
    assert "47.3" not in words
    assert "whose times mean nothing" in words


def test_an_invalid_measurement_is_struck_through_with_its_reason(run: Report) -> None:
    benchmark = next(a for a in run["artifacts"] if a["step"] == "benchmark")
    benchmark["facts"]["reports"][1] |= {"valid": False, "reasons": ["clock was throttled"]}
    page = render(build(**run))
    cells = [td for td in elements(page, f"{H}td") if "doubtful" in (td.get("class") or "")]
    assert "47.3" in "".join(cells[0].itertext())
    assert "clock was throttled" in text(page)
    assert "tflite-int8 (invalid)" in text(page)


def test_failed_gates_are_marked(run: Report) -> None:
    verify = next(a for a in run["artifacts"] if a["step"] == "verify")
    row = verify["facts"]["files"][1]
    row["passed"] = row["gates"][0]["passed"] = False
    row["gates"][0]["measured"] = float("nan")
    page = render(build(**run))
    assert "do not ship tflite-int8" in text(page)
    assert "not a number" in text(page)
    assert [e.get("aria-label") for e in elements(page, f"{H}span") if e.get("role")].count(
        "failed") == 1  # fmt: skip


def test_a_loss_that_was_not_finite_leaves_a_gap(run: Report) -> None:
    teacher = next(a for a in run["artifacts"] if a["step"] == "teacher")
    rows = [{"epoch": e, "loss": float("nan") if e in (3, 6) else 1.0, "validation_top1": 0.5}
            for e in range(1, 7)]  # fmt: skip
    teacher["history"] = rows
    page = render(build(**run))
    chart = next(s for s in elements(page, f"{S}svg") if "curve-teacher" in
                 (s.get("aria-labelledby") or ""))  # fmt: skip
    lines = [len((p.get("points") or "").split()) for p in chart.iter(f"{S}polyline")]
    assert lines == [6, 2, 2]
    assert "not finite" in text(page)


@pytest.mark.parametrize(("steps", "expected"), [
    ((), ["data", "recipe"]),
    (("teacher",), ["ladder", "training"]),
    (("teacher", "prune", "export:tflite-fp32"), ["ladder", "tradeoff", "files", "verification"]),
    (("benchmark",), ["tradeoff", "files"]),
    (("verify",), ["verification"]),
])  # fmt: skip
def test_parts_of_a_run_make_a_page(
    run: Report, steps: tuple[str, ...], expected: list[str]
) -> None:
    run["artifacts"] = [a for a in run["artifacts"] if a["step"] in steps]
    page = render(build(**run))
    assert set(expected) <= set(sections(page))
    assert text(page)


def test_nothing_at_all_still_is_a_page() -> None:
    page = render(build([], title="", recipe_yaml="", environment={}, dataset={}))
    assert sections(page) == []
    assert "no network and no file" in text(page)


def test_a_thousand_classes_show_the_worst_twenty(run: Report) -> None:
    run["dataset"]["classes"] = [f"class {i}" for i in range(1000)]
    page = render(build(**run))
    found = next(
        t for t in elements(page, f"{H}table") if "per class" in (t.find(f"{H}caption").text or "")
    )  # type: ignore[union-attr]
    assert len(list(found.iter(f"{H}tr"))) == 1 + 20
    assert "Only the classes with the lowest accuracy" in text(page)


def test_far_apart_latencies_are_drawn_on_a_logarithmic_axis(run: Report) -> None:
    benchmark = next(a for a in run["artifacts"] if a["step"] == "benchmark")
    latency = benchmark["facts"]["reports"][0]["latency"]
    latency |= {"median_ns": 9_840_000, "median_ci_ns": [9_800_000, 9_900_000]}
    assert ", log →" in text(render(build(**run)))


def test_confusion_calibration_and_maps_are_told(report: Report) -> None:
    page = render(report)
    words = text(page)
    matrix = next(
        t
        for t in elements(page, f"{H}table")
        if "Answers of tflite-int8" in (t.find(f"{H}caption").text or "")
    )  # type: ignore[union-attr]
    rows = [["".join(c.itertext()) for c in row] for row in matrix.iter(f"{H}tr")]
    assert rows[1] == ["zero", "46", "4", "·", "·"]
    assert "QAT ECE 8.3 %" in words  # QAT: 188 right at 0.95, 12 wrong at 0.6
    assert "The teacher and the int8 network answer differently to 8 of 200 test images" in words
    assert "✗ two, 70 %" in words and "straight-through" in words
    assert "not measurable" in words


def test_plots_are_the_ones_that_the_page_has_places_for(run: Report) -> None:
    for steps in ([a["step"] for a in run["artifacts"]], ["benchmark"], ["teacher"], []):
        part = run | {"artifacts": [a for a in run["artifacts"] if a["step"] in steps]}
        page = render(build(**part))
        places = set(re.findall(r'id="plot-([^"]*)"', page))
        data = re.search(r'type="application/json" id="plots">(.*?)</script>', page)
        assert places == (set(json.loads(data[1])) if data else set())


def test_markup_escapes_everything_that_is_not_markup() -> None:
    assert tag("td", "<b>", 3, None, tag("i", "&"), title='"') == (
        '<td title="&quot;">&lt;b&gt;3<i>&amp;</i></td>')  # fmt: skip
    assert join("<", Markup("<br>")) == "&lt;<br>"
    assert escape("a\x00\r\n\u2066b") == "a\ufffd\n\ufffdb"
    assert tag("p", class_="x", aria_label=None, hidden=True) == '<p class="x" hidden></p>'

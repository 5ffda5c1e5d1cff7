"""report.html: valid, escaped, self-contained, and honest about what wasn't measured."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from xml.etree.ElementTree import Element

import html5lib
import pytest

from edgeres.reporting._markup import Markup, escape, join, tag
from edgeres.reporting.html import render
from edgeres.reporting.ladder import build

Report = dict[str, Any]
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;\u202e\x00\x1b[31m\ud800"
H = "{http://www.w3.org/1999/xhtml}"
S = "{http://www.w3.org/2000/svg}"


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
    assert sections(page) == ["ladder", "tradeoff", "files", "verification", "training", "data",
                              "environment", "recipe"]  # fmt: skip
    assert parsed(page).get("lang") == "en"
    assert report["headline"].replace("\u202f", " ").replace("\u00a0", " ")[:60] in text(page)


def test_a_report_read_back_from_json_looks_the_same(report: Report) -> None:
    assert render(json.loads(json.dumps(report))) == render(report)


def test_hostile_texts_stay_text(run: Report) -> None:
    run = hostile(run)
    page = render(build(**run))
    names = {element.tag for element in parsed(page).iter()}
    assert not names & {f"{H}script", f"{H}img", f"{S}script", f"{S}img"}
    for element in parsed(page).iter():
        assert not [a for a in element.attrib if str(a).startswith("on") or a in ("src", "style")]
    assert text(page).count("<script>alert(1)</script>") > 20
    for character in "\u202e\x00\x1b\ud800":
        assert character not in page


def test_nothing_is_loaded_and_the_policy_says_so(report: Report) -> None:
    page = render(report)
    assert not re.search(r"https?:|//|@import|url\(", page)
    assert "<script" not in page
    hrefs = [a.get("href") for a in elements(page, f"{H}a")]
    assert all(href and href.startswith("#") for href in hrefs)
    policy = next(m.get("content") for m in elements(page, f"{H}meta") if m.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'sha256-")


def test_every_chart_has_a_name_and_every_id_is_unique(report: Report) -> None:
    page = render(report)
    charts = [s for s in elements(page, f"{S}svg") if s.get("role") == "img"]
    assert len(charts) == 3 + 4  # ladder, scatter, sizes, and a curve per network
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
    assert len(tables) == 6
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
    assert "logarithmic" in text(render(build(**run)))


def test_markup_escapes_everything_that_is_not_markup() -> None:
    assert tag("td", "<b>", 3, None, tag("i", "&"), title='"') == (
        '<td title="&quot;">&lt;b&gt;3<i>&amp;</i></td>')  # fmt: skip
    assert join("<", Markup("<br>")) == "&lt;<br>"
    assert escape("a\x00\r\n\u2066b") == "a\ufffd\n\ufffdb"
    assert tag("p", class_="x", aria_label=None, hidden=True) == '<p class="x" hidden></p>'

"""`compare --html`: the figures, escaped, in a page where no label hides another."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reporting.test_browser import CHROMIUM, chromium

from edgeres.commands import compare
from edgeres.commands.compare import require_page
from edgeres.errors import BadInput
from edgeres.measurement.compare import Tolerance
from edgeres.reporting import comparison

N = 600
browser = pytest.mark.skipif(CHROMIUM is None, reason="no `chromium` on this system's PATH")
# Which words of a drawing overlap others, and what is wider than the screen.
FRAME = """<!DOCTYPE html><title>frame</title><body style="margin:0">
<iframe id=f src="compare.html" style="width:{width}px;height:900px;border:0"></iframe>
<script>onload = () => {{
  const w = document.getElementById("f").contentWindow, d = w.document;
  const met = [], out = [];
  for (const chart of d.querySelectorAll("svg.chart")) {{
    const words = [...chart.querySelectorAll("text")]
      .map(e => [e.textContent, e.getBoundingClientRect()]);
    const box = chart.closest("figure").getBoundingClientRect();
    out.push(...words.filter(([, p]) => p.left < box.left || p.right > box.right).map(w => w[0]));
    words.forEach(([a, p], i) => words.slice(i + 1).forEach(([b, q]) => {{
      if (p.left < q.right && q.left < p.right && p.top < q.bottom - 3 && q.top < p.bottom - 3)
        met.push([a, b]);
    }}));
  }}
  const wide = [...d.querySelectorAll("section, figure, .scroll, svg.chart, p, h1, dl")]
    .filter(e => e.getBoundingClientRect().right > {width} + 0.5).map(e => e.tagName);
  document.title = JSON.stringify([d.documentElement.scrollWidth, wide, met, out,
    d.querySelectorAll("svg.chart").length, w.performance.getEntriesByType("resource").length]);
}}</script>"""


def result(name: str, factor: float, wrong: int, valid: bool = True, **more: Any) -> dict[str, Any]:
    """A result of three files on this machine, `factor` as slow."""
    medians = [factor * ns for ns in (1.00e6, 1.02e6, 0.97e6, 1.08e6, 1.01e6, 0.99e6)]
    right = np.arange(N) >= wrong
    common = {
        "device": "host", "valid": valid, "reasons": [] if valid else ["the device was busy"],
        "accuracy": {"correct": int(right.sum()), "n": N, "samples": "same",
                     "right": np.packbits(right).tobytes().hex()},
        "memory": {"peak_rss_bytes": 46_000_000 * factor},
    }  # fmt: skip
    return {"reports": [
        {**common, "target": target, "size_bytes": int(50_000 * factor),
         "latency": {"median_ns": scale * medians[2], "sessions": 6, "n": 6000,
                     "median_ci_ns": [scale * min(medians), scale * max(medians)],
                     "session_medians_ns": [scale * ns for ns in medians]}, **more}
        for target, scale in (("tflite-fp32", 3.0), ("tflite-int8", 1.0), ("onnx-int8", 1.02))
    ]}  # fmt: skip


@pytest.fixture
def page(tmp_path: Path) -> Path:
    for name, found in (
        ("main.json", result("main", 1.0, 12)), ("quicker.json", result("b", 0.5, 12)),
        ("worse-and-with-a-very-long-name-0c91d25e3f80.json", result("c", 1.6, 60)),
    ):  # fmt: skip
        (tmp_path / name).write_text(json.dumps(found))
    names = sorted(map(str, tmp_path.glob("*.json")))
    done = subprocess.run(
        [sys.executable, "-m", "edgeres", "compare", *names, "--html", tmp_path / "compare.html"],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1 and not done.stderr, done.stderr
    assert f"B is better (A {names[0]}, B {names[1]})" in done.stdout
    assert f"B is worse (A {names[0]}, B {names[2]})" in done.stdout
    return tmp_path / "compare.html"


def words(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))


def test_it_says_what_was_found(page: Path) -> None:
    text = words(page.read_text("utf-8"))
    long = "worse-and-with-a-very-long-name-0c91d25e3f80.json"
    assert f"quicker.json is better than main.json. {long} is worse than main.json." in text
    assert "98.00 % 90.00 % −8.0 points −10.2 to −5.8 worse" in text
    assert "McNemar p = 7.1e-15: 48 lost, 0 won of 600" in text
    assert "0.50× (0.47–0.54)" in text
    assert "main.json tflite-int8: 98.0 % (96.5–98.9 %), n=600" in text
    assert "1 main.json, 2 quicker.json, 3 worse-and" in text


def test_names_are_text_and_told_apart(tmp_path: Path) -> None:
    ugly = "<img src=x onerror=alert(1)>"
    paths = [tmp_path / "old" / "r.json", tmp_path / "new" / "r.json"]
    for path in paths:
        path.parent.mkdir()
        path.write_text(json.dumps(result("r", 1.0, 3, valid=False, device=ugly)))
    found = compare.compared([*map(str, paths)], Tolerance(), ["host"], "quick", tmp_path, True)
    text = comparison.render([found])
    assert "<img" not in text and "&lt;img src=x" in text and "<script" not in text
    assert "Not all of new/r.json can be judged against old/r.json." in words(text)
    assert "--allow-invalid judges invalid measurements all the same" in text


@browser
@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1280])
def test_no_label_hides_another(tmp_path: Path, page: Path, width: int) -> None:
    frame = page.with_name("frame.html")
    frame.write_text(FRAME.format(width=width), "utf-8")
    done = chromium(tmp_path, frame, "--allow-file-access-from-files", "--dump-dom",
                    "--virtual-time-budget=2000", "--window-size=1400,1000")  # fmt: skip
    assert "CONSOLE" not in done.stderr
    title = re.search(r"<title>(.*?)</title>", done.stdout)
    assert title is not None and json.loads(title[1]) == [width, [], [], [], 4, 0]


def test_a_page_that_cannot_be_is_said_before_anything_is_measured(tmp_path: Path) -> None:
    one = tmp_path / "a.json"
    one.write_text("{}")
    for wrong, said in ((tmp_path, "no file in a folder"), (tmp_path / "no" / "p.html", "no file"),
                        (one, "that is what is compared")):  # fmt: skip
        with pytest.raises(BadInput, match=said):
            require_page(wrong, [str(one), "some-run", None])
    require_page(tmp_path / "page.html", [str(one)])

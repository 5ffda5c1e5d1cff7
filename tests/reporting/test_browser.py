"""report.html in a real browser: it fits, has both themes, prints, loads nothing, logs nothing."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from edgeres.reporting.html import render
from edgeres.reporting.ladder import build

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no `chromium` on this system's PATH"),
]
# A page that tells what a browser made of the report in a frame of a phone's width. The policy of
# the report forbids foreign scripts, this page's doesn't.
FRAME = """<!DOCTYPE html><title>frame</title><body style="margin:0">
<iframe id=f src="report.html" style="width:{width}px;height:900px;border:0"></iframe>
<script>onload = async () => {{
  const w = document.getElementById("f").contentWindow, d = w.document;
  const found = [...d.querySelectorAll("section, figure, .tile, .scroll, svg.chart, pre, p, h1")];
  const wide = found.filter(e => e.getBoundingClientRect().right > {width} + 0.5);
  document.title = JSON.stringify([
    d.documentElement.scrollWidth, wide.map(e => e.tagName + e.className),
    d.querySelectorAll("section").length, w.getComputedStyle(d.querySelector(".tiles")).display,
    w.performance.getEntriesByType("resource").length,
    [...d.querySelectorAll(".plot")].filter(e => e.querySelector(".trace")).length]);
}}</script>"""


def chromium(tmp_path: Path, page: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    assert CHROMIUM is not None
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
         "--no-first-run", "--disable-background-networking", "--disable-component-update",
         "--disable-sync", "--disable-extensions", "--hide-scrollbars", "--enable-logging=stderr",
         "--v=0", f"--user-data-dir={tmp_path / 'profile'}", *flags, page.as_uri()],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done


@pytest.fixture
def page(tmp_path: Path, report: dict[str, Any]) -> Path:
    path = tmp_path / "report.html"
    path.write_text(render(report), "utf-8")
    return path


def in_frame(tmp_path: Path, page: Path, width: int) -> str:
    """`[width, too wide elements, sections, display of the tiles, files loaded, plots]`."""
    frame = page.with_name("frame.html")
    frame.write_text(FRAME.format(width=width), "utf-8")
    done = chromium(tmp_path, frame, "--allow-file-access-from-files", "--dump-dom",
                    "--virtual-time-budget=2000", "--window-size=1400,1000")  # fmt: skip
    assert "CONSOLE" not in done.stderr
    title = re.search(r"<title>(.*?)</title>", done.stdout)
    assert title is not None
    return title[1]


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_screen(tmp_path: Path, page: Path, width: int) -> None:
    assert in_frame(tmp_path, page, width) == f'[{width},[],12,"grid",0,5]'


def test_long_names_do_not_widen_a_phones_page(
    tmp_path: Path, page: Path, run: dict[str, Any]
) -> None:
    long = json.dumps(run).replace("tflite", "x" * 150).replace('"host"', f'"{"device" * 30}"')
    long = long.replace("resnet20", "resnet" * 30).replace("quickstart", "quick" * 30)
    page.write_text(render(build(**json.loads(long))), "utf-8")
    assert in_frame(tmp_path, page, 375) == '[375,[],12,"grid",0,5]'


def test_what_a_page_would_load_is_seen_and_stopped(tmp_path: Path, page: Path) -> None:
    spoiled = page.read_text("utf-8").replace("<main", '<script>x()</script><img src="a.png"><main')
    page.write_text(spoiled, "utf-8")
    done = chromium(tmp_path, page, "--dump-dom")
    assert done.stderr.count("CONSOLE") >= 2
    assert "Content Security Policy" in done.stderr


@pytest.mark.parametrize(("scheme", "bright"), [(1, True), (0, False)])
def test_both_themes(tmp_path: Path, page: Path, scheme: int, bright: bool) -> None:
    shot = tmp_path / "shot.png"
    done = chromium(tmp_path, page, f"--blink-settings=preferredColorScheme={scheme}",
                    f"--screenshot={shot}", "--window-size=1280,1600")  # fmt: skip
    pixels = np.asarray(Image.open(shot).convert("L"))
    assert (np.median(pixels) > 200) == bright
    assert (np.median(pixels) < 60) != bright
    assert pixels.std() > 10
    assert "CONSOLE" not in done.stderr


def test_each_plot_is_saved_in_three_formats(
    tmp_path: Path, page: Path, run: dict[str, Any]
) -> None:
    named = json.dumps(run).replace('"tflite-fp32"', '"=tflite \\"fp32\\" <b>"')
    page.write_text(render(build(**json.loads(named))), "utf-8")
    frame = page.with_name("frame.html")
    frame.write_text(
        """<!DOCTYPE html><title>frame</title><iframe id=f src="report.html"
      style="width:900px;height:900px"></iframe><script>onload = () => {
      const w = document.getElementById("f").contentWindow, d = w.document, links = [];
      w.HTMLAnchorElement.prototype.click = function() { links.push([this.download, this.href]); };
      const bars = [...d.querySelectorAll(".saves")];
      const plots = d.querySelectorAll(".plot").length;
      bars[0].querySelectorAll("button")[2].click();
      document.title = btoa(JSON.stringify([plots, bars.map(b => b.textContent), ...links]));
    }</script>""",
        "utf-8",
    )
    done = chromium(tmp_path, frame, "--allow-file-access-from-files", "--dump-dom",
                    "--virtual-time-budget=2000")  # fmt: skip
    title = re.search(r"<title>(.*?)</title>", done.stdout)
    assert title is not None
    plots, bars, (name, href) = json.loads(base64.b64decode(title[1]))
    assert bars == ["Save asPNGSVGCSV"] * plots and name == "pareto-0.csv"
    table = list(csv.DictReader(io.StringIO(unquote(href.partition(",")[2]))))
    rows = {row["series"]: row for row in table}
    assert set(rows) == {"Pareto front", '\'=tflite "fp32" <b>', "tflite-int8"}
    row = rows["tflite-int8"]
    assert float(row["x_low"]) < float(row["x"]) == 47.3 < float(row["x_high"])


def test_it_prints(tmp_path: Path, page: Path) -> None:
    pdf = tmp_path / "report.pdf"
    chromium(tmp_path, page, f"--print-to-pdf={pdf}", "--no-pdf-header-footer")
    pages = pdf.read_bytes().count(b"/Type /Page\n")
    assert 2 <= pages <= 12

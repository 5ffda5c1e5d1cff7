"""Drawings as files: valid SVG that no program needs a browser's style sheet for."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from edgeres.reporting import drawings
from edgeres.reporting.ladder import build

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
LAYERS = [
    {"name": name, "kind": "CONV_2D", "role": "conv", "shape": [1, 8, 8, 4], "inputs": [before],
     "output": name, "constant_bytes": size, "floating": False}
    for name, before, size in (("first", "image", 900), ("second", "first", 300))
]  # fmt: skip


@pytest.fixture
def drawn(run: dict[str, Any]) -> dict[str, str]:
    export = next(a for a in run["artifacts"] if a["step"] == "export:tflite-int8")
    export["facts"]["graph"] = {"layers": LAYERS, "integer_share": {"macs": 1.0},
                                "float_operators": [], "requires": None}  # fmt: skip
    return drawings.every(build(**run))


def test_everything_drawn_is_a_file(drawn: dict[str, str]) -> None:
    assert set(drawn) == {
        "ladder.svg", "accuracy-latency-host.svg", "sizes.svg", "latency-host.svg",
        "training-teacher.svg", "training-distill.svg", "training-prune.svg",
        "training-quantize.svg", "calibration-teacher.svg", "calibration-quantize.svg",
        "inside-tflite-int8.svg", "layers-tflite-int8.svg",
    }  # fmt: skip
    for name, text in drawn.items():
        root = ElementTree.fromstring(text)
        assert root.tag == "{http://www.w3.org/2000/svg}svg", name
        assert float(root.attrib["height"]) > 100
        style = root.findtext("{http://www.w3.org/2000/svg}style") or ""
        assert "var(" not in style and "--" not in style
        # each shape's colour is in a rule: none is left black because a variable went missing
        used = {c for e in root.iter() for c in e.get("class", "").split()}
        for kind in used & {"marker", "whisker", "curve", "bar", "box", "thick", "open"}:
            assert re.search(rf"\.{kind}\b[^{{]*\{{[^}}]*#[0-9a-f]{{6}}", style), (name, kind)


def test_names_from_elsewhere_become_plain_file_names(run: dict[str, Any]) -> None:
    hostile = json.loads(json.dumps(run).replace('"host"', '"../../<x>&\\u202e"'))
    files = drawings.every(build(**hostile))
    assert len(files) == 10
    for name, text in files.items():
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*\.svg", name)
        ElementTree.fromstring(text)


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no `chromium` on this system's PATH")
def test_a_drawing_by_itself_is_in_colour(tmp_path: Path, drawn: dict[str, str]) -> None:
    (tmp_path / "sizes.svg").write_text(drawn["sizes.svg"], "utf-8")
    assert CHROMIUM is not None
    subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
         f"--user-data-dir={tmp_path / 'profile'}", "--window-size=760,400",
         f"--screenshot={tmp_path / 'shot.png'}", (tmp_path / "sizes.svg").as_uri()],
        capture_output=True, timeout=120, check=True,
    )  # fmt: skip
    pixels = np.asarray(Image.open(tmp_path / "shot.png").convert("RGB")).reshape(-1, 3)
    colours = {tuple(c) for c in np.unique(pixels, axis=0).tolist()}
    assert (0x0B, 0x6E, 0x75) in colours  # the int8 files' bars
    assert (0xFF, 0xFF, 0xFF) in colours  # the ground

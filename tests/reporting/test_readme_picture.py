"""README's picture: the commands' own words, in an SVG that loads nothing."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[2]
SVG = "{http://www.w3.org/2000/svg}"


def test_it_is_what_the_commands_printed() -> None:
    spec = importlib.util.spec_from_file_location(
        "readme_picture", ROOT / "benchmarks" / "readme_picture.py"
    )
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    path = ROOT / "docs" / "proof.svg"
    assert path.stat().st_size <= 60_000
    text = path.read_text("utf-8")
    root = ElementTree.fromstring(text)
    assert "href" not in text and "url(" not in text and "<script" not in text
    words = [node.text or "" for node in root.iter(f"{SVG}text")]
    starts = [i for i, line in enumerate(words) if line.startswith("$ edgeres ")]
    parts = [(words[i][2:], words[i + 1 : end])
             for i, end in zip(starts, [*starts[1:], len(words)], strict=True)]  # fmt: skip
    assert [command for command, _ in parts] == [f"edgeres {' '.join(c)}" for c in script._COMMANDS]
    assert script.drawn(root.findtext(f"{SVG}title"), parts) == text
    width = float(root.attrib["width"])
    assert all(18 + float(n.attrib["textLength"]) <= width for n in root.iter(f"{SVG}text"))
    assert re.fullmatch(r"(\d+) of \1 planted faults caught", words[-1])
    ugly = script.drawn("<t>", [("edgeres x", ["<a>", "b & \x1b[2J"])])
    assert "<a>" not in ugly and "\x1b" not in ugly and ElementTree.fromstring(ugly)
    assert f"({path.relative_to(ROOT)})" in (ROOT / "README.md").read_text("utf-8")[:1500]

"""README's picture: what the proof's commands print about a run, as a terminal in SVG.

    .venv/bin/python benchmarks/readme_picture.py RUN [--runs runs] [--out docs/proof.svg]

Every character comes from the commands; nothing is typed here but them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from edgeres.reporting._markup import Markup, tag

_COMMANDS = (("verify",), ("verify", "--self-test"))
_ADVANCE, _LINE, _EDGE = 7.2, 18, 18  # px: a character, a line, the margin
_STYLE = """
.ground { fill: #121518; }
text { font: 12px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; fill: #e8eaed;
  white-space: pre; }
.prompt { fill: #4fc1c4; font-weight: 700; }
.head { fill: #a3adb8; }
.last { fill: #7fd6a0; font-weight: 700; }
"""


def drawn(title: str, parts: Sequence[tuple[str, Sequence[str]]]) -> str:
    """An SVG document of commands and the lines that each printed; the last one stands out."""
    rows: list[tuple[str, str]] = []
    for command, lines in parts:
        if rows:
            rows.append(("", ""))
        head, *rest = lines
        rows += [("prompt", f"$ {command}"), ("head", head), *(("", line) for line in rest)]
    rows[-1] = ("last", rows[-1][1])
    texts = [
        tag("text", words, x=_EDGE, y=f"{_EDGE + _LINE * (i + 0.7):g}", class_=kind or None,
            textLength=f"{_ADVANCE * len(words):g}", **{"xml:space": "preserve"})
        for i, (kind, words) in enumerate(rows) if words.strip()
    ]  # fmt: skip
    width = 2 * _EDGE + _ADVANCE * max(len(words) for _, words in rows)
    height = 2 * _EDGE + _LINE * len(rows)
    document = tag(
        "svg", tag("title", title), tag("style", Markup(_STYLE)),
        tag("rect", width="100%", height="100%", rx=10, class_="ground"), *texts,
        xmlns="http://www.w3.org/2000/svg", width=f"{width:g}", height=height,
    )  # fmt: skip
    box = f'viewBox="0 0 {width:g} {height:g}"'  # `tag` would write the name in its own way
    return document.replace("<svg ", f"<svg {box} ", 1) + "\n"


def main() -> None:
    """Ask the commands and write the picture."""
    parser = argparse.ArgumentParser(description="README's picture")
    parser.add_argument("run")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--out", type=Path, default=Path("docs/proof.svg"))
    given = parser.parse_args()
    parts = []
    for words in _COMMANDS:
        done = subprocess.run(
            [sys.executable, "-m", "edgeres", *words, given.run, "--runs", given.runs],
            check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        parts.append((f"edgeres {' '.join(words)}", done.stdout.rstrip().splitlines()))
    title = f"edgeres verify and edgeres verify --self-test of the run {given.run}"
    given.out.write_text(drawn(title, parts), "utf-8")


if __name__ == "__main__":
    main()

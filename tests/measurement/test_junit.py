"""JUnit XML of check and verify, and the templates that use it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, parse

import pytest
from beds.bundles import zipped

from edgeres.commands import junit
from edgeres.text import files as text

HOSTILE = '<a>"&\x00\x1b[2J\ud800\u202e]]>'


def cases(path: Path) -> dict[tuple[str, str], Element]:
    root = parse(path).getroot()
    found = {(c.attrib["classname"], c.attrib["name"]): c for c in root.iter("testcase")}
    failed = sum(c.find("failure") is not None for c in found.values())
    skipped = sum(c.find("skipped") is not None for c in found.values())
    for element in (root, root[0]):
        assert element.attrib["tests"] == str(len(found))
        assert (element.attrib["failures"], element.attrib["skipped"]) == (
            str(failed), str(skipped)
        )  # fmt: skip
    return found


def edgeres(*argv: str | Path) -> int:
    done = subprocess.run([sys.executable, "-m", "edgeres", *argv], check=False,
                          capture_output=True, text=True)  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode


def message(case: Element, kind: str = "failure") -> str:
    found = case.find(kind)
    assert found is not None
    return found.attrib["message"]


def test_a_limit_and_a_gate_are_cases(stored_run: Path, tmp_path: Path) -> None:
    limits, result = tmp_path / "budgets.yaml", tmp_path / "result.json"
    limits.write_text("budgets: [{target: a, size_kb: 1}, {size_kb: 9}, {target: b, agreement: 1}]")
    result.write_text(json.dumps({"reports": [
        {"device": "host", "target": name, "size_bytes": 2000, "accuracy": None, "valid": True,
         "latency": {"median_ns": 1e6, "sessions": 1, "session_medians_ns": [1e6]}} for name in "ab"
    ]}))  # fmt: skip
    out = tmp_path / "new" / "check.xml"
    assert edgeres("check", result, limits, "--junit", out) == 1
    found = cases(out)
    failed = {case: message(c) for case, c in found.items() if c.find("failure") is not None}
    assert failed[("a on host", "size_kb, limit 1")] == "fail: 2"
    (why,) = (said for (_, name), said in failed.items() if name == "agreement, limit 1")
    assert why.startswith("not measurable: not measured")
    assert ("b on host", "size_kb, limit 9") in found.keys() - failed.keys()
    status = edgeres("verify", stored_run, "--junit", out, "-q")
    found = cases(out)
    missed = [message(case) for case in found.values() if case.find("failure") is not None]
    assert status == bool(missed) and all(", needs " in said for said in missed)
    assert found[("onnx-int8", "float operators")].find("failure") is None
    assert edgeres("verify", stored_run, "--self-test", "--junit", out) == 2


@pytest.mark.usefixtures("own_config")
def test_a_bundle_and_its_findings_are_cases(good_bundle: dict[str, bytes], tmp_path: Path) -> None:
    zipped(good_bundle, tmp_path / "b.zip")
    assert edgeres("verify", tmp_path / "b.zip", "--junit", tmp_path / "b.xml") == 0
    assert {name for _, name in cases(tmp_path / "b.xml")} == {"whole", "golden test"}
    zipped({**good_bundle, "labels.txt": b"x"}, tmp_path / "b.zip")
    assert edgeres("verify", tmp_path / "b.zip", "--junit", tmp_path / "b.xml") == 1
    assert {name for _, name in cases(tmp_path / "b.xml")} == {"labels.txt was changed"}


def test_anybodys_text_is_text(tmp_path: Path) -> None:
    junit.write(tmp_path / "a.xml", HOSTILE, [junit.Case(HOSTILE, HOSTILE, HOSTILE)])
    ((group, name),) = cases(tmp_path / "a.xml")
    assert group == name and '<a>"&\\x00\\x1b[2J' in name and name.isprintable()
    row: dict[str, Any] = {"target": "a", "gates": [], "passed": True, "agreement": None}
    unrun = junit.verify({"files": [row], "unverified": []})
    assert [(c.name, c.state) for c in unrun if c.why] == [("answers", "skipped")]


def test_names_in_a_comment_are_inert() -> None:
    assert not re.search(r"[<>`@\[\]|*]", text._inert("<img> [a](b) `c` @team a|b *d*"))

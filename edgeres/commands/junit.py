"""JUnit XML of `check` and `verify`, for CI systems that show tests: a case per limit or gate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from xml.etree.ElementTree import Element, SubElement, tostring

from edgeres import terminal
from edgeres.disk import storage_errors, write_whole

if TYPE_CHECKING:
    from edgeres.records import Certified, Facts, Judged
    from edgeres.text.files import Checked, Verified


@dataclass(frozen=True)
class Case:
    """One test: whose it is, what it asks, and why it isn't passed ("" if it is)."""

    group: str
    name: str
    why: str = ""
    state: Literal["failure", "skipped"] = "failure"


def check(result: Checked) -> list[Case]:
    """A case per limit; what can't be measured fails, as it does for `edgeres check`."""
    return [_limit(row) for row in result["results"]]


def verify(result: Verified) -> list[Case]:
    """A case per gate of each file, and of each that can't be verified; a file that nothing here
    runs is skipped, too."""
    unverified = [Case(row["target"], "verified", row["why"]) for row in result["unverified"]]
    return [*(case for row in result["files"] for case in _file(row)), *unverified]


def bundle(result: Facts) -> list[Case]:
    """A case per finding, or the one that there is none; and the golden test."""
    found = [Case(result["name"], finding, finding) for finding in result["findings"]]
    if found:
        return found
    golden = result["golden"]
    unrun = "" if golden else "nothing here runs the model"
    return [Case(result["name"], "whole"), Case(result["name"], "golden test", unrun, "skipped")]


def write(path: Path, suite: str, cases: Sequence[Case]) -> None:
    """Write the file.

    Raises:
        StorageError: it can't be written.
    """
    failed = sum(bool(c.why) and c.state == "failure" for c in cases)
    skipped = sum(bool(c.why) and c.state == "skipped" for c in cases)
    counts = {"tests": str(len(cases)), "failures": str(failed), "skipped": str(skipped)}
    root = Element("testsuites", counts)
    inner = SubElement(root, "testsuite", {"name": terminal.escaped(suite), **counts})
    for case in cases:
        group, name, why = map(terminal.escaped, (case.group, case.name, case.why))
        element = SubElement(inner, "testcase", {"classname": group, "name": name})
        if why:
            SubElement(element, case.state, {"message": why})
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, tostring(root, "utf-8", xml_declaration=True))


def _limit(row: Judged) -> Case:
    group = row["target"] if row["device"] == "-" else f"{row['target']} on {row['device']}"
    name = f"{row['measure']}, limit {row['limit']:g}"
    if row["verdict"] == "pass":
        return Case(group, name)
    value = "not measured" if row["value"] is None else f"{row['value']:.6g}"
    why = f"{row['verdict']}: {value}"
    return Case(group, name, f"{why}: {row['reason']}" if row.get("reason") else why)


def _file(row: Certified) -> Iterator[Case]:
    if not row["gates"]:
        yield Case(row["target"], "verified", "" if row["passed"] else "failed without a gate")
    for gate in row["gates"]:
        sign = f"{gate['comparison']} {gate['limit']:g} {gate['unit']}".rstrip()
        why = "" if gate["passed"] else f"{gate['measured']:.6g}, needs {sign}"
        yield Case(row["target"], gate["name"], why)
    if row["agreement"] is None:
        yield Case(row["target"], "answers", "not run here: structure and scales only", "skipped")

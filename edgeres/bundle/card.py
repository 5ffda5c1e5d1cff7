"""The model card: a run's measured facts in, Markdown out. Nothing is in it that wasn't measured.

Its sections are those of Mitchell et al., "Model Cards for Model Reporting" (FAT* 2019), as far as
edgeres knows them; what only the author can say is left to be filled in.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from edgeres.artifact import Artifact
from edgeres.statistics import wilson
from edgeres.types import gate_of

if TYPE_CHECKING:
    from edgeres.records import Certified, Counted, Measured, Tensor

_RUNGS = ("teacher", "distill", "prune", "quantize")
_LONGEST = 200
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def text(run: str, artifacts: Mapping[str, Artifact], target: str, kind: str) -> str:
    """The card of one exported file."""
    return "\n".join(_lines(run, artifacts, target, kind)) + "\n"


def escaped(value: object) -> str:
    """Somebody's text on one line, as what it is: nothing in it is Markdown, HTML or a link."""
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(value))
    shown = shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 1]}…"
    shown = re.sub(r"[\\`*_{}\[\]()#+!|~:@$]", r"\\\g<0>", shown)
    shown = re.sub(r"(?i)(www)\.", r"\1\.", shown)
    return re.sub("[&<>]", lambda found: _ENTITIES[found[0]], shown)


def _lines(run: str, artifacts: Mapping[str, Artifact], target: str, kind: str) -> Iterator[str]:
    export, data = artifacts[f"export:{target}"], artifacts["data"]
    exported = export.facts["exported"]
    model = network(artifacts)
    yield from (
        f"# {escaped(exported['file'])}", "",
        f"An image classifier for {kind}, made by edgeres in the run {escaped(run)}.", "",
        "## Model", "",
        f"- network: {escaped(model.facts['model'])}, "
        f"{model.facts['parameters'] / 1e3:,.1f} k parameters, "
        f"{model.facts['macs'] / 1e6:,.1f} M multiply-accumulates",
        f"- file: {escaped(target)}, {exported['size_bytes'] / 1e3:,.1f} kB, "
        f"sha256 {escaped(exported['sha256'])}",
        f"- input: {_tensor(exported['input'])}; output: {_tensor(exported['output'])}",
        f"- licence: {escaped(licence(artifacts, target))}", "",
        "## Data", "",
        f"- {escaped(data.section.get('name', 'data'))}: {len(data.facts['classes'])} classes "
        f"({', '.join(map(escaped, data.facts['classes'][:20]))})", "",
        "## Accuracy on the test set", "",
        "| network | top-1 | 95 % interval (Wilson) | n |", "|---|---|---|---|",
    )  # fmt: skip
    for step in _RUNGS:
        if step in artifacts:
            yield _accuracy(step, artifacts[step].facts["test"])
    yield from _certified(artifacts, target)
    yield from _measured(artifacts, target)
    yield from (
        "", "## Intended use, limits, ethical considerations", "",
        "To be written by the model's author: edgeres doesn't know them.",
    )  # fmt: skip


def network(artifacts: Mapping[str, Artifact]) -> Artifact:
    """The last checkpoint of a run."""
    return next(artifacts[s] for s in reversed(_RUNGS) if s in artifacts)


def licence(artifacts: Mapping[str, Artifact], target: str) -> str:
    """What the recipe says of it."""
    return str(artifacts[f"export:{target}"].section.get("licence") or "not stated by its author")


def verified(artifacts: Mapping[str, Artifact], target: str) -> Certified | None:
    """What verification said of a file."""
    rows = artifacts["verify"].facts["files"] if "verify" in artifacts else ()
    return next((r for r in rows if r["target"] == target), None)


def reports(artifacts: Mapping[str, Artifact], target: str) -> list[Measured]:
    """What devices measured of a file; times of an emulated one mean nothing and are left out."""
    found = artifacts["benchmark"].facts["reports"] if "benchmark" in artifacts else ()
    return [r for r in found if r["target"] == target and not r["emulated"]]


def share(found: Counted) -> tuple[str, str]:
    """`98.50%`, and its interval `97.2% to 99.2%`."""
    low, high = wilson(found["correct"], found["n"])
    return f"{found['correct'] / found['n']:.2%}", f"{low:.1%} to {high:.1%}"


def _certified(artifacts: Mapping[str, Artifact], target: str) -> Iterator[str]:
    row = verified(artifacts, target)
    if row is None:
        yield from ("", "The file was not verified.")
        return
    if test := row.get("test"):
        yield _accuracy(target, test)
    yield from (
        "", "## Verification", "",
        f"The file {'passed' if row['passed'] else 'FAILED'} every gate below against the network "
        "it was written from (certificate.json).", "",
        "| gate | measured | limit |", "|---|---|---|",
    )  # fmt: skip
    for gate in row["gates"]:
        limit = escaped(f"{gate['comparison']} {gate['limit']:g}")
        yield f"| {escaped(gate['name'])} | {gate_of(gate).measured:.6g} | {limit} |"


def _measured(artifacts: Mapping[str, Artifact], target: str) -> Iterator[str]:
    mine = reports(artifacts, target)
    if not mine:
        return
    yield from ("", "## Measured", "",
                "| device | median latency | 95 % interval | p90 | n | valid |",
                "|---|---|---|---|---|---|")  # fmt: skip
    for r in mine:
        latency = r["latency"]
        low, high = latency["median_ci_ns"]
        p90 = f"{latency['p90_ns'] / 1e6:.3f} ms" if latency["p90_ns"] else "-"
        yield (f"| {escaped(r['device'])} | {latency['median_ns'] / 1e6:.3f} ms "
               f"| {low / 1e6:.3f}-{high / 1e6:.3f} ms | {p90} | {latency['n']} "
               f"| {'yes' if r['valid'] else 'no'} |")  # fmt: skip


def _accuracy(name: str, found: Counted) -> str:
    right, interval = share(found)
    return f"| {escaped(name)} | {right} | {interval} | {found['n']} |"


def _tensor(spec: Tensor) -> str:
    return escaped(f"{spec['dtype']} {'x'.join(map(str, spec['shape']))} {spec['layout']}")

"""A bundle's README.md: what it is, whose, how to use it, in the run's own facts.

What comes from a run or a person is escaped (`card.escaped`); the commands are edgeres' own text
(`samples/KIND/USE.md`) and hold no name of anybody's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgeres.artifact import Artifact
from edgeres.bundle import card, signing
from edgeres.bundle.card import escaped
from edgeres.errors import BadInput

if TYPE_CHECKING:
    from edgeres.records import Facts

FILE, USE = "README.md", "USE.md"
_SHOWN = 10  # labels
_NONE = "not measured"


def text(
    about: Mapping[str, object], artifacts: Mapping[str, Artifact], contract: Mapping[str, object],
    golden: Mapping[str, object], samples: Path, limits: Sequence[str] = (),
) -> str:  # fmt: skip
    """The page.

    Args:
        about: the manifest's name, run, for, target, signer, created, serial.
        contract: the file's preprocess.json; golden: its golden.json.
        samples: the folder with the kind's sample and USE.md; limits: more that holds of this one.

    Raises:
        BadInput: something that it is made of isn't as edgeres writes it.
    """
    use = (samples / USE).read_text("utf-8").rstrip()
    try:
        lines = (
            *_what(about, artifacts), *_whose(about), "", "## Use", "", use,
            *_input(contract), *_figures(artifacts, about),
            *_limits(about, artifacts, golden, limits),
        )  # fmt: skip
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        what = f"{type(error).__name__}: {error!s:.80}"
        raise BadInput(f"{about['run']}: its facts or preprocess.json aren't as edgeres writes "
                       f"them ({what}); run it anew") from error  # fmt: skip
    return "\n".join(lines) + "\n"


def _what(about: Mapping[str, object], artifacts: Mapping[str, Artifact]) -> Iterator[str]:
    target = about["target"]
    exported = artifacts[f"export:{target}"].facts["exported"]
    model, classes = card.network(artifacts), artifacts["data"].facts["classes"]
    yield from (
        f"# {escaped(about['name'])} for {escaped(about['for'])}", "",
        f"- network: {escaped(model.facts['model'])}, {model.facts['parameters'] / 1e3:,.1f} k "
        f"parameters, {model.facts['macs'] / 1e6:,.1f} M multiply-accumulates",
        f"- task: one of {len(classes)} classes for a picture (image classification)",
        f"- file: model/{escaped(exported['file'])}, {escaped(target)}, "
        f"{exported['size_bytes'] / 1e3:,.1f} kB, sha256 {escaped(exported['sha256'])}",
        f"- made: {about['created']} of the run {escaped(about['run'])}, by edgeres "
        f"{escaped(about['edgeres'])}; serial {about['serial']} (later bundles have a larger one)",
    )  # fmt: skip


def _whose(about: Facts) -> Iterator[str]:
    yield from ("", "## Whose it is", "")
    if about["signer"] is None:
        yield from (
            "Nobody signed it: it may be anybody's. `golden_test.py` finds files that were damaged "
            "on their way, not files that somebody exchanged together with their sums.",
        )
        return
    key = signing.fingerprint(signing.decoded(about["signer"], "signer"))
    yield from (
        f"Signed with the Ed25519 key {key}. Anybody can write such a line; check it, with the "
        "owner's public key (key.pub) that came another way:", "",
        "```sh",
        "edgeres verify . --public-key key.pub      # signature, every file, certificate, answers",
        "openssl pkeyutl -verify -pubin -inkey key.pub -rawin -in manifest.json -sigfile "
        "manifest.sig",
        "```", "",
        "openssl (3.0 or later) checks the manifest only, `golden_test.py` then each file against "
        "the manifest.",
    )  # fmt: skip


def _input(contract: Facts) -> Iterator[str]:
    """The numbers of preprocess.json; it holds the same as lines of Python, too."""
    labels: Sequence[str] = contract.get("labels") or ()
    rows = [("picture", contract.get("picture") or "8-bit RGB")]
    if rule := contract.get("resize"):
        px, short = rule["size_px"], rule["short_side_px"]
        how = {"center": f"the short side is scaled to {short} px and the middle square cut out",
               "none": "width and height are scaled each by its own factor"}  # fmt: skip
        rows.append(("size", f"{px} x {px} px, {rule['interpolation']}; {how[rule['crop']]}"))
    else:
        rows.append(("size", f"{contract['size_px']} x {contract['size_px']} px"))
    if "then" in contract:
        rows.append(("then", contract["then"]))
    rows += [("mean, std", f"{contract['mean']}, {contract['std']} of pixel / 255"),
             ("value", contract.get("formula") or "(pixel / 255 - mean) / std")]  # fmt: skip
    if "dtype" in contract:
        shape = " x ".join(map(str, contract["shape"]))
        rows.append(("input", f"{contract['dtype']}, {contract['layout']}, {shape}"))
    if "scale" in contract:
        codes = f"scale {contract['scale']}, zero point {contract['zero_point']}"
        rows.append(("codes", codes))
    shown = ", ".join(labels[:_SHOWN]) + (", …" if len(labels) > _SHOWN else "")
    rows.append(("labels", f"{len(labels)} in labels.txt, in the order of the outputs: {shown}"))
    yield from ("", "## Input", "", "All of it, and the same as lines of Python, is in "
                "preprocess.json.", "", "| what | value |", "|---|---|")  # fmt: skip
    yield from (f"| {name} | {escaped(value)} |" for name, value in rows)


def _figures(artifacts: Mapping[str, Artifact], about: Facts) -> Iterator[str]:
    target = about["target"]
    verified, data = card.verified(artifacts, target), artifacts["data"]
    name = escaped(data.facts.get("name") or data.section.get("name", "data"))
    yield from ("", "## Figures", "")
    if verified is not None and (test := verified.get("test")):
        right, interval = card.share(test)
        run_by = escaped(verified.get("run_by") or "its runtime")
        yield (f"- top-1 accuracy: {right} ({interval}, 95 % Wilson interval, n = {test['n']}, "
               f"test images of {name}); run by: {run_by}")  # fmt: skip
    else:
        yield f"- top-1 accuracy: {_NONE}"
    reports = card.reports(artifacts, target)
    for report in reports:
        yield from _measured(report)
    if not reports:
        yield from (f"- latency: {_NONE}", f"- memory: {_NONE}")


def _measured(report: Facts) -> Iterator[str]:
    latency, state = report["latency"], report.get("state_before") or {}
    runtime, memory = report.get("runtime") or {}, report.get("memory") or {}
    device = escaped(
        f"{report['device']} ({state.get('cpu_model') or 'unknown processor'}, "
        f"threads: {report.get('threads', '?')}, {runtime.get('name', '?')} "
        f"{runtime.get('version', '')}, {str(report.get('measured_at'))[:10]})"
    )
    low, high = latency["median_ci_ns"]
    p90 = f", p90 {latency['p90_ns'] / 1e6:.3f} ms" if latency.get("p90_ns") else ""
    yield (f"- latency on {device}: median {latency['median_ns'] / 1e6:.3f} ms "
           f"({low / 1e6:.3f} to {high / 1e6:.3f}, 95 % interval){p90}, batch 1, "
           f"n = {latency['n']}")  # fmt: skip
    if not report["valid"]:
        reasons = "; ".join(map(str, report.get("reasons") or ())) or "no reason told"
        yield f"  - NOT A VALID MEASUREMENT: {escaped(reasons)}"
    peak, base = memory.get("peak_rss_bytes"), memory.get("baseline_rss_bytes")
    if peak is None:
        yield f"- memory on {escaped(report['device'])}: {_NONE}"
    else:
        without = f", {base / 1e6:,.1f} MB of it without the model" if base is not None else ""
        yield (f"- memory on {escaped(report['device'])}: {peak / 1e6:,.1f} MB at most in the "
               f"whole process{without} (1 MB = 1,000,000 bytes)")  # fmt: skip


def _limits(
    about: Facts, artifacts: Mapping[str, Artifact], golden: Facts,
    limits: Sequence[str],
) -> Iterator[str]:  # fmt: skip
    unit = "codes" if "int" in golden["output"]["dtype"] else "in the model's own outputs"
    measured = sorted({str(r["device"]) for r in card.reports(artifacts, about["target"])})
    where = "were not measured"
    if measured:
        where = f"are those of {', '.join(measured)}; another device has others"
    yield from (
        "", "## Limits", "",
        "- It gives one of the classes for any picture, also for one that shows none of them.",
        f"- Latency and memory {escaped(where)}.",
        f"- Golden outputs were made by: {escaped(golden['made_by'])}. Another kernel may be "
        f"{golden['tolerance']:g} {unit} off.",
        *(f"- {escaped(limit)}." for limit in limits),
        "- Intended use and ethical considerations: MODEL_CARD.md, to be written by its author.",
        f"- Licence: {escaped(card.licence(artifacts, about['target']))}.",
    )  # fmt: skip

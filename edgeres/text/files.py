"""What is in a file, and what was measured and proven of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, TypedDict, final

from edgeres.records import Tensor
from edgeres.text import (
    accuracy,
    every_input,
    kilobytes,
    milliseconds,
    runtimes,
    start,
    table,
    tensor,
)

if TYPE_CHECKING:
    from typing import NotRequired

    from typing_extensions import TypeIs

    from edgeres.records import Certified, Counted, Facts, Judged, Layer, Memory, OnRuntime, Report

_SHOWN = 8  # names of a long list


class Trial(TypedDict):
    """`verification.selftest.Trial`"""

    target: str
    fault: str
    planted: bool
    caught: bool
    gate: str
    by: str


class End(Tensor):
    """An input or output beside the first."""

    end: str


class Beside(TypedDict):
    """A file that a model keeps beside itself."""

    sha256: str
    size_bytes: int


class Optimized(TypedDict):
    """What a runtime makes of the operators."""

    name: str
    operators: Mapping[str, int]


class Inspected(TypedDict):
    """What is in a model file."""

    file: str
    format: str
    target: str
    size_bytes: int
    requires: str | None
    constant_bytes: int
    four_bits: int
    beside: Mapping[str, Beside]
    macs: int
    input: Tensor
    output: Tensor
    any_batch: bool
    also: list[End]
    operators: Mapping[str, int]
    runtime: NotRequired[Optimized | None]
    delegates: Mapping[str, str]
    not_run: str
    integer_share: Mapping[str, float]
    float_operators: list[str]
    transposes: int
    residual_adds: int
    partitions: int | None
    metadata: Mapping[str, str]
    layers: list[Layer]
    runtimes: NotRequired[list[OnRuntime]]


class Weighed(TypedDict):
    """A layer of a program."""

    name: str
    kind: str
    shape: list[int]
    macs: int
    weights: int


class Program(TypedDict):
    """What is in a program of torch.export."""

    file: str
    format: Literal["pt2"]
    sha256: str
    size_bytes: int
    parameters: int
    macs: int
    input: Tensor
    output: Tensor
    any_size: bool
    operators: Mapping[str, int]
    layers: list[Weighed]
    notes: list[str]


class Unverified(TypedDict):
    """A file that couldn't be verified, and why."""

    target: str
    why: str


class Verdicts(TypedDict):
    """What verification says of each file."""

    run: str
    passed: bool
    files: list[Certified]
    failures: list[str]
    exit_code: NotRequired[int]


class Verified(Verdicts):
    """The same, and what couldn't be verified."""

    unverified: list[Unverified]


class SelfTested(TypedDict):
    """What verification said to each fault."""

    run: str
    passed: bool
    trials: list[Trial]


class Measured(TypedDict):
    """What devices measured; samples by device, target and session."""

    reports: list[Report]
    failures: list[dict[str, str]]
    samples: Mapping[str, Mapping[str, list[list[int]]]]
    error: str


class Benchmarked(Measured):
    """The same, and whose test images were answered."""

    accuracy_of: str


class Checked(TypedDict):
    """Limits and what was measured."""

    passed: bool
    results: list[Judged]
    notes: list[str]


class Timed(TypedDict):
    """The median of one answer, and its interval, None of a single session."""

    median_ns: float
    median_ci_ns: Sequence[float] | None


class Subject(TypedDict):
    """What was measured of one file on one device."""

    target: str
    device: str
    status: str
    latency: Timed | None
    accuracy: Counted | None
    peak_rss_bytes: float | None
    size_bytes: int | None


class Subjects(TypedDict):
    """The files of both sides."""

    a: list[Subject]
    b: list[Subject]


class ComparedRow(TypedDict):
    """`measurement.compare.Row`"""

    device: str
    a_target: str
    b_target: str
    measure: str
    unit: str
    a: float | None
    b: float | None
    change: float | None
    interval: Sequence[float] | None
    verdict: str
    evidence: str


@final
class Pair(TypedDict):
    """B held against A."""

    a: str
    b: str
    verdict: str
    tolerance: Mapping[str, float]
    rows: list[ComparedRow]
    notes: list[str]
    subjects: Subjects


@final
class Pairs(TypedDict):
    """The others held against the first."""

    verdict: str
    pairs: list[Pair]


def inspect(result: Inspected | Program) -> str:
    """What is in a file: sums, then its layers."""
    if _is_program(result):
        return _program(result)
    counts = _counted(result["operators"])
    floats = result["float_operators"]
    rows = {
        "file": result["file"], "format": result["format"], "kind": result["target"],
        "needs": result["requires"] or "unknown",
        "size": f"{kilobytes(result['size_bytes'])}, "
                f"{kilobytes(result['constant_bytes'])} of it weights"
                + (f" ({result['four_bits']} layers' in 4 bits)" if result["four_bits"] else "")
                + "".join(f", in {start(name, 60)}: {kilobytes(told['size_bytes'])}"
                          for name, told in result["beside"].items()),
        "MACs": f"{result['macs'] / 1e6:,.1f} M" if result["macs"] else "unknown",
        "input": tensor(result["input"]) + (", or more images" if result["any_batch"] else ""),
        "output": tensor(result["output"]),
        **{f"another {one['end']}, {start(one['name'], 40)}": tensor(one)
           for one in result["also"]},
        "operators": counts, **_runtime(result.get("runtime")),
        **({"needs a delegate": ", ".join(f"{kind}: {what}" for kind, what in
                                          result["delegates"].items())}
           if result["delegates"] else {}),
        **({"not run": start(result["not_run"], 300)} if result["not_run"] else {}),
        "in integers": ", ".join(f"{share:.0%} of {what}"
                                 for what, share in result["integer_share"].items()),
        "float operators": str(len(floats)) if floats else "none",
        "transposes": str(result["transposes"]), "residual adds": str(result["residual_adds"]),
        "delegate partitions": "-" if result["partitions"] is None else str(result["partitions"]),
        **{f"metadata {start(key, 40)}": start(value, 54)
           for key, value in sorted(result["metadata"].items())},
    }  # fmt: skip
    width = max(map(len, rows)) + 2
    listed = "\n".join(f"{name:<{width}}{value}" for name, value in rows.items())
    islands = [f"in float: {name}" for name in floats[:_SHOWN]]
    more = [f"… and {len(floats) - _SHOWN} more"] if len(floats) > _SHOWN else []
    asked = [runtimes.inspected(found) for found in result.get("runtimes") or ()]
    return "\n".join([listed, *islands, *more, *asked, "", layers(result["layers"])])


def _is_program(result: Inspected | Program) -> TypeIs[Program]:
    return result["format"] == "pt2"


def _program(result: Program) -> str:
    """What is in a program of torch.export, which other commands make files of."""
    rows = {
        "file": result["file"], "format": "a program of torch.export",
        "size": kilobytes(result["size_bytes"]), "parameters": f"{result['parameters']:,}",
        "MACs": f"{result['macs'] / 1e6:,.1f} M",
        "input": tensor(result["input"]) + (", or another size" if result["any_size"] else ""),
        "output": tensor(result["output"]), "operators": _counted(result["operators"]),
        "goes on with": f"edgeres quantize {result['file']}, or distill, prune, export",
    }  # fmt: skip
    width = max(map(len, rows)) + 2
    listed = "\n".join(f"{name:<{width}}{value}" for name, value in rows.items())
    held = [{"layer": start(layer["name"], 34), "operator": layer["kind"],
             "output": "x".join(map(str, layer["shape"])), "MACs": f"{layer['macs'] / 1e6:.2f} M",
             "weights": f"{layer['weights']:,}"} for layer in result["layers"]]  # fmt: skip
    notes = [f"note: {note}" for note in result["notes"]]
    tables = [table(held, tuple(held[0]))] if held else []
    return "\n".join([listed, *notes, "", *tables])


def _counted(operators: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {start(kind, 60)}" for kind, n in sorted(operators.items()))


def _runtime(found: Optimized | None) -> dict[str, str]:
    """What the runtime's optimizer makes of the operators."""
    return {f"in {found['name']}": _counted(found["operators"])} if found else {}


def layers(found: Sequence[Layer]) -> str:
    """A line per operation that holds weights or works in floating point."""
    rows = [{"layer": start(layer["name"], 34), "operator": layer["kind"],
             "output": "x".join(map(str, layer["shape"])) or "-",
             "MACs": f"{layer['macs'] / 1e6:.2f} M" if layer["macs"] else "-",
             "weights": kilobytes(layer["constant_bytes"]),
             "": "float" if layer["floating"] else ""}
            for layer in found if layer["constant_bytes"] or layer["floating"]]  # fmt: skip
    return table(rows, tuple(rows[0])) if rows else "no layer holds weights"


def verify(result: Verified) -> str:
    """A line per file, then what failed. worst, layer: largest differences, in codes."""
    rows = []
    for f in result["files"]:
        scales = f["scales"]
        rows.append({
            "target": f["target"], "verdict": "passed" if f["passed"] else "FAILED",
            "agreement": f"{f['agreement']:.2%}" if f["agreement"] is not None else "not run here",
            "worst": _worst(f), "layer": _worst_layer(f),
            "scales": f"{scales['equal']}/{scales['compared']}" if scales else "-",
            "top-1": accuracy(f["test"]),
        })  # fmt: skip
    unverified = result["unverified"]
    rows += [{**dict.fromkeys(rows[0], "-"), "target": f["target"], "verdict": "NOT VERIFIED"}
             for f in unverified]  # fmt: skip
    listed = table(rows, tuple(rows[0]))
    failed = [f"failed: {sentence}" for sentence in result["failures"]]
    failed += [f"not verified: {f['target']}: {f['why']}" for f in unverified]
    notes = [f"note: {f['target']}: {n}" for f in result["files"] for n in f["notes"]]
    asked = [
        *runtimes.verdicts(result["files"]),
        *every_input.proofs((f["target"], f.get("proof")) for f in result["files"]),
    ]
    return "\n".join([listed, *failed, *notes, *asked])


def self_test(result: SelfTested) -> str:
    """A line per fault, then what was missed."""
    planted = [t for t in result["trials"] if t["planted"]]
    rows = []
    for fault in dict.fromkeys(t["fault"] for t in result["trials"]):
        tried = [t for t in planted if t["fault"] == fault]
        gates = dict.fromkeys(t["gate"].replace("error", "it can't be read")
                              for t in tried if t["caught"])  # fmt: skip
        rows.append({"fault": fault, "files": f"{sum(t['caught'] for t in tried)}/{len(tried)}",
                     "caught by": ", ".join(gates)})  # fmt: skip
    missed = [f"MISSED: {t['target']}: {t['fault']}" for t in planted if not t["caught"]]
    count = f"{len(planted) - len(missed)} of {len(planted)} planted faults caught"
    return "\n".join([table(rows, tuple(rows[0])), *missed, count])


def benchmark(result: Benchmarked) -> str:
    """Latency, then everything else of each file and device, then the doubts."""
    times, rest, reasons = [], [], []
    for r in result["reports"]:
        latency, cold = r["latency"], r.get("cold") or {}
        if latency is None:
            continue
        who = {"target": r["target"], "device": r["device"]}
        low, high = latency["median_ci_ns"] or (None, None)
        times.append({
            **who, "median": milliseconds(latency["median_ns"]),
            "95 % interval": f"{milliseconds(low)[:-3]}-{milliseconds(high)}" if low else "-",
            "p90": milliseconds(latency["p90_ns"]), "p95": milliseconds(latency["p95_ns"]),
            "p99": milliseconds(latency["p99_ns"]),
        })  # fmt: skip
        rest.append({
            **who, "load": milliseconds(_middle(cold["load_ns"])),
            "first": milliseconds(_middle(cold["first_ns"])), "peak RSS": _memory(r.get("memory")),
            "top-1": accuracy(r["accuracy"]), "n": latency["n"],
            "valid": "yes" if r["valid"] else "no",
        })  # fmt: skip
        reasons += [f"{r['target']} on {r['device']}: {reason}" for reason in r["reasons"]]
    tables = [table(rows, tuple(rows[0])) for rows in (times, rest) if rows]
    reasons += [result["accuracy_of"]] if result.get("accuracy_of") else []
    return "\n\n".join([*tables, *(["\n".join(reasons)] if reasons else [])])


def pairs(result: Pair | Pairs) -> list[Pair]:
    """The only pair, or all of several."""
    if "pairs" in result:
        return result["pairs"]
    return [result]


def compare(result: Pair | Pairs) -> str:
    """A row per measure, then what each verdict rests on; of each pair."""
    return "\n\n".join(map(_compared_pair, pairs(result)))


def _compared_pair(result: Pair) -> str:
    rows = _compared(result)
    verdict = _verdict(result)
    return "\n".join([table(rows, tuple(rows[0])), "", *unjudged(result), *result["notes"],
                      f"{verdict} (A {result['a']}, B {result['b']})"])  # fmt: skip


def compare_markdown(result: Pair | Pairs) -> str:
    """The same as Markdown tables; no tag, link, code or mention comes of a name."""
    return "\n\n".join(map(_markdown_pair, pairs(result)))


def _markdown_pair(result: Pair) -> str:
    rows = _compared(result)
    cells = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    lines = [f"| {' | '.join(map(_inert, row))} |" for row in cells]
    names = (_inert(result["a"]), _inert(result["b"]))
    return "\n".join(
        [f"**{_verdict(result)}** (A {names[0]}, B {names[1]})", "", *lines, "",
         *(f"- {_inert(said)}" for said in (*unjudged(result), *result["notes"]))]
    ).rstrip()  # fmt: skip


def _inert(words: object) -> str:
    text = str(words).replace("|", " ")
    return "".join(f"&#{ord(c)};" if c in "&<>`[]@!\\*_~#:" else c for c in text)


def _verdict(result: Pair) -> str:
    return {"same": "A and B are the same", "not measurable": "not everything can be judged",
            }.get(result["verdict"], f"B is {result['verdict']}")  # fmt: skip


def unjudged(result: Pair) -> list[str]:
    """Why there is no verdict, or one without an interval."""
    missing = [r for r in result["rows"] if r["verdict"] == "not measurable"]
    alone = [r for r in result["rows"] if r["unit"] == "ns" and r["interval"] is None]
    mend = ["--allow-invalid judges invalid measurements all the same"] \
        if any("not valid" in r["evidence"] for r in missing) else []  # fmt: skip
    return [f"{r['measure']}: {r['evidence']}"
            for r in result["rows"] if r in missing or r in alone] + mend  # fmt: skip


def check(result: Checked) -> str:
    """A row per limit."""
    rows = [
        {"budget": r["measure"], "file": r["target"], "device": r["device"],
         "limit": f"{r['limit']:g}", "measured": "-" if r["value"] is None else f"{r['value']:.4g}",
         "verdict": r["verdict"] + (f": {r['reason']}" if r.get("reason") else "")}
        for r in result["results"]
    ]  # fmt: skip
    met = sum(r["verdict"] == "pass" for r in result["results"])
    listed = [table(rows, tuple(rows[0]))] if rows else []
    invalid = any((r.get("reason") or "").startswith("not valid") for r in result["results"])
    mend = ["--allow-invalid, or `allow_invalid: true` in the file, judges them all the same"]
    return "\n".join([*listed, *(mend if invalid else []), *result["notes"],
                      f"{met} of {len(rows)} budgets met"])  # fmt: skip


def checked_bundle(result: Facts) -> str:
    """What is wrong with a bundle, if anything."""
    golden = result["golden"]
    lines = [
        f"{result['name']} for {result['for']}, {result['target']}, of the run {result['run']}",
        f"made {_ago(result['age_s'])} ({result['created']}), serial {result['serial']}, "
        f"by edgeres {result['edgeres']}",
        _signature(result), *result["notes"],
        *(f"wrong: {finding}" for finding in result["findings"]),
    ]  # fmt: skip
    if golden:
        worst = f"{golden['worst']:g}, allowed {golden['tolerance']:g}"
        lines.append(f"golden test: {golden['samples']} samples, worst difference {worst}, "
                     f"by {golden['run_by']}")  # fmt: skip
    elif result["passed"]:
        lines.append("GOLDEN TEST NOT RUN: nothing here runs such a file")
    verdict = "passed" if result["passed"] else "FAILED"
    return "\n".join([*lines, f"{result['bundle']}: {verdict}"])


def _signature(result: Facts) -> str:
    """Whose key signed it."""
    state, signer = result["signature"], result["signer"]
    if state == "none":
        return "UNSIGNED"
    if state == "bad":
        return "THE SIGNATURE IS BAD"
    if state == "unchecked":
        return (f"THE SIGNATURE IS NOT CHECKED, of {signer['fingerprint']}: "
                "pip install 'edgeres[signing]'")  # fmt: skip
    if signer["name"] is None:
        return (f"SIGNED BY AN UNKNOWN KEY {signer['fingerprint']}: if this is what its owner says,"
                f" edgeres trust {result['bundle']} --name OWNER")  # fmt: skip
    return f"signed by {signer['name']} ({signer['fingerprint']})"


def _ago(seconds: int) -> str:
    """`3 days ago`."""
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit} ago"
    return "just now" if seconds >= -60 else "in the future"


def _worst(row: Certified) -> str:
    if row["worst_codes"] is None:
        return "-"
    return f"{row['worst_codes']:g}" if row["scales"] else f"{row['worst_codes']:.2g}"


def _worst_layer(row: Certified) -> str:
    return f"{max(c['worst'] for c in row['layers']):g}" if row["layers"] else "-"


def _middle(values: Sequence[float] | None) -> float | None:
    return sorted(values)[len(values) // 2] if values else None


def _memory(found: Memory | None) -> str:
    if not found or not found.get("peak_rss_bytes"):
        return "-"
    return f"{found['peak_rss_bytes'] / 1e6:.1f} MB"


def _compared(result: Pair) -> list[dict[str, str]]:
    return [
        {"file": r["b_target"] if r["a_target"] == r["b_target"]
                 else f"{r['a_target']} / {r['b_target']}",
         "device": r["device"], "measure": r["measure"],
         "A": _quantity(r["a"], r["unit"]), "B": _quantity(r["b"], r["unit"]),
         "change": _change(r), "verdict": r["verdict"]}
        for r in result["rows"]
    ]  # fmt: skip


def _quantity(value: float | None, unit: str) -> str:
    if value is None or unit == "ns":
        return milliseconds(value)
    if unit == "J":
        return f"{value * 1e3:.3g} mJ"
    return f"{value / 1e3:.1f} kB" if unit == "bytes" and value < 1e6 else \
        f"{value / 1e6:.1f} MB" if unit == "bytes" else f"{value:.2%}"  # fmt: skip


def _change(row: ComparedRow) -> str:
    if row["change"] is None:
        return "-"
    low, high = row["interval"] or (0.0, 0.0)
    if row["unit"] == "share":
        return f"{row['change']:+.2f} points" + (
            f" ({low:+.2f} to {high:+.2f})" if row["interval"] else "")  # fmt: skip
    return f"{row['change']:.2f}x" + (f" ({low:.2f}-{high:.2f})" if row["interval"] else "")

"""Results as a person reads them: JSON-ready dictionaries in, text out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgeres.statistics import wilson

_SHOWN = 8  # names of a long list


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Columns aligned by their widest cell; the last one may run on."""
    cells = [[_cell(row.get(c)) for c in columns] for row in rows]
    widths = [max(len(c), *(len(r[i]) for r in cells)) if cells else len(c)
              for i, c in enumerate(columns)]  # fmt: skip
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()
             for row in [list(columns), *cells]]  # fmt: skip
    return "\n".join(lines)


def plan(result: Mapping[str, Any]) -> str:
    """The plan of `edgeres run --dry-run`."""
    todo = sum(row["state"] != "cached" for row in result["steps"])
    listed = table(result["steps"], ("step", "state", "key"))
    return f"run {result['run']}\n{listed}\n{todo} of {len(result['steps'])} steps to do"


def run(result: Mapping[str, Any]) -> str:
    """Where the results of a run are."""
    last = list(result["artifacts"])[-1]
    path = result["report"] or result["artifacts"][last]["path"]
    return f"report: {path}" if result["report"] else f"{last}: {path}"


def report(result: Mapping[str, Any]) -> str:
    """Where the page is, and its drawings."""
    drawn = result["figures"]
    return run(result) + (f"\n{len(drawn)} drawings: {drawn[0]} and others" if drawn else "")


def sensitivity(result: Mapping[str, Any]) -> str:
    """A line per layer, the most sensitive first."""
    lines = [
        f"{'quantized alone':<28} {'SQNR dB':>8} {'points lost':>12} {'MMACs':>8}",
        *(f"{row['layer']:<28} {row['sqnr_db']:>8.1f} {row['lost_points']:>12.2f} "
          f"{row['macs'] / 1e6:>8.2f}" for row in result["layers"]),
        f"all quantized: {result['all_quantized_lost_points']:.2f} points lost of "
        f"{result['float_top1']:.2%} ({result['images']} validation images)",
    ]  # fmt: skip
    return "\n".join(lines)


def auto(result: Mapping[str, Any]) -> str:
    """Which layers stay float, what that costs, and where the result is."""
    found = result["auto"]
    kept = ", ".join(found["layers"]) or "none"
    return (
        f"float layers: {kept} ({found['float_macs']:.1%} of multiply-accumulates)\n"
        f"{found['lost_points']:.2f} points lost on the validation images, "
        f"{found['accuracy_drop']:g} allowed\n{run(result)}"
    )


def export(result: Mapping[str, Any]) -> str:
    """The files that were exported."""
    lines = []
    for row in result["files"]:
        types = f"{row['input']['dtype']} in, {row['output']['dtype']} out"
        lines.append(f"{row['target']}: {row['path']}  ({kilobytes(row['size_bytes'])}, {types})")
    return "\n".join([*lines, "check them against the model: edgeres verify"])


def search(result: Mapping[str, Any]) -> str:
    """A line per candidate that was trained, then the winner; * marks the Pareto front."""
    rows = []
    for c in result["candidates"]:
        if c["top1"] is None:
            continue
        low, high = c["interval"]
        rows.append({
            "": "*" if c["pareto"] else "", "student": c["student"], "MACs kept": f"{c['keep']:g}x",
            "MACs": f"{c['macs'] / 1e6:.2f} M", "ms": f"{c['latency_ns'] / 1e6:.3g}",
            f"top-1 after {result['epochs']} epochs":
                f"{c['top1']:.1%} ({low:.1%}-{high:.1%}, n = {c['n']})",
        })  # fmt: skip
    slow = sum(not c["fits"] for c in result["candidates"])
    rest = len(result["candidates"]) - slow - len(rows)
    winner = result["winner"]
    kept = f", pruned to {winner['latency_ns'] / 1e6:.3g} ms" if winner["keep"] < 1 else ""
    return "\n".join([
        table(rows, tuple(rows[0])),
        f"{slow} candidates are too slow, {rest} slim ones were not trained",
        f"winner: {winner['student']}{kept}; train it: edgeres run {result['recipe']}",
    ])  # fmt: skip


def inspect(result: Mapping[str, Any]) -> str:
    """What is in a file: sums, then its layers."""
    counts = ", ".join(f"{n} {kind}" for kind, n in sorted(result["operators"].items()))
    floats = result["float_operators"]
    rows = {
        "file": result["file"], "format": result["format"],
        "needs": result["requires"] or "unknown",
        "size": f"{kilobytes(result['size_bytes'])}, "
                f"{kilobytes(result['constant_bytes'])} of it weights",
        "MACs": f"{result['macs'] / 1e6:,.1f} M" if result["macs"] else "unknown",
        "input": tensor(result["input"]), "output": tensor(result["output"]),
        "operators": counts,
        "in integers": ", ".join(f"{share:.0%} of {what}"
                                 for what, share in result["integer_share"].items()),
        "float operators": str(len(floats)) if floats else "none",
        "transposes": str(result["transposes"]), "residual adds": str(result["residual_adds"]),
        "delegate partitions": "-" if result["partitions"] is None else str(result["partitions"]),
        **{key: _first_line(value) for key, value in sorted(result["metadata"].items())},
    }  # fmt: skip
    width = max(map(len, rows)) + 2
    listed = "\n".join(f"{name:<{width}}{value}" for name, value in rows.items())
    islands = [f"in float: {name}" for name in floats[:_SHOWN]]
    more = [f"… and {len(floats) - _SHOWN} more"] if len(floats) > _SHOWN else []
    return "\n".join([listed, *islands, *more, "", layers(result["layers"])])


def layers(found: Sequence[Mapping[str, Any]]) -> str:
    """A line per operation that holds weights or works in floating point."""
    rows = [{"layer": _start(layer["name"], 34), "operator": layer["kind"],
             "output": "x".join(map(str, layer["shape"])) or "-",
             "MACs": f"{layer['macs'] / 1e6:.2f} M" if layer["macs"] else "-",
             "weights": kilobytes(layer["constant_bytes"]),
             "": "float" if layer["floating"] else ""}
            for layer in found if layer["constant_bytes"] or layer["floating"]]  # fmt: skip
    return table(rows, tuple(rows[0])) if rows else "no layer holds weights"


def verify(result: Mapping[str, Any]) -> str:
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
    listed = table(rows, tuple(rows[0]))
    failed = [f"failed: {sentence}" for sentence in result["failures"]]
    notes = [f"note: {f['target']}: {n}" for f in result["files"] for n in f["notes"]]
    return "\n".join([listed, *failed, *notes])


def self_test(result: Mapping[str, Any]) -> str:
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


def benchmark(result: Mapping[str, Any]) -> str:
    """Latency, then everything else of each file and device, then the doubts."""
    times, rest, reasons = [], [], []
    for r in result["reports"]:
        latency, cold = r["latency"], r["cold"]
        who = {"target": r["target"], "device": r["device"]}
        low, high = latency["median_ci_ns"] or (None, None)
        times.append({
            **who, "median": milliseconds(latency["median_ns"]),
            "95 % interval": f"{milliseconds(low)[:-3]}-{milliseconds(high)}" if low else "-",
            **{p: milliseconds(latency[f"{p}_ns"]) for p in ("p90", "p95", "p99")},
        })  # fmt: skip
        rest.append({
            **who, "load": milliseconds(_middle(cold["load_ns"])),
            "first": milliseconds(_middle(cold["first_ns"])), "memory": _memory(r.get("memory")),
            "top-1": accuracy(r["accuracy"]), "n": latency["n"],
            "valid": "yes" if r["valid"] else "no",
        })  # fmt: skip
        reasons += [f"{r['target']} on {r['device']}: {reason}" for reason in r["reasons"]]
    tables = [table(rows, tuple(rows[0])) for rows in (times, rest) if rows]
    return "\n\n".join([*tables, *(["\n".join(reasons)] if reasons else [])])


def compare(result: Mapping[str, Any]) -> str:
    """A row per measure, then what each verdict rests on."""
    rows = _compared(result)
    verdict = f"B is {result['verdict']}" if result["verdict"] != "same" else "A and B are the same"
    return "\n".join(
        [table(rows, tuple(rows[0])), "", f"{verdict} (A {result['a']}, B {result['b']})"]
    )


def compare_markdown(result: Mapping[str, Any]) -> str:
    """The same as a Markdown table."""
    rows = _compared(result)
    cells = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    lines = [f"| {' | '.join(str(c).replace('|', ' ') for c in row)} |" for row in cells]
    return "\n".join(
        [f"**B is {result['verdict']}** (A `{result['a']}`, B `{result['b']}`)", "", *lines]
    )


def check(result: Mapping[str, Any]) -> str:
    """A row per limit."""
    rows = [
        {"budget": r["measure"], "file": r["target"], "device": r["device"],
         "limit": f"{r['limit']:g}", "measured": "-" if r["value"] is None else f"{r['value']:.4g}",
         "verdict": r["verdict"]}
        for r in result["results"]
    ]  # fmt: skip
    met = sum(r["verdict"] == "pass" for r in result["results"])
    listed = [table(rows, tuple(rows[0]))] if rows else []
    return "\n".join([*listed, f"{met} of {len(rows)} budgets met"])


def bundle(result: Mapping[str, Any]) -> str:
    """Where the archive is."""
    signed = "signed" if result["signed"] else "not signed"
    return (f"{result['bundle']}  ({result['target']}, {kilobytes(result['size_bytes'])}, {signed})"
            f"\ncheck it anywhere: edgeres verify {result['bundle']}")  # fmt: skip


def checked_bundle(result: Mapping[str, Any]) -> str:
    """What is wrong with a bundle, if anything."""
    golden = result["golden"]
    lines = [f"wrong: {finding}" for finding in result["findings"]]
    if golden:
        worst = f"{golden['worst']:g}, allowed {golden['tolerance']:g}"
        lines.append(f"golden test: {golden['samples']} samples, worst difference {worst}, "
                     f"by {golden['run_by']}")  # fmt: skip
    lines.append(f"signature: {result['signature']}")
    verdict = "passed" if result["passed"] else "FAILED"
    return "\n".join([*lines, f"{result['bundle']}: {verdict}"])


def drift(result: Mapping[str, Any]) -> str:
    """A row per feature, then the verdict."""
    rows = [{"feature": f["feature"], "distance": f"{f['distance']:.3f}",
             "threshold": f"{f['threshold']:.3f}", "drifted": "YES" if f["drifted"] else "no"}
            for f in result["features"]]  # fmt: skip
    verdict = "drift" if result["drifted"] else "no drift"
    return f"{table(rows, tuple(rows[0]))}\n{verdict} in {result['n']} inferences"


def promoted(entry: Mapping[str, Any]) -> str:
    """What a channel points to now."""
    return f"{entry['channel']}: {entry['run']}"


def tracked(result: Mapping[str, Any]) -> str:
    """Where a tracker keeps a run."""
    if result["tracker"] == "tensorboard":
        return f"{result['scalars']} scalars; look at them: tensorboard --logdir {result['folder']}"
    models = [f"  {name}, version {version}" for name, version in result["models"].items()]
    where = f"{result['server']}, experiment {result['experiment']}, run {result['run_id']}"
    return "\n".join([where, *models])


def history(entries: Sequence[Mapping[str, Any]]) -> str:
    """A row per promotion and rollback."""
    rows = [{"at": e["at"], "channel": e["channel"], "action": e["action"], "run": e["run"],
             "gates": "met" if e["passed"] else "NOT MET", "reason": e["reason"]}
            for e in entries]  # fmt: skip
    return table(rows, tuple(rows[0])) if rows else "nothing was promoted yet"


def _compared(result: Mapping[str, Any]) -> list[dict[str, str]]:
    return [
        {"file": r["b_target"] if r["a_target"] == r["b_target"]
                 else f"{r['a_target']} / {r['b_target']}",
         "device": r["device"], "measure": r["measure"],
         "A": _quantity(r["a"], r["unit"]), "B": _quantity(r["b"], r["unit"]),
         "change": _change(r), "verdict": r["verdict"]}
        for r in result["rows"]
    ]  # fmt: skip


def _quantity(value: float, unit: str) -> str:
    if unit == "ns":
        return milliseconds(value)
    return f"{value / 1e3:.1f} kB" if unit == "bytes" and value < 1e6 else \
        f"{value / 1e6:.1f} MB" if unit == "bytes" else f"{value:.2%}"  # fmt: skip


def _change(row: Mapping[str, Any]) -> str:
    low, high = row["interval"] or (0.0, 0.0)
    if row["unit"] == "share":
        return f"{row['change'] * 100:+.2f} points" + (
            f" ({low * 100:+.2f} to {high * 100:+.2f})" if row["interval"] else "")  # fmt: skip
    return f"{row['change']:.2f}x" + (f" ({low:.2f}-{high:.2f})" if row["interval"] else "")


def device(result: Mapping[str, Any]) -> str:
    """What a device is, how it is doing, and what it lacks."""
    shown = [(k, v) for k, v in result["state"].items() if v not in (None, {}, [], "")]
    width = max((len(k) for k, _ in shown), default=0)
    lines = [f"{k.replace('_', ' ').ljust(width)}  {_value(v)}" for k, v in shown]
    lacks = [f"missing: {m}" for m in result["missing"]] or ["ready"]
    return "\n".join([f"{result['device']} ({result['address']})", *lines, *lacks])


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_value(v)}" for k, v in value.items() if v is not None)
    if isinstance(value, list):
        return ", ".join(map(_value, value))
    return str(value)


def _middle(values: Sequence[float]) -> float | None:
    return sorted(values)[len(values) // 2] if values else None


def _memory(found: Mapping[str, Any] | None) -> str:
    if not found or not found.get("peak_rss_bytes"):
        return "-"
    return f"{(found['peak_rss_bytes'] - (found.get('baseline_rss_bytes') or 0)) / 1e6:.1f} MB"


def clean(result: Mapping[str, Any]) -> str:
    """What was freed."""
    verb = "freed" if result["removed"] else "would free"
    lines = [f"{row['artifact']}  {kilobytes(row['size_bytes'])}" for row in result["artifacts"]]
    return "\n".join([*lines, f"{verb} {kilobytes(result['freed_bytes'])}"])


def tensor(spec: Mapping[str, Any]) -> str:
    """`int8 1x16x16x3 NHWC, scale 0.0156863, zero point 0`."""
    shape = "x".join(map(str, spec["shape"]))
    q = spec["quantization"]
    extra = f", scale {q['scale'][0]:.6g}, zero point {q['zero_point'][0]}" if q else ""
    return f"{spec['dtype']} {shape} {spec['layout']}{extra}"


def accuracy(found: Mapping[str, int] | None) -> str:
    """`97.3 % (95.7-98.4)`: top-1 with its 95 % Wilson interval."""
    if not found:
        return "-"
    low, high = wilson(found["correct"], found["n"])
    return f"{found['correct'] / found['n']:.2%} ({low:.1%}-{high:.1%})"


def kilobytes(size: int) -> str:
    """Bytes as kB (1000 bytes)."""
    return f"{size / 1e3:,.1f} kB"


def milliseconds(nanoseconds: float | None) -> str:
    """Nanoseconds as ms."""
    return "-" if nanoseconds is None else f"{nanoseconds / 1e6:.3f} ms"


def _worst_layer(row: Mapping[str, Any]) -> str:
    return f"{max(c['worst'] for c in row['layers']):g}" if row["layers"] else "-"


def _first_line(value: str) -> str:
    lines = value.splitlines() or [""]
    more = f" … ({len(lines)} lines)" if len(lines) > 1 else ""
    return _start(lines[0], 54) + more


def _start(words: str, limit: int) -> str:
    """Cut to a length, with whatever could move a terminal's cursor shown as a mark."""
    clean = "".join(c if c.isprintable() else "\ufffd" for c in words)
    return clean if len(clean) <= limit else f"{clean[: limit - 1]}…"


def _worst(row: Mapping[str, Any]) -> str:
    if row["worst_codes"] is None:
        return "-"
    return f"{row['worst_codes']:g}" if row["scales"] else f"{row['worst_codes']:.2g}"


def _cell(value: Any) -> str:
    return "-" if value is None else str(value)

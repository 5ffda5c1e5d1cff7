"""What the commands of the chain made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypedDict

from edgeres.text import kilobytes, table

if TYPE_CHECKING:
    from edgeres.records import Facts, Medians, Tensor


class PlanRow(TypedDict):
    """A step and where it stands."""

    step: str
    state: str
    key: str | None
    seconds: float | None


class Plan(TypedDict):
    """What a recipe would do."""

    run: str
    steps: list[PlanRow]


class Artifact(TypedDict):
    """What a step made."""

    path: str
    digest: str
    facts: Facts


class Ran(TypedDict):
    """Where everything of a run is."""

    run: str
    report: str | None
    artifacts: Mapping[str, Artifact]


class Script(TypedDict):
    """The jobs of a recipe."""

    run: str
    script: list[str]


class LayerLoss(TypedDict):
    """What is lost with one layer quantized."""

    layer: str
    sqnr_db: float
    lost_points: float
    macs: int


class Sensitivity(TypedDict):
    """What is lost layer by layer, and with all of them."""

    images: int
    float_top1: float
    all_quantized_lost_points: float
    layers: list[LayerLoss]


Slower = TypedDict("Slower", {
    "device": str, "target": str, "interval": tuple[float, float], "ratio": float,
    "with": "Medians", "without": "Medians",
})  # fmt: skip
"""The time with layers in float as a multiple of that without."""


class Kept(TypedDict):
    """The layers that stay float, and what that costs."""

    layers: list[str]
    lost_points: float
    met: bool
    float_macs: float
    tried: int
    accuracy_drop: float
    latency: Slower | None


class Auto(Ran):
    """A run whose float layers were chosen."""

    auto: Kept
    sensitivity: Sensitivity


class Added(Ran):
    """A run of exports; which run they were added to."""

    added_to: str | None
    own_verification: bool


class File(TypedDict):
    """An exported file."""

    target: str
    path: str
    size_bytes: int
    input: Tensor
    output: Tensor


class Exported(Added):
    """The same with its files."""

    files: list[File]


class Candidate(TypedDict):
    """A student that may be fast enough."""

    student: str
    keep: float
    macs: int
    latency_ns: float
    fits: bool
    top1: float | None
    n: int
    interval: Sequence[float] | None
    pareto: bool


class Search(TypedDict):
    """Candidates and the winner."""

    device: str
    estimate: bool
    target: str
    limit_ns: float
    factor: float
    epochs: int
    candidates: list[Candidate]
    winner: Candidate
    recipe: str
    base: str | None
    lost_points: float | None


def plan(result: Plan) -> str:
    """The plan of `edgeres run --dry-run`."""
    states = [row["state"] for row in result["steps"]]
    todo = sum(state != "cached" for state in states)
    listed = table(result["steps"], ("step", "state", "key"))
    # A plan opens no device, and what was measured belongs to the one that measured it.
    most = "at most " if "asks a device" in states else ""
    return f"run {result['run']}\n{listed}\n{most}{todo} of {len(states)} steps to do"


def run(result: Ran) -> str:
    """Where the results of a run are."""
    last = list(result["artifacts"])[-1]
    path = result["report"] or result["artifacts"][last]["path"]
    return f"report: {path}" if result["report"] else f"{last}: {path}"


def script(result: Script) -> str:
    """A script as it is."""
    return "\n".join(result["script"])


def sensitivity(result: Sensitivity) -> str:
    """A line per layer, the most sensitive first."""
    lines = [
        f"{'quantized alone':<28} {'SQNR dB':>8} {'points lost':>12} {'MMACs':>8}",
        *(f"{row['layer']:<28} {row['sqnr_db']:>8.1f} {row['lost_points']:>12.2f} "
          f"{row['macs'] / 1e6:>8.2f}" for row in result["layers"]),
        f"all quantized: {result['all_quantized_lost_points']:.2f} points lost of "
        f"{result['float_top1']:.2%} ({result['images']} validation images)",
    ]  # fmt: skip
    return "\n".join(lines)


def auto(result: Auto) -> str:
    """Which layers stay float, what that costs, and where the result is."""
    found = result["auto"]
    kept = ", ".join(found["layers"]) or "none"
    cost = f"{found['float_macs']:.1%} of multiply-accumulates"
    if times := found["latency"]:
        low, high = times["interval"]
        cost += (f"; {times['ratio']:.2f} times the latency of none, {low:.2f}-{high:.2f}, "
                 f"{times['target']} on {times['device']}")  # fmt: skip
    return (
        f"float layers: {kept} ({cost})\n"
        f"{found['lost_points']:.2f} points lost on the validation images, "
        f"{found['accuracy_drop']:g} allowed\n{run(result)}"
    )


def export(result: Exported) -> str:
    """The files that were exported."""
    lines = []
    for row in result["files"]:
        types = f"{row['input']['dtype']} in, {row['output']['dtype']} out"
        lines.append(f"{row['target']}: {row['path']}  ({kilobytes(row['size_bytes'])}, {types})")
    where = result.get("added_to")
    own = f"; its own verification doesn't cover that: edgeres verify {where}"
    added = [f"added to {where}{own if result['own_verification'] else ''}"] if where else []
    return "\n".join([*lines, *added, _verified(result)])


def _verified(result: Exported) -> str:
    verify = result["artifacts"].get("verify")
    rows = verify["facts"].get("files", ()) if verify else ()
    if not rows:
        where = result.get("added_to") or result["run"]
        return f"not verified; check them against the model: edgeres verify {where}"
    tests = [(row["target"], row["test"]) for row in rows if row.get("test")]
    top1 = ", ".join(f"{name} {t['correct'] / t['n']:.2%} of {t['n']:,}" for name, t in tests)
    return f"verified: each is the model; top-1 on the test images: {top1}"


def search(result: Search) -> str:
    """A line per candidate that was trained, then the winner; * marks the Pareto front."""
    rows = []
    for c in result["candidates"]:
        if c["top1"] is None or c["interval"] is None:
            continue
        low, high = c["interval"]
        rows.append({
            "": "*" if c["pareto"] else "", "student": c["student"], "MACs kept": f"{c['keep']:g}x",
            "MACs": f"{c['macs'] / 1e6:.2f} M", "ms": f"{c['latency_ns'] / 1e6:.3g}",
            f"top-1 after {result['epochs']} epochs":
                f"{c['top1']:.1%} ({low:.1%}-{high:.1%}, n = {c['n']})",
        })  # fmt: skip
    slow = sum(not c["fits"] for c in result["candidates"])
    rest = sum(c["fits"] and c["top1"] is None for c in result["candidates"])
    winner = result["winner"]
    kept = f", pruned to {winner['latency_ns'] / 1e6:.3g} ms" if winner["keep"] < 1 else ""
    lost = result["lost_points"]
    ms = f"ms are {result['device']}'s estimate, nothing was measured"
    against = [] if lost is None else [f"{-lost:+.2f} points against {result['base']}"]
    return "\n".join([
        table(rows, tuple(rows[0])),
        f"{slow} candidates are too slow, {rest} slim ones were not trained", *against,
        *([ms] if result["estimate"] else []),
        f"winner: {winner['student']}{kept}; train it: edgeres run {result['recipe']}",
    ])  # fmt: skip

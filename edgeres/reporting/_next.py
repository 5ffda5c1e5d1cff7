"""What to do next: what limits accuracy, latency and size of a run's product, with a command each.

A run's numbers flow in, three rows flow out. Nothing is guessed: a limit is named by what was
measured, and where nothing was, the command measures it.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from edgeres.reporting import _units
from edgeres.reporting._headline import is_noise

if TYPE_CHECKING:
    from edgeres.records import Facts
    from edgeres.reporting._document import Summarized

    Sections = Mapping[str, Facts]

_BUDGETS = ("macs", "params", "size", "latency")


def rows(report: Summarized, sections: Sections) -> list[dict[str, str]]:
    """`limit` (of what), `says` and `command`, for accuracy, latency and size; none without a file.

    Args:
        report: the document with its summary; sections: step -> its section of the recipe.
    """
    product, run = report["summary"]["product"], report["run"]
    if product is None or product["kind"] != "file" or not run:
        return []
    name = product["label"]
    found = (("accuracy", _accuracy(report, sections)),
             ("latency", _latency(report, name, sections)),
             ("size", _size(report, name, sections)))  # fmt: skip
    return [{"limit": limit, "says": says, "command": _command(run, *words)}
            for limit, (says, words) in found]  # fmt: skip


def _command(run: str, verb: str, *words: str) -> str:
    folder = f"runs/{run}"
    what = f"{folder}/recipe.lock.yaml" if verb == "run" else folder
    return shlex.join(["edgeres", verb, what, *words])


def _accuracy(report: Summarized, sections: Sections) -> tuple[str, Sequence[str]]:
    """The step that lost most, if a loss is more than noise; else the network it started from."""
    lost = [(r, c, p) for r in report["ladder"] if (c := r["against_previous"])
            and (p := c["p"]) is not None and c["points"] < 0 and not is_noise(c)]  # fmt: skip
    first = report["ladder"][0]
    if not lost:
        n = first["accuracy"]["n"] if first["accuracy"] else 0
        top = _units.percent(first["accuracy"]["top1"]) if first["accuracy"] else "not measured"
        says = (f"No step lost more than {n:,} test images can show; the ceiling is the "
                f"{first['label'].lower()}, {first['detail']} ({top}).")  # fmt: skip
        return says, _longer(first["step"], sections)
    worst, change, p = min(lost, key=lambda found: found[1]["points"])
    says = (f"{worst['label']} lost most: {_units.points(change['points'])} points against what it "
            f"was made from ({_units.p_value(p)}).")  # fmt: skip
    if worst["kind"] == "file":
        return says, ("verify",)
    if worst["step"] == "quantize" and sections.get("quantize", {}).get("method") == "ptq":
        return says, ("run", "--set", "quantize.method=qat")
    return says, _longer(worst["step"], sections)


def _longer(step: str, sections: Sections) -> Sequence[str]:
    """Twice the epochs of a step that trains; another teacher where it was brought."""
    epochs = (sections.get(step, {}).get("train") or {}).get("epochs")
    if epochs and not sections.get(step, {}).get("checkpoint"):
        return "run", "--set", f"{step}.train.epochs={2 * epochs}"
    return ("verify",)


def _latency(report: Summarized, product: str, sections: Sections) -> tuple[str, Sequence[str]]:
    """No valid measurement, or the layer that computes most."""
    mine = [(r, on) for r in report["files"] if r["target"] == product and (on := r["device"])]
    valid = [(on, t) for r, on in mine if r["status"] == "valid" and (t := r["latency"])]
    if not mine:
        return "It was not measured.", ("benchmark", "--device", "host")
    if not valid:
        row, device = mine[0]
        reason = (row["reasons"] or [f"its measurement is {row['status']}"])[0]
        return (f"No valid figure on {device}: {reason}. Measure again while nothing else "
                "runs there.", ("benchmark", "--device", device))  # fmt: skip
    device, times = valid[0]
    says = f"{_units.time(times['median_ns'])} on {device}"
    layers = _layers(report, product, "macs")
    if layers:
        name, share = layers
        says += f"; {name} does most, {_units.percent(share, 0)} of the multiply-accumulates"
    return f"{says}. Half the time is a budget:", _pruned(sections, "latency", "0.5x")


def _size(report: Summarized, product: str, sections: Sections) -> tuple[str, Sequence[str]]:
    """How much of the file is weights, and the largest layer."""
    rung = next(r for r in report["ladder"] if r["kind"] == "file" and r["label"] == product)
    size = rung["size_bytes"]
    if not size:
        return "It is not known.", ("verify",)
    says, layers = _units.size(size), _layers(report, product, "constant_bytes")
    if layers:
        name, share = layers
        says += f"; {name} holds most, {_units.percent(share, 0)} of the weights"
    half = max(round(size / 2000), 1)
    return f"{says}. Half of it is a budget:", _pruned(sections, "size", f"{half}KB")


def _layers(
    report: Summarized, product: str, key: Literal["macs", "constant_bytes"]
) -> tuple[str, float] | None:
    """The product's layer with most of something, and its share."""
    network = next((n for n in report["networks"] if n["target"] == product), None)
    layers = network["layers"] if network else ()
    total = sum(layer[key] for layer in layers)
    if not total:
        return None
    number, most = max(enumerate(layers), key=lambda layer: layer[1][key])
    # Names in files are converters', often nobody's words.
    return f"operator {number} of the file ({most['kind']})", most[key] / total


def _pruned(sections: Sections, budget: str, value: str) -> Sequence[str]:
    """Another budget in place of the one that the recipe has."""
    used = [b for b in _BUDGETS if sections.get("prune", {}).get(b) is not None and b != budget]
    if "prune" not in sections:
        return "prune", "--budget", f"{budget}={value}"
    more = [word for b in used for word in ("--set", f"prune.{b}=null")]
    return "run", "--set", f"prune.{budget}={value}", *more

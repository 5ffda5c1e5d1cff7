"""Prune: a network and a budget in, a slimmer fine-tuned network out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from edgeres.artifact import Artifact
from edgeres.plugins import Plugins
from edgeres.recipe import PruneSection
from edgeres.stages import Context, _checkpoint, _latency, device_keyed, device_plugin, keyed_as_is

if TYPE_CHECKING:
    from edgeres.models.modules import Classifier
    from edgeres.records import Counted, Facts

VERSION = 5
LIBRARIES = _checkpoint.LIBRARIES


def asks(section: PruneSection) -> tuple[str, ...]:
    """The device of a latency budget."""
    return () if section.latency is None else (section.device,)


def plugins(section: PruneSection) -> list[tuple[Plugins, str]]:
    """The device of a latency budget, as a kind."""
    return list(map(device_plugin, asks(section)))


def keyed(section: PruneSection) -> dict[str, object]:
    """The section without what plays no part in it, and with the identity of a device that does."""
    document = keyed_as_is(section)
    del document["max_drop"]  # judged, whatever made the network
    if section.latency is None:
        del document["device"]
        if section.size is None:
            del document["target"]
    else:
        document["device"] = device_keyed(section.device)
    if section.criterion != "group-sparsity":
        del document["sparsity"], document["sparse_epochs"]
    return document


def run(
    section: PruneSection, inputs: Mapping[str, Artifact], out: Path, context: Context
) -> dict[str, object]:
    """Remove blocks and channels, and fine-tune on the labels and the teacher's answers."""
    from edgeres.compression import blocks
    from edgeres.models import weights
    from edgeres.stages import _pruning

    work = _pruning.Pruning.of(section, inputs, context)
    before = inputs["model"].facts
    original = weights.load(inputs["model"].folder())
    budget, plan = _pruning.budget_of(section, original), None
    model = original
    if section.blocks:
        model = blocks.remove(original, section.blocks, work.calibration)
    if section.criterion == "group-sparsity":
        model = work.sparse(model)
    if section.latency is not None:
        plan = _pruning.LatencyPlan.of(work, original, model)
        budget = plan.budget()
    if budget is None:
        model = work.piece("step-1", partial(_same, model), section.train.epochs)
    else:
        start = budget.cost(_latency.layers_of(original))
        for step in range(1, section.steps + 1):
            # Each step keeps the same share of what the one before it left.
            share = (budget.limit / start) ** (step / section.steps)
            make = partial(work.slimmed, model, budget.at(start * share))
            model = work.piece(f"step-{step}", make, work.epochs_of(step))
    made = _checkpoint.write(out, model, inputs["data"], history=work.history,
                             source=inputs["model"].facts["source"],
                             device=section.train.device)  # fmt: skip
    if plan is not None:
        (out / "latency_table.json").write_text(json.dumps(plan.table.to_json(), indent=1), "utf-8")
    return {
        **made, **({"latency": plan.facts(section, model)} if plan is not None else {}),
        "macs_before": before["macs"], "macs_after": made["macs"],
        "parameters_before": before["parameters"], "parameters_after": made["parameters"],
        "lost_points": _points(before["test"]) - _points(made["test"]),
    }  # fmt: skip


def _points(test: Counted) -> float:
    return 100 * test["correct"] / test["n"]


def misses(section: PruneSection, facts: Facts) -> list[str]:
    """What is said of a network that lost more than it may."""
    if section.max_drop is None or facts["lost_points"] <= section.max_drop:
        return []
    return [
        f"prune: {facts['lost_points']:.2f} points of test top-1 are lost "
        f"(n = {facts['test']['n']:,}), and {section.max_drop:g} may be (prune.max_drop); keep "
        f"more of the network, train it longer (prune.train.epochs), or allow more"
    ]


def _same(model: Classifier) -> Classifier:
    return model


def summary(facts: Facts) -> str:
    """The checkpoint's line with the share of MACs that is left, and a latency that was asked."""
    share = facts["macs_after"] / facts["macs_before"]
    line = f"{_checkpoint.summary(facts)}, {share:.2f}x MACs, {-facts['lost_points']:+.2f} points"
    if "latency" not in facts:
        return line
    times = facts["latency"]
    asked, predicted = times["asked_ns"] / 1e6, times["predicted_ns"] / 1e6
    measured = times["measured"]["paced_ns"] / 1e6
    by = times["measured"].get("estimated_by")
    what = f", an estimate of {by}" if by else ""
    return f"{line}, {measured:.3g} ms (asked {asked:.3g}, predicted {predicted:.3g}{what})"

"""Prune: a network and a budget in, a slimmer fine-tuned network out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeres.artifact import Artifact
from edgeres.recipe import PruneSection
from edgeres.stages import Context, _checkpoint, keyed_as_is

VERSION = 2
LIBRARIES = (*_checkpoint.LIBRARIES, "torch-pruning")
keyed = keyed_as_is


def run(
    section: PruneSection, inputs: Mapping[str, Artifact], out: Path, context: Context
) -> dict[str, Any]:
    """Remove channels, then fine-tune on the labels and the teacher's answers."""
    from edgeres import teachers
    from edgeres.compression.prune import prune_to_macs
    from edgeres.models import weights
    from edgeres.training import loop, objectives

    before = inputs["model"]
    data = inputs["data"]
    slim = prune_to_macs(
        weights.load(before.path), section.macs,
        round_to=section.round_to, criterion=section.criterion,
    )  # fmt: skip
    preprocess = slim.spec.preprocess
    objective = objectives.distilled(
        teachers.load(inputs["teacher"].path), preprocess, temperature=section.temperature,
        alpha=section.alpha, smoothing=section.train.label_smoothing,
    )  # fmt: skip
    train, validation, _ = _checkpoint.splits(data, inputs.get("labels"))
    history = loop.fit(
        loop.Trainee.of(slim, preprocess), train, validation, section.train, objective,
        seed=context.seed, work=context.work, tick=context.tick,
    )  # fmt: skip
    facts = _checkpoint.write(out, slim, data, history=history)
    return facts | {
        "macs_before": before.facts["macs"], "macs_after": facts["macs"],
        "parameters_before": before.facts["parameters"], "parameters_after": facts["parameters"],
    }  # fmt: skip


def summary(facts: Mapping[str, Any]) -> str:
    """The checkpoint's line with the share of MACs that is left."""
    share = facts["macs_after"] / facts["macs_before"]
    return f"{_checkpoint.summary(facts)}, {share:.2f}x MACs"

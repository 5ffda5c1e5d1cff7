"""Fine-tuning of somebody's network: a new last layer alone at first, then all of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from edgeres import door
from edgeres.disk import storage_errors, write_whole
from edgeres.errors import BadInput
from edgeres.stages import Context

if TYPE_CHECKING:
    from edgeres.models.modules import Classifier
    from edgeres.recipe import TrainSection
    from edgeres.recipe.sections import HeadSection
    from edgeres.records import Facts
    from edgeres.training.loop import Extra, Objective
    from edgeres.training.views import Labelled


def require_epochs(where: str, replaced: int | None, classes: int, settings: TrainSection) -> None:
    """A last layer that knows nothing must be trained.

    Args:
        replaced: how many classes the one had that was replaced; None if it wasn't.

    Raises:
        BadInput: there are no epochs for it.
    """
    same = replaced == classes
    other = "other classes" if same else f"classes but the data have {classes}"
    if replaced is not None and settings.epochs == 0:
        raise BadInput(
            f"{where}: its weights have {replaced} {other}, and "
            f"{where}.train.epochs is 0: give it epochs to train a new last layer, use the data it "
            f"was trained on, or name a teacher's outputs (teacher.outputs)"
        )


def tuned(
    model: Classifier, settings: TrainSection, head: HeadSection, replaced: int | None,
    train: Labelled, validation: Labelled, objective: Objective, context: Context,
    extra: Extra | None = None,
) -> tuple[Sequence[Mapping[str, object]], dict[str, object]]:  # fmt: skip
    """Train in place; interrupted, it goes on where it was.

    Args:
        head: of a last layer that was replaced.
        replaced: how many classes the one had that was replaced; None: all is trained alike.
        objective, extra: as of `loop.fit`; the new layer alone learns from the labels.

    Returns:
        A row per epoch, and what the artifact says of a new last layer.
    """
    from edgeres.models.modules import head as last_layer
    from edgeres.training import loop

    trainee = loop.Trainee.of(model, model.spec.preprocess)
    alone: Sequence[Mapping[str, object]] = ()
    if replaced is not None:
        note = f"{replaced} classes become {model.spec.classes}: a new last layer"
        context.tick(0, 0, note)
        alone = _alone(model, settings, head, train, validation, context)
        rates = dict.fromkeys(last_layer(model)[1].parameters(), head.rate)
        trainee = replace(loop.Trainee.of(model, model.spec.preprocess), rates=rates)
    rows = loop.fit(
        trainee, train, validation, settings, objective,
        seed=context.seed, work=context.work, tick=context.tick, extra=extra,
    )  # fmt: skip
    if replaced is None:
        return rows, {}
    parts = [{**row, "epoch": n, "part": "head" if n <= len(alone) else "all"}
             for n, row in enumerate([*alone, *rows], 1)]  # fmt: skip
    return parts, {"new_head": {"classes_before": replaced, "epochs_alone": len(alone)}}


def summary(facts: Facts) -> str:
    """`, new last layer (had 1000 classes)`, or nothing."""
    new = facts.get("new_head")
    if not new:
        return ""
    epochs = facts["epochs"] - new["epochs_alone"]
    return (f"; its {new['classes_before']:,} classes aren't the data's: new last layer, "
            f"{new['epochs_alone']} epochs alone and {epochs} with the rest")  # fmt: skip


def _alone(
    model: Classifier, settings: TrainSection, head: HeadSection, train: Labelled,
    validation: Labelled, context: Context,
) -> Sequence[Mapping[str, object]]:  # fmt: skip
    """Train the last layer on the labels, the rest as it is, its batch statistics too."""
    from edgeres.models import modules, weights
    from edgeres.training import loop, objectives

    folder = context.work / "head"
    done = folder / "done"
    if (done / "history.json").exists():
        model.load_state_dict(weights.load(done).state_dict())
        known: list[dict[str, object]] = door.read_json(done / "history.json")
        return known
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    gentle = settings.model_copy(update={
        "epochs": head.epochs, "learning_rate": settings.learning_rate * head.rate,
        "warmup_epochs": min(settings.warmup_epochs, head.epochs / 4),
    })  # fmt: skip
    preprocess = model.spec.preprocess
    last = set(modules.head(model)[1].parameters())
    rest = [p for p in model.parameters() if p.requires_grad and p not in last]
    for parameter in rest:
        parameter.requires_grad_(False)
    still = replace(loop.Trainee.of(model, preprocess), set_training=lambda _: model.eval())
    rows = loop.fit(
        still, replace(train, answers=None), validation, gentle,
        objectives.supervised(preprocess, settings.label_smoothing),
        seed=context.seed, work=folder, tick=context.tick,
    )  # fmt: skip
    for parameter in rest:
        parameter.requires_grad_(True)
    with storage_errors(done):
        done.mkdir(exist_ok=True)
        weights.save(done, model)
        write_whole(done / "history.json", json.dumps(rows))
    return rows

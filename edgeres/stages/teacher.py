"""Teacher: somebody's network or a black box, from wherever it is, or a network trained here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgeres import datasets, teachers
from edgeres.artifact import Artifact
from edgeres.errors import BadInput
from edgeres.plugins import Plugins
from edgeres.recipe import DataSection, TeacherSection
from edgeres.stages import Context, _checkpoint, _finetuning
from edgeres.types import Accuracy

if TYPE_CHECKING:
    from edgeres.models.modules import Classifier
    from edgeres.network._walk import Integers
    from edgeres.records import Facts

VERSION = 7
LIBRARIES = _checkpoint.LIBRARIES
_UNHELD = "is quantized, and is read as float numbers, as its codes can't be kept"


def keyed(section: TeacherSection) -> dict[str, object]:
    """The section; of a loaded teacher, with what it is in place of its path."""
    document = _checkpoint.keyed(section)
    found = teachers.chosen(section)
    if found is None:
        return document
    name, rest = found
    del document["ensemble"]
    if teachers.black_box(section) is not None:
        del document["train"], document["new_head"]  # nothing is trained
    if section.checkpoint is None:
        del document["model"]
    return document | {"checkpoint": [name, teachers.source(name).keyed(rest)]}


def plugins(section: TeacherSection) -> list[tuple[Plugins, str]]:
    """Where it comes from; an ensemble's members, too."""
    return [(teachers.PLUGINS, name) for name in teachers.sources(section)]


def precheck(section: TeacherSection, data: DataSection) -> None:
    """Read somebody's weights before the data are decoded."""
    found = teachers.chosen(section)
    if found is not None:
        size_px = data.size or datasets.default_size(data.source)
        teachers.precheck(*found, _wanted(section, 0, size_px))


def run(
    section: TeacherSection, inputs: Mapping[str, Artifact], out: Path, context: Context
) -> dict[str, object]:
    """Load or train the teacher."""
    found = teachers.chosen(section)
    if found is None:
        return _trained(section, inputs["data"], out, context)
    return _loaded(section, *found, inputs["data"], out, context)


def _trained(
    section: TeacherSection, data: Artifact, out: Path, context: Context
) -> dict[str, object]:
    from edgeres.training import loop, objectives

    settings = section.train.of()
    seed = settings.seed_or(context.seed)
    model = _checkpoint.fresh(section, section.model, data, seed)
    preprocess = model.spec.preprocess
    train, validation, _ = _checkpoint.splits(data)
    history = loop.fit(
        loop.Trainee.of(model, preprocess), train, validation, settings,
        objectives.supervised(preprocess, settings.label_smoothing),
        seed=context.seed, work=context.work, tick=context.tick,
    )  # fmt: skip
    return {**_checkpoint.write(out, model, data, history=history,
                                device=section.train.device)}  # fmt: skip


def wanted(section: TeacherSection, data: Artifact) -> teachers.Wanted:
    """What a section asks of a teacher for these data."""
    return _wanted(section, _checkpoint.class_count(data), int(data.facts["size_px"]))


def _wanted(section: TeacherSection, classes: int, data_px: int) -> teachers.Wanted:
    mean, std = section.normalization or (None, None)
    return teachers.Wanted(
        model=section.model if section.checkpoint is not None else None,
        classes=classes, outputs=section.outputs, data_px=data_px, size_px=section.size,
        mean=mean, std=std, channels=section.channels, weights=section.weights,
        ensemble=section.average,
    )  # fmt: skip


def _loaded(
    section: TeacherSection, source: str, rest: str, data: Artifact, out: Path, context: Context
) -> dict[str, object]:
    when = section.new_head.replace if section.ensemble is None else "never"
    asked = replace(wanted(section, data), new_head=when)
    found = teachers.source(source).fetch(rest, asked, out)
    notes = list(found.notes)
    facts: dict[str, object]
    if found.network is not None:
        history, said = _tuned(section, found.network, found.replaced, data, context)
        if found.integers is not None and not history:
            notes.append(_scales(found.network, found.integers, out))
        made = _checkpoint.write(out, found.network, data, history=history, source=source,
                                 device=section.train.device)  # fmt: skip
        facts = {**made, **said}
    else:
        blind = _checkpoint.write_answers(out, teachers.load(out), data, source=source)
        facts = {**blind, "model": found.name, "parameters": found.parameters}
    advice = [] if found.replaced is not None else _checkpoint.advice(teachers.load(out), data)
    facts["notes"] = [*notes, *advice]
    if section.near_chance == "stop":
        _require_better_than_chance(facts, data, out)
    claimed = section.claimed if section.claimed is not None else found.claimed
    return facts | {"claimed": claimed}


def _scales(network: Classifier, integers: Integers, out: Path) -> str:
    """Keep the scales that a network came with, for `quantize.method: file`; what is to be said."""
    from edgeres.compression import given

    try:
        folded, scales, said = given.held(network, integers)
    except BadInput as error:
        return f"{_UNHELD}: {error}"
    known = network.state_dict()  # its biases are the file's codes now
    known |= {k: v for k, v in folded.state_dict().items() if k in known}
    network.load_state_dict(known)
    _checkpoint.write_scales(out, scales)
    return said


def _tuned(
    section: TeacherSection,
    model: Classifier,
    replaced: int | None,
    data: Artifact,
    context: Context,
) -> tuple[Sequence[Mapping[str, object]], dict[str, object]]:
    """Train a loaded network, if its last layer is a new one or the recipe says how long."""
    from edgeres.training import objectives

    settings = section.train.of() if replaced is not None else section.train.of(0)
    _finetuning.require_epochs("teacher", replaced, model.spec.classes, settings)
    if settings.epochs == 0:
        return [], {}
    train, validation, _ = _checkpoint.splits(data)
    objective = objectives.supervised(model.spec.preprocess, settings.label_smoothing)
    return _finetuning.tuned(
        model, settings, section.new_head, replaced, train, validation, objective, context
    )


def _require_better_than_chance(facts: Facts, data: Artifact, out: Path) -> None:
    from edgeres.teachers import _chance

    test = Accuracy(facts["test"]["correct"], facts["test"]["n"])
    if not _chance.near_chance(test, facts["classes"]):
        return
    guess = f"guessing one of {facts['classes']} classes"
    few = test.top1 > _chance.limit(facts["classes"])
    found = (f"teacher: {facts['model']} is right in {test.top1:.1%} of {test.n} test images, "
             + (f"too few to tell it from {guess}" if few else
                f"which is hardly better than {guess}"))  # fmt: skip
    anyway = "teacher.near_chance: go on uses it anyway"
    if few:
        raise BadInput(f"{found}: give more of them; {anyway}")
    if "new_head" in facts:
        raise BadInput(
            f"{found}: its last layer is new, and {data.facts['counts']['train']:,} images for "
            f"{facts['epochs']} epochs didn't teach it: more images, or more epochs "
            f"(teacher.train.epochs, teacher.new_head.epochs); {anyway}"
        )
    _, validation, _ = _checkpoint.splits(data)
    reasons = _chance.suspects(teachers.load(out), validation.images, validation.labels)
    likely = "; ".join(reasons[:2]) or (
        "the usual reasons: another mean and std, another order of classes or channels, "
        "another range of pixels, other data"
    )
    raise BadInput(
        f"{found}: {likely}; set teacher.preprocess (or mean and std), channels or outputs; if its "
        f"classes are others, --new-head (teacher.new_head.replace: always) trains a new last "
        f"layer; {anyway}"
    )


def summary(facts: Facts) -> str:
    """The checkpoint's line, with what the publisher claims."""
    claimed = facts.get("claimed")
    said = "" if claimed is None else f" (claimed {claimed:.2%})"
    return _checkpoint.summary(facts) + said + _finetuning.summary(facts)

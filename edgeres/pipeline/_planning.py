"""The plan: a recipe flows in, its steps come out in order, with what they need and their state.

What needs what is written here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from edgeres import devices, losses, runtimes, stages, targets, teachers
from edgeres.artifact import Artifact, artifact_key, library_versions
from edgeres.errors import BadInput, unknown
from edgeres.recipe import ExportSection, LabelsSection, Recipe
from edgeres.store import Store

if TYPE_CHECKING:
    from edgeres.recipe import (
        DistillSection,
        MixSection,
        PruneSection,
        QuantizeSection,
        TrainSection,
    )
    from edgeres.recipe.sections.fields import Section

    Taught: TypeAlias = DistillSection | PruneSection | QuantizeSection

TRAINING = ("teacher", "distill", "prune", "quantize")
_OPENED = ("teacher", "export")  # what is in these, their plugin reads for later steps


@dataclass(frozen=True)
class Step:
    """One unit of work.

    Attributes:
        id: the stage's name, or `export:<target>`.
        needs: role -> id of the step whose artifact plays it.
    """

    id: str
    stage: str
    section: Section
    needs: Mapping[str, str]


Given = Mapping[str, Artifact]
"""Step id -> what a run has made of it, which is taken as it is: libraries that are newer now are
no reason to train its network again."""


@dataclass(frozen=True)
class Planned:
    """A step and where it stands: `cached` (its artifact), or to be done.

    Attributes:
        asks: the devices that decide which of the two it is, where none was opened.
        plugins: those of packages that take part, each as `Plugins.provenance` has it.
    """

    step: Step
    key: str | None
    artifact: Artifact | None
    asks: tuple[str, ...] = ()
    plugins: tuple[Mapping[str, str], ...] = ()

    @property
    def state(self) -> str:
        """`cached`, `to do`, `asks a device`, or `waits` when what it needs isn't there yet."""
        if self.artifact:
            return "cached"
        return "to do" if self.key else "asks a device" if self.asks else "waits"


def steps(recipe: Recipe) -> tuple[Step, ...]:
    """The recipe's chain, in order.

    Raises:
        BadInput: a section needs another one that the recipe leaves out.
    """
    _preflight(recipe)
    chain, model = _networks(recipe)
    exports = _exports(recipe, model)
    chain += exports
    files = {s.section.targets[0]: s.id for s in exports if isinstance(s.section, ExportSection)}
    if recipe.verify is not None:
        needs = {"data": "data", "model": model, **files}
        needs |= {"quantize": "quantize"} if recipe.quantize else {}
        chain.append(Step("verify", "verify", recipe.verify, needs))
    if recipe.benchmark is not None:
        needs = {"data": "data", "model": model, **files}
        chain.append(Step("benchmark", "benchmark", recipe.benchmark, needs))
    if recipe.budgets is not None:
        roles = ("benchmark", "verify") if recipe.verify else ("benchmark",)
        chain.append(Step("budgets", "budgets", recipe.budgets, {role: role for role in roles}))
    if recipe.report is not None:
        everything = {step.id: step.id for step in chain}
        titled = recipe.report.model_copy(update={"title": recipe.report.title or recipe.name})
        chain.append(Step("report", "report", titled, everything))
    return tuple(chain)


def _networks(recipe: Recipe) -> tuple[list[Step], str]:
    """Everything up to the last network, and the id of the last one that computes in float."""
    chain = [Step("data", "data", recipe.data, {}),
             Step("teacher", "teacher", recipe.teacher, {"data": "data"})]  # fmt: skip
    model = "teacher"
    labels = None
    for stage in ("distill", "prune", "quantize"):
        section = getattr(recipe, stage)
        if section is None:
            continue
        needs = {"data": "data", "teacher": "teacher"}
        needs |= {} if stage == "distill" else {"model": model}
        if stage == "quantize" and recipe.export and recipe.export.input == "pixels":
            section = section.model_copy(update={"input": "pixels"})
        if labels is None and _wants_labels(section):
            labels = _labels(section)
            chain.append(Step("labels", "labels", labels, {"data": "data", "teacher": "teacher"}))
        if labels and _views(section.train) == _views(labels):
            needs["labels"] = "labels"
        elif _wants_labels(section):
            raise BadInput(
                f"{stage}.cache: a section before it stores answers to other views; give both the "
                "same train.augment and train.mix, or leave one out"
            )
        chain.append(Step(stage, stage, section, needs))
        model = model if stage == "quantize" else stage
    return chain, model


def _exports(recipe: Recipe, model: str) -> list[Step]:
    """A step per target: from the float network `model`, or from the quantized one."""
    found: list[Step] = []
    for name in recipe.export.targets if recipe.export else ():
        assert recipe.export
        _, precision = targets.load(name)
        origin = "quantize" if targets.is_integer(precision) else model
        if origin == "quantize" and recipe.quantize is None:
            raise BadInput(f"export target '{name}' needs a quantized model; add `quantize:`")
        if origin == "quantize" and recipe.quantize:
            targets.require_scheme(name, recipe.quantize.scheme)
        section = recipe.export.model_copy(update={"targets": (name,)})
        needs = {"data": "data", "model": origin}
        found.append(Step(f"export:{name}", "export", section, needs))
    return found


def _wants_labels(section: Taught) -> bool:
    """Whether the teacher is to be asked beforehand, and asked at all."""
    idle = getattr(section, "loss", "") == "none" or getattr(section, "method", "qat") != "qat"
    return section.cache is not None and not idle


def _labels(section: Taught) -> LabelsSection:
    assert section.cache
    augment, mix = _views(section.train)
    # The teacher computes as it would if it were asked in every step; on a GPU only it has fp16.
    precision: Literal["bf16", "fp32"] = "bf16" if section.train.precision == "bf16" else "fp32"
    return LabelsSection(
        **section.cache.model_dump(), augment=augment, mix=mix, precision=precision,
        device=section.train.device,
    )  # fmt: skip


def _views(
    section: TrainSection | LabelsSection,
) -> tuple[tuple[str, ...], MixSection | None]:
    """What decides the views of an image, beside the seed."""
    return section.augment, section.mix


def _preflight(recipe: Recipe) -> None:
    """Refuse wrong names and missing components before an hour of training, not after it."""
    _check_teacher(recipe)
    if recipe.distill and recipe.distill.checkpoint is not None:
        teachers.source("checkpoint").check(recipe.distill.checkpoint)
    if teachers.chosen(recipe.teacher) is None:
        teachers.check_architecture(recipe.teacher.model)
    if recipe.distill:
        teachers.check_architecture(recipe.distill.student)
        losses.check(recipe.distill.loss, mixed=recipe.distill.train.mix is not None)
    if recipe.export:
        _check_npus(recipe.export)
    for name in recipe.export.targets if recipe.export else ():
        targets.require(name)
    if recipe.export and recipe.export.gpu and "tflite-int8" not in recipe.export.targets:
        raise BadInput("export.gpu is for tflite-int8, which isn't one of export.targets")
    for name in recipe.benchmark.devices if recipe.benchmark else ():
        devices.require_running(devices.load(name))
    for name in recipe.verify.on if recipe.verify else ():
        _check_runtime(name, recipe)
    if recipe.prune and recipe.prune.latency:
        devices.load(recipe.prune.device)
        targets.require(recipe.prune.target)


def _check_npus(export: ExportSection) -> None:
    """Each compiled target knows what for, and nothing is said in vain."""
    for npu in set(export.npu).difference(targets.npus(export.targets)):
        known = targets.npus()
        if npu not in known:
            raise unknown("NPU", npu, known)
        raise BadInput(f"export.npu: {npu} is for {known[npu]}, which isn't one of export.targets")
    for name in export.targets:
        form = targets.compiled(name)
        if form and not set(form.npus).intersection(export.npu):
            raise BadInput(f"export target '{name}' has to know what for: set export.npu (--npu) "
                           f"to one of {', '.join(form.npus)}")  # fmt: skip


def _check_runtime(name: str, recipe: Recipe) -> None:
    takes = runtimes.load(name).TAKES
    exported = [targets.as_runtimes_take(t) for t in recipe.export.targets] if recipe.export else []
    if not set(takes).intersection(exported):
        raise BadInput(f"verify.on: {name} takes {', '.join(takes)}; add one to export.targets")
    runtimes.require(name)


def _check_teacher(recipe: Recipe) -> None:
    teachers.check(recipe.teacher)
    further = [n for n in ("prune", "quantize", "export") if getattr(recipe, n) is not None]
    if further and recipe.distill is None and (why := teachers.black_box(recipe.teacher)):
        raise BadInput(
            f"`{further[0]}:` needs a network, and this teacher only answers ({why}): add "
            "`distill:` with a student, or name a teacher whose weights fit (checkpoint, "
            "torchvision, timm)"
        )


def until(chain: tuple[Step, ...], stage: str | None) -> tuple[Step, ...]:
    """The chain up to and including a stage.

    Raises:
        BadInput: there is no such stage, or the recipe leaves it out.
    """
    if stage is None:
        return chain
    if stage not in stages.ORDER:
        raise unknown("stage", stage, stages.ORDER)
    ends = [i for i, step in enumerate(chain) if step.stage == stage]
    if not ends:
        raise BadInput(f"the recipe has no `{stage}:` section; add one or choose another stage")
    return chain[: ends[-1] + 1]


def only(chain: tuple[Step, ...], name: str) -> tuple[Step, ...]:
    """A step of the chain, after all that it is made of.

    Raises:
        BadInput: there is no such step.
    """
    by_id = {step.id: step for step in chain}
    if name not in by_id:
        raise unknown("step", name, list(by_id))
    wanted, waiting = set(), [name]
    while waiting:
        step = waiting.pop()
        wanted.add(step)
        waiting += by_id[step].needs.values()
    return tuple(step for step in chain if step.id in wanted)


def plan(
    recipe: Recipe, chain: tuple[Step, ...], store: Store, given: Given | None = None
) -> Iterator[Planned]:
    """Each step with its state; later steps see what earlier ones yielded.

    Nothing is started and no device is opened.
    """
    known: dict[str, Artifact] = {}
    for step in chain:
        asks = stages.asked_devices(stages.load(step.stage), step.section)
        if asks and all(needed in known for needed in step.needs.values()):
            found = Planned(step, None, None, asks)
        else:
            found = planned(recipe, step, known, store, given)
        if found.artifact:
            known[step.id] = found.artifact
        yield found


def planned(
    recipe: Recipe, step: Step, known: Mapping[str, Artifact], store: Store,
    given: Given | None = None,
) -> Planned:  # fmt: skip
    """A step with its state, from the artifacts of the steps before it."""
    if any(needed not in known for needed in step.needs.values()):
        return Planned(step, None, None)
    module = stages.load(step.stage)
    inputs = {role: known[needed] for role, needed in step.needs.items()}
    own = given.get(step.id) if given else None
    if own is not None and _made_so(own, step, inputs):
        return Planned(step, own.key, own, plugins=own.plugins)
    plugins = stages.provenance(module, step.section)
    plugins += [p for a in inputs.values() if a.stage in _OPENED for p in a.plugins
                if p not in plugins]  # fmt: skip
    parents = {role: parent.digest for role, parent in inputs.items()}
    if step.stage == "data":
        keyed = module.keyed(step.section, store.hashes)  # type: ignore[call-arg]
    else:
        keyed = module.keyed(step.section)
    key = artifact_key(step.stage, module.VERSION, keyed, library_versions(module.LIBRARIES),
                       recipe.seed, parents, plugins)  # fmt: skip
    found = as_asked(step, store.find(step.stage, key))
    return Planned(step, key, found, plugins=tuple(plugins))


def _made_so(own: Artifact, step: Step, inputs: Mapping[str, Artifact]) -> bool:
    """Whether an artifact is what a step says, of the same inputs, by whichever versions."""
    try:
        section = type(step.section).model_validate(own.section)
    except ValueError:  # of a version that knew other settings
        return False
    known = {role: parent["digest"] for role, parent in own.parents.items()}
    return section == step.section and known == {r: a.digest for r, a in inputs.items()}


def as_asked(step: Step, found: Artifact | None) -> Artifact | None:
    """Data as this recipe asks for them: where pictures are now, and what is done about a damaged
    one, no key says."""
    if found is None or step.stage != "data":
        return found
    return replace(found, section=step.section.model_dump(mode="json"))

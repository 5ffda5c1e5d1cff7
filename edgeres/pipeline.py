"""Plan, then perform: a recipe flows in, finished artifacts and a run folder come out.

`steps` turns a recipe into an ordered list of steps; `plan` looks each one up in the store;
`perform` makes what is missing. What needs what is written here and nowhere else.
"""

from __future__ import annotations

import itertools
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from edgeres import devices, procs, runs, stages, targets, teachers
from edgeres.artifact import Artifact, artifact_key, library_versions
from edgeres.disk import storage_errors
from edgeres.errors import BadInput, GateFailed, StorageError, unknown
from edgeres.models import spec
from edgeres.recipe import LabelsSection, Recipe
from edgeres.runs import Run
from edgeres.store import Store

_AT_ONCE = 2
_TRAINING = ("teacher", "distill", "prune", "quantize")  # several processes share these


@dataclass(frozen=True)
class Step:
    """One unit of work.

    Attributes:
        id: the stage's name, or `export:<target>`.
        needs: role -> id of the step whose artifact plays it.
    """

    id: str
    stage: str
    section: Any
    needs: Mapping[str, str]


@dataclass(frozen=True)
class Planned:
    """A step and where it stands: `cached` (its artifact), or to be done."""

    step: Step
    key: str | None
    artifact: Artifact | None

    @property
    def state(self) -> str:
        """`cached`, `to do`, or `waits` when what it needs isn't there yet."""
        return "cached" if self.artifact else "to do" if self.key else "waits"


class Reporter(Protocol):
    """Who is told how the work goes."""

    def started(self, step: str, note: str) -> None:
        """A step begins."""

    def tick(self, done: int, total: int, note: str) -> None:
        """Progress within the step."""

    def finished(self, step: str, cached: bool, seconds: float, summary: str) -> None:
        """A step's artifact is there."""


def steps(recipe: Recipe) -> tuple[Step, ...]:
    """The recipe's chain, in order.

    Raises:
        BadInput: a section needs another one that the recipe leaves out.
    """
    _preflight(recipe)
    chain = [Step("data", "data", recipe.data, {}),
             Step("teacher", "teacher", recipe.teacher, {"data": "data"})]  # fmt: skip
    model = "teacher"
    labels = _labels(recipe)
    if labels:
        chain.append(Step("labels", "labels", labels, {"data": "data", "teacher": "teacher"}))
    for stage in ("distill", "prune", "quantize"):
        section = getattr(recipe, stage)
        if section is None:
            continue
        needs = {"data": "data", "teacher": "teacher"}
        needs |= {} if stage == "distill" else {"model": model}
        if labels and _views(section.train) == _views(labels):
            needs["labels"] = "labels"
        chain.append(Step(stage, stage, section, needs))
        model = model if stage == "quantize" else stage
    exports = {}
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
        chain.append(Step(f"export:{name}", "export", section, needs))
        exports[name] = f"export:{name}"
    if recipe.verify is not None:
        needs = {"data": "data", "model": model, **exports}
        needs |= {"quantize": "quantize"} if recipe.quantize else {}
        chain.append(Step("verify", "verify", recipe.verify, needs))
    if recipe.benchmark is not None:
        needs = {"data": "data", "model": model, **exports}
        chain.append(Step("benchmark", "benchmark", recipe.benchmark, needs))
    if recipe.budgets is not None:
        roles = ("benchmark", "verify") if recipe.verify else ("benchmark",)
        chain.append(Step("budgets", "budgets", recipe.budgets, {role: role for role in roles}))
    if recipe.report is not None:
        everything = {step.id: step.id for step in chain}
        titled = recipe.report.model_copy(update={"title": recipe.report.title or recipe.name})
        chain.append(Step("report", "report", titled, everything))
    return tuple(chain)


def _labels(recipe: Recipe) -> LabelsSection | None:
    """What the teacher is asked beforehand, if the recipe wants that."""
    section = recipe.distill
    if section is None or section.cache is None or section.loss == "none":
        return None
    augment, mix = _views(section.train)
    return LabelsSection(**section.cache.model_dump(), augment=augment, mix=mix)


def _views(section: Any) -> tuple[Any, Any]:
    """What decides the views of an image, beside the seed."""
    return section.augment, section.mix


def _preflight(recipe: Recipe) -> None:
    """Refuse wrong names and missing components before an hour of training, not after it."""
    _check_teacher(recipe)
    networks = [recipe.teacher.model, *([recipe.distill.student] if recipe.distill else [])]
    for name in networks[1:] if ":" in recipe.teacher.model else networks:
        spec.parse(name, classes=2, preprocess=spec.default_preprocess(32))
    for name in recipe.export.targets if recipe.export else ():
        targets.require(name)
    for name in recipe.benchmark.devices if recipe.benchmark else ():
        devices.load(name)
    if recipe.prune and recipe.prune.latency:
        devices.load(recipe.prune.device)
        targets.require(recipe.prune.target)


def _check_teacher(recipe: Recipe) -> None:
    teachers.check(recipe.teacher)
    further = [n for n in ("prune", "quantize", "export") if getattr(recipe, n) is not None]
    if further and recipe.distill is None and teachers.is_black_box(recipe.teacher):
        raise BadInput(
            f"`{further[0]}:` needs a network, and this teacher only answers: add `distill:` with "
            f"a student, or name a teacher whose weights fit (checkpoint, torchvision, timm)"
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


def plan(recipe: Recipe, chain: tuple[Step, ...], store: Store) -> Iterator[Planned]:
    """Each step with its state; later steps see what earlier ones yielded."""
    known: dict[str, Artifact] = {}
    for step in chain:
        planned = _planned(recipe, step, known, store)
        if planned.artifact:
            known[step.id] = planned.artifact
        yield planned


def perform(
    recipe: Recipe, chain: tuple[Step, ...], store: Store, folder: Path, reporter: Reporter
) -> Run:
    """Make every artifact of the chain that the store lacks.

    Raises:
        GateFailed: a verification failed; what was made until then is kept. Or a budget was not
            met; everything was made.
        EdgeresError: a stage could not do its work; the same call continues later.
    """
    if not procs.first():
        return _along(recipe, chain, store, folder)
    store.open()
    run = Run(folder / runs.run_name(recipe))
    with store.in_use():
        with store.lock("run", run.name):
            runs.begin(run, recipe)
        for _, group in itertools.groupby(chain, key=lambda step: step.stage):
            # Steps of one stage (exports) don't need each other.
            planned = [_planned(recipe, step, run.artifacts, store) for step in group]
            if planned[0].artifact and planned[0].step.stage in _TRAINING:
                procs.agree(False)
            made = _make_all(recipe, [p for p in planned if not p.artifact], run, store, reporter)
            for one in planned:
                found = one.artifact or made[one.step.id]
                with store.lock("run", run.name):
                    runs.link(run, one.step.id, found)
                _finish(run, one.step, found, one.artifact is not None, reporter)
            procs.agree(True)  # the others find the artifacts now
    _held(run)
    return run


def _along(recipe: Recipe, chain: tuple[Step, ...], store: Store, folder: Path) -> Run:
    """What all but the first of several processes do: train along, and wait for its artifacts."""
    run = Run(folder / runs.run_name(recipe))
    for stage, group in itertools.groupby(chain, key=lambda step: step.stage):
        members = list(group)
        if stage in _TRAINING and procs.agree(False):
            with tempfile.TemporaryDirectory(prefix="edgeres-") as out:
                todo = _planned(recipe, members[0], run.artifacts, store)
                _perform(recipe, todo, run, store, Path(out), lambda *_: None)
        procs.agree(False)
        for step in members:
            artifact = _planned(recipe, step, run.artifacts, store).artifact
            if artifact is None:
                raise StorageError(
                    f"process {procs.rank()} doesn't see the artifact of {step.id} in "
                    f"{store.root}; all processes need the same --runs folder"
                )
            run.artifacts[step.id] = artifact
    return run


def _held(run: Run) -> None:
    """Budgets that aren't met stop nothing, so that the report shows them, but the run fails."""
    artifact = run.artifacts.get("budgets")
    if artifact is not None and not artifact.facts["met"]:
        module: Any = stages.load("budgets")
        runs.event(run, step="budgets", event="gate failed")
        raise GateFailed("; ".join(module.failures(artifact.facts)))


def _make_all(
    recipe: Recipe, todo: list[Planned], run: Run, store: Store, reporter: Reporter
) -> dict[str, Artifact]:
    """Step id -> its new artifact. Several steps wait for processes of their own: two at a time."""
    if not todo:
        return {}
    for one in todo:
        runs.event(run, step=one.step.id, event="started", key=one.key)
    first = todo[0].step
    alone = len(todo) == 1
    reporter.started(first.id if alone else first.stage, ", ".join(_note(p.step) for p in todo))
    if alone:
        return {first.id: _make(recipe, todo[0], run, store, reporter.tick)}
    stop = threading.Event()

    def tick(done: int, total: int, note: str) -> None:
        if stop.is_set():  # the other one failed, or ctrl-C
            raise KeyboardInterrupt
        reporter.tick(done, total, note)

    pool = ThreadPoolExecutor(_AT_ONCE)
    try:
        futures = {p.step.id: pool.submit(_make, recipe, p, run, store, tick) for p in todo}
        return {name: future.result() for name, future in futures.items()}
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def _finish(run: Run, step: Step, artifact: Artifact, cached: bool, reporter: Reporter) -> None:
    module: Any = stages.load(step.stage)
    run.artifacts[step.id] = artifact
    runs.event(run, step=step.id, event="cached" if cached else "done", key=artifact.key,
           seconds=artifact.seconds)  # fmt: skip
    reporter.finished(step.id, cached, artifact.seconds, module.summary(artifact.facts))
    if artifact.facts.get("passed") is False:
        runs.event(run, step=step.id, event="gate failed")
        raise GateFailed("; ".join(module.failures(artifact.facts)))


def _planned(recipe: Recipe, step: Step, known: Mapping[str, Artifact], store: Store) -> Planned:
    if any(needed not in known for needed in step.needs.values()):
        return Planned(step, None, None)
    module = stages.load(step.stage)
    parents = {role: known[needed].digest for role, needed in step.needs.items()}
    key = artifact_key(step.stage, module.VERSION, module.keyed(step.section),
                       library_versions(module.LIBRARIES), recipe.seed, parents)  # fmt: skip
    return Planned(step, key, store.find(step.stage, key))


def _make(
    recipe: Recipe, planned: Planned, run: Run, store: Store,
    tick: Callable[[int, int, str], None],
) -> Artifact:  # fmt: skip
    step, key = planned.step, planned.key
    assert key is not None
    module = stages.load(step.stage)
    inputs = {role: run.artifacts[needed] for role, needed in step.needs.items()}
    with store.lock(step.stage, key, lambda: tick(0, 0, "another process makes this; waiting")):
        found = store.find(step.stage, key)  # another run may have made it meanwhile
        if step.stage in _TRAINING:
            procs.agree(not found)
        if found:
            return found
        begin = time.monotonic()
        with store.staging(step.stage, key) as staged, storage_errors(staged):
            facts = _perform(recipe, planned, run, store, staged, tick)
            return store.commit(
                staged, step.stage, key, parents=inputs,
                section=_recorded(step.section), facts=facts,
                libraries=library_versions(module.LIBRARIES), seconds=time.monotonic() - begin,
                varies=getattr(module, "VARIES", ()),
            )  # fmt: skip


def _recorded(section: Any) -> dict[str, Any]:
    """What an artifact says of its settings: of a device its name, not its address or its user."""
    known: dict[str, Any] = section.model_dump(mode="json")
    if "devices" in known:
        known["devices"] = [devices.load(name).name for name in known["devices"]]
    return known


def _perform(
    recipe: Recipe, planned: Planned, run: Run, store: Store, out: Path,
    tick: Callable[[int, int, str], None],
) -> dict[str, Any]:  # fmt: skip
    step = planned.step
    assert planned.key is not None
    inputs = {role: run.artifacts[needed] for role, needed in step.needs.items()}
    context = stages.Context(recipe.seed, store.work(step.stage, planned.key), tick)
    return stages.load(step.stage).run(step.section, inputs, out, context)


def _note(step: Step) -> str:
    return ", ".join(getattr(step.section, "targets", ()) or ())

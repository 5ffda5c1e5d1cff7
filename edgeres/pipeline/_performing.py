"""The work: a plan flows in, finished artifacts and a run folder come out."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from edgeres import devices, procs, runs, scratch, stages
from edgeres.artifact import Artifact, library_versions
from edgeres.datasets import _skipped
from edgeres.disk import storage_errors
from edgeres.errors import BadInput, GateFailed, StorageError
from edgeres.pipeline._planning import (
    TRAINING,
    Given,
    Planned,
    Step,
    as_asked,
    plan,
    planned,
)
from edgeres.recipe import Recipe
from edgeres.runs import Run
from edgeres.store import Store

if TYPE_CHECKING:
    from edgeres.recipe.sections.fields import Section

_AT_ONCE = 2


class Reporter(Protocol):
    """Who is told how the work goes."""

    def started(self, step: str, note: str) -> None:
        """A step begins."""

    def tick(self, done: int, total: int, note: str) -> None:
        """Progress within the step."""

    def finished(
        self, step: str, cached: bool, seconds: float, summary: str, notes: Sequence[str]
    ) -> None:
        """A step's artifact is there; `notes`: what was chosen, left out or assumed."""


def perform(
    recipe: Recipe, chain: tuple[Step, ...], store: Store, folder: Path, reporter: Reporter,
    only: str | None = None, given: Given | None = None,
) -> Run:  # fmt: skip
    """Make every artifact of the chain that the store lacks.

    Several processes, of this machine by `procs` or of others that share the store, may do so.

    Args:
        only: the id of the one step that is to be made; those before it have to be there.
        given: what a run that is continued has made, see `Given`.

    Raises:
        BadInput: `only`, and one before it isn't made yet.
        GateFailed: a verification failed; what was made until then is kept. Or a budget was not
            met; everything was made.
        EdgeresError: a stage could not do its work; the same call continues later.
    """
    if not procs.first():
        return _along(recipe, chain, store, folder, given)
    store.open()
    run = Run(runs.run_folder(recipe, folder))
    with store.in_use():
        store.remember(folder)
        # What is refused here leaves no folder.
        known = _looked_up(recipe, chain, store, only, given)
        with store.lock("run", run.name):
            runs.begin(run, recipe)
        for _, group in itertools.groupby(chain, key=lambda step: step.stage):
            # Steps of one stage (exports) don't need each other.
            members = [known.get(step.id) or planned(recipe, step, run.artifacts, store, given)
                       for step in group]  # fmt: skip
            _require_made(members, only)
            if members[0].artifact and members[0].step.stage in TRAINING:
                procs.agree(False)
            made = _make_all(recipe, [p for p in members if not p.artifact], run, store, reporter)
            for one in members:
                found = store.bring(one.artifact or made[one.step.id])
                with store.lock("run", run.name):
                    runs.link(run, one.step.id, found)
                _finish(run, one.step, found, one.artifact is not None, reporter)
                if one.step.stage == "export" and recipe.verify and recipe.verify.on:
                    from edgeres.stages import export

                    export.refuse_known_faults(found, recipe.verify.on)
            procs.agree(True)  # the others find the artifacts now
    _held(run)
    return run


def _looked_up(
    recipe: Recipe, chain: tuple[Step, ...], store: Store, only: str | None, given: Given | None
) -> dict[str, Planned]:
    """The steps from the first one to the first that isn't made yet, by id.

    Raises:
        EdgeresError: something is wrong with that one or a later one, as far as it shows before
            any work.
    """
    known: dict[str, Planned] = {}
    for one in plan(recipe, chain, store, given):
        if one.asks:  # a device says which it is, when its turn comes
            break
        known[one.step.id] = one
        if not one.artifact:
            _require_made([one], only)
            _precheck(recipe, chain, known)
            break
    return known


def _require_made(members: list[Planned], only: str | None) -> None:
    for one in members:
        if only not in (None, one.step.id) and not one.artifact:
            raise BadInput(f"{only} needs {one.step.id}, which the store lacks; make that step "
                           "first (library versions count: `edgeres run --dry-run`)")  # fmt: skip


def _precheck(recipe: Recipe, chain: tuple[Step, ...], known: Mapping[str, Planned]) -> None:
    """Refuse what is wrong with later steps before the first one takes its time."""
    for step in chain:
        look = getattr(stages.load(step.stage), "precheck", None)
        if look is not None and not (step.id in known and known[step.id].artifact):
            look(step.section, recipe.data)


def _along(
    recipe: Recipe, chain: tuple[Step, ...], store: Store, folder: Path, given: Given | None
) -> Run:
    """What all but the first of several processes do: train along, and wait for its artifacts."""
    run = Run(runs.run_folder(recipe, folder))
    for stage, group in itertools.groupby(chain, key=lambda step: step.stage):
        members = list(group)
        if stage in TRAINING and procs.agree(False):
            with scratch.folder("work") as out:
                todo = planned(recipe, members[0], run.artifacts, store, given)
                _perform(recipe, todo, run, store, out, lambda *_: None)
        procs.agree(False)
        for step in members:
            artifact = planned(recipe, step, run.artifacts, store, given).artifact
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
        from edgeres.stages import budgets

        runs.event(run, step="budgets", event="gate failed")
        raise GateFailed("; ".join(budgets.failures(artifact.facts)))


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
    notes = [*(artifact.facts.get("notes") or ()), *_older(artifact, module.LIBRARIES)]
    reporter.finished(step.id, cached, artifact.seconds, module.summary(artifact.facts), notes)
    failed = module.failures(artifact.facts) if artifact.facts.get("passed") is False else []
    if hasattr(module, "misses"):
        failed = module.misses(step.section, artifact.facts)
    if failed:
        runs.event(run, step=step.id, event="gate failed")
        raise GateFailed("; ".join(failed))


def _older(artifact: Artifact, libraries: Sequence[str]) -> list[str]:
    """A sentence, if it was made with other versions than those that are installed."""
    now = library_versions(libraries)
    other = [f"{name} {was}" for name, was in sorted(artifact.libraries.items())
             if was and now.get(name) != was]  # fmt: skip
    return [f"made with {', '.join(other)}, and taken as it is"] if other else []


def _make(
    recipe: Recipe, todo: Planned, run: Run, store: Store,
    tick: Callable[[int, int, str], None],
) -> Artifact:  # fmt: skip
    step, key = todo.step, todo.key
    assert key is not None
    module = stages.load(step.stage)
    inputs = {role: run.artifacts[needed] for role, needed in step.needs.items()}
    with store.lock(step.stage, key, lambda: tick(0, 0, "another process makes this; waiting")):
        found = as_asked(step, store.find(step.stage, key))  # made by another run
        if step.stage in TRAINING:
            procs.agree(not found)
        if found:
            return found
        begin = time.monotonic()
        with store.staging(step.stage, key) as staged, storage_errors(staged):
            facts = _perform(recipe, todo, run, store, staged, tick)
            return store.commit(
                staged, step.stage, key, parents=inputs,
                section=_recorded(step.section), facts=facts,
                libraries=library_versions(module.LIBRARIES), seconds=time.monotonic() - begin,
                varies=getattr(module, "VARIES", ()), plugins=todo.plugins,
            )  # fmt: skip


def _recorded(section: Section) -> dict[str, object]:
    """What an artifact says of its settings: of a device its name, not its address or its user."""
    known: dict[str, object] = section.model_dump(mode="json")
    if isinstance(named := known.get("devices"), list):
        known["devices"] = [devices.load(name).name for name in named]
    return known


def _perform(
    recipe: Recipe, todo: Planned, run: Run, store: Store, out: Path,
    tick: Callable[[int, int, str], None],
) -> dict[str, object]:  # fmt: skip
    step = todo.step
    assert todo.key is not None
    inputs = {role: run.artifacts[needed] for role, needed in step.needs.items()}
    context = stages.Context(recipe.seed, store.work(step.stage, todo.key), tick, run.name,
                             store.hashes)  # fmt: skip
    facts = stages.load(step.stage).run(step.section, inputs, out, context)
    if said := _skipped.notes(context.work):
        known = facts.get("notes")
        facts["notes"] = [*(known if isinstance(known, list) else ()), *said]
    return facts


def _note(step: Step) -> str:
    return ", ".join(getattr(step.section, "targets", ()) or ())
